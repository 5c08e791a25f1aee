"""`fewlabel anomalies` and `fewlabel score` on made radiographs: what is seen when, what is told, every mistake."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import SIZE_PX, TINY, Fewlabel, check_refused

from fewlabel.collection import Collection
from fewlabel.evaluation import metrics
from fewlabel.phantoms import radiographs
from fewlabel.pipeline import Anomalies, AnomalySettings, anomalies, find_anomalies, pretraining, score_files
from fewlabel.pipeline.anomalies import normal_target
from fewlabel.tasks.detector import MAPS, SCORES, Detector, load_detector
from fewlabel.types import FewlabelError

HEALTHY = "opacity = 0 AND effusion = 0 AND reticulation = 0"
SETTINGS = AnomalySettings(HEALTHY, specificity=0.8, patches=200, resamples=40)
VAE = replace(TINY, objective="vae")


@pytest.fixture(scope="module")
def masks(chest: Collection) -> np.ndarray:
    """The opacities, in the order of the collection's rows."""
    made = radiographs(90, size_px=SIZE_PX, seed=1)
    first = {patient: i for i, patient in reversed(list(enumerate(made.patients)))}
    names = [Path(case).stem.rsplit("_", 1) for case in chest.column("case:case_id")]
    return made.opacity_mask[[first[patient] + int(number) - 1 for patient, number in names]]


@dataclass(frozen=True)
class Seen:
    """A run, and what it was shown: rows of pretraining, then pixels to fit each detector and its thresholds to."""

    run: Anomalies
    pretrained: np.ndarray
    fitted: list[np.ndarray]
    limited: list[np.ndarray]


@pytest.fixture(scope="module")
def seen(chest: Collection, masks: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    fit, of, fixed = pretraining.fit, Detector.of, Detector.fixed
    rows, normal, val = [], [], []

    def watched(objective: Any, data: Any, *arguments: Any, **named: Any) -> Any:
        rows.extend(data.rows)
        return fit(objective, data, *arguments, **named)

    def fitted(encoder: Any, reconstructor: Any, pixels: np.ndarray, **named: Any) -> Detector:
        normal.append(pixels)
        return of(encoder, reconstructor, pixels, **named)

    def limited(self: Detector, pixels: np.ndarray, **named: Any) -> Detector:
        val.append(pixels)
        return fixed(self, pixels, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "fit", watched)
        patch.setattr(Detector, "of", staticmethod(fitted))
        patch.setattr(Detector, "fixed", limited)
        out = tmp_path_factory.mktemp("anomalies") / "run"
        run = find_anomalies(chest, SETTINGS, out, pretraining=VAE, masks=masks)
    [trained] = rows
    return Seen(run, trained, normal, val)


@pytest.fixture(scope="module")
def found(seen: Seen) -> Anomalies:
    return seen.run


@pytest.fixture(scope="module")
def images(chest: Collection) -> Path:
    return chest.path.parent / "images" / "images"


def test_only_normal_images_are_learned_from(seen: Seen, chest: Collection) -> None:
    ids, patients = chest.column("case:case_id"), chest.column("case:patient_id")
    part_of = {}
    with (seen.run.out / "split.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            part_of[row["case_id"]] = row["part"]
    parts = np.array([part_of.get(case, "") for case in ids])
    healthy = np.isin(np.arange(len(chest)), chest.where(HEALTHY))
    assert np.array_equal(seen.pretrained, np.flatnonzero(parts == "train"))
    assert healthy[parts == "train"].all()
    assert not healthy[parts == "test"].all()
    squares = chest.square(SIZE_PX)
    assert len(seen.fitted) == len(seen.limited) == 2  # the detector, and that with random weights
    for shown in seen.fitted:
        assert np.array_equal(shown, squares[parts == "train"])
    for shown in seen.limited:
        assert np.array_equal(shown, squares[(parts == "val") & healthy])
    for part in ("val", "test"):
        assert not set(patients[parts == "train"]) & set(patients[parts == part])
    assert not set(patients[parts == "val"]) & set(patients[parts == "test"])


def test_what_is_told_follows_from_the_scores_of_every_image(found: Anomalies) -> None:
    with (found.out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = [row for row in rows if row["part"] == "test"]
    normal_val = [row for row in rows if row["part"] == "val" and row["normal"] == "yes"]
    y = np.array([row["normal"] == "no" for row in test])
    assert [row["key"] for row in found.results["scores"]] == [
        *SCORES, "random-patches", "random-mahalanobis", "pixels", "statistics", "brightness"
    ]  # fmt: skip
    for told in found.results["scores"]:
        values = np.array([float(row[told["key"]]) for row in test])
        assert told["auroc"]["value"] == pytest.approx(
            metrics.auroc(y, values, np.ones((1, len(y))))[0], abs=1e-4
        )
        threshold = np.quantile([float(row[told["key"]]) for row in normal_val], 0.8, method="higher")
        assert told["threshold"] == pytest.approx(threshold, rel=1e-4)
        assert told["sensitivity"]["value"] == pytest.approx(np.mean(values[y] > threshold), abs=0.01)
        assert told["specificity"]["value"] == pytest.approx(np.mean(values[~y] <= threshold), abs=0.01)
        assert told["auroc"]["low"] <= told["auroc"]["value"] <= told["auroc"]["high"]
    assert found.results["images"]["test"]["not_normal"] == y.sum()


def test_ten_cases_five_highest_and_five_drawn(found: Anomalies) -> None:
    with (found.out / "scores.csv").open(newline="") as file:
        test = [float(row["patches"]) for row in csv.DictReader(file) if row["part"] == "test"]
    cases = found.results["cases"]
    highest = [case["scores"]["patches"] for case in cases if case["chosen"] == "highest"]
    assert highest == pytest.approx(sorted(test, reverse=True)[:5], rel=1e-4)
    assert [case["chosen"] for case in cases] == ["highest"] * 5 + ["drawn"] * 5
    assert len({case["case"] for case in cases}) == 10
    for case in cases:
        for picture in (case["figure"], *case["maps"].values()):
            assert (found.out / picture).is_file()
    page = found.page.read_text()
    assert page.count('src="data:image/png') == 40
    assert "http" not in page.replace("http-equiv", "")
    assert "These images are made" in page


def test_places_are_measured_where_they_are_known(
    found: Anomalies, chest: Collection, masks: np.ndarray
) -> None:
    told = found.results["localisation"]
    with (found.out / "scores.csv").open(newline="") as file:
        test = [row["case"] for row in csv.DictReader(file) if row["part"] == "test"]
    rows = np.flatnonzero(np.isin(chest.column("case:case_id"), test))
    with_opacity = rows[chest.column("opacity")[rows] == 1]
    known = masks[with_opacity]
    assert told["images"] == len(with_opacity)
    assert told["chance"] == pytest.approx(known.mean())
    detector = load_detector(found.out / "model")
    maps = detector.look(chest.square(SIZE_PX)[with_opacity]).maps["patches"]
    wanted = np.mean([mask.ravel()[one.argmax()] for mask, one in zip(known, maps, strict=True)])
    assert told["rows"][0]["hits"]["value"] == pytest.approx(wanted)
    assert "an orange line" in found.page.read_text().lower()


def test_again_is_at_once_and_other_settings_are_refused(
    found: Anomalies, chest: Collection, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(anomalies, "pretrain", never)
    again = find_anomalies(chest, SETTINGS, found.out, pretraining=VAE, masks=masks)
    assert again.results == found.results
    for changes, said in (
        (
            {"settings": replace(SETTINGS, normal="opacity = 0")},
            "settings.normal: opacity = 0 AND .* there, opacity = 0",
        ),
        ({"pretraining": replace(VAE, steps=4)}, "pretraining.steps: 3 there, 4 here"),
        ({"masks": ~masks}, "masks: "),
    ):
        given: Any = {"settings": SETTINGS, "pretraining": VAE, "masks": masks, **changes}
        with pytest.raises(FewlabelError, match=f"another setting .{said}"):
            find_anomalies(chest, out=found.out, **given)


def test_an_interrupted_run_goes_on_from_what_was_pretrained(
    found: Anomalies, chest: Collection, masks: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError

    shutil.copytree(found.out, tmp_path / "run")
    (tmp_path / "run" / "anomalies.json").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    monkeypatch.setattr(pretraining, "fit", never)
    again = find_anomalies(chest, SETTINGS, tmp_path / "run", pretraining=VAE, masks=masks)
    for before, after in zip(found.results["scores"], again.results["scores"], strict=True):
        assert after["auroc"] == before["auroc"]
        assert after["threshold"] == pytest.approx(before["threshold"], rel=1e-5)
    assert again.results["localisation"] == found.results["localisation"]


def test_new_files_get_the_scores_of_the_evaluation(
    found: Anomalies, images: Path, tmp_path: Path, fewlabel: Fewlabel
) -> None:
    with (found.out / "scores.csv").open(newline="") as file:
        known = {Path(row["case"]).name: row for row in csv.DictReader(file)}
    files = sorted(path for path in images.iterdir() if path.name in known)[:6]
    (tmp_path / "notes.txt").write_text("no image")
    out = tmp_path / "scores"
    status, said, err = fewlabel("score", found.out, *files, tmp_path / "notes.txt", "--out", out)
    assert (status, said) == (3, f"6 of 7 files scored: {out}/scores.csv\n")
    assert err.startswith(f"unreadable: {tmp_path / 'notes.txt'}: ")
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"] * 6 + ["unreadable"]
    assert not any(rows[-1][name] for name in SCORES)
    thresholds = {row["key"]: row["threshold"] for row in found.results["scores"]}
    for row in rows[:6]:
        for name in SCORES:
            wanted = float(known[Path(row["file"]).name][name])
            assert float(row[name]) == pytest.approx(wanted, rel=0.02), name
            assert row[f"{name}_above"] == ("yes" if float(row[name]) > thresholds[name] else "no")
        for name in MAPS:
            assert (out / row[f"{name}_map"]).is_file()
    assert len(list((out / "maps").iterdir())) == 18
    one_by_one = score_files(found.out, files, tmp_path / "again", batch_size=2)
    assert [row["patches_map"] for row in one_by_one.rows] == [row["patches_map"] for row in rows[:6]]
    assert fewlabel("score", found.out, tmp_path / "notes.txt", "--out", tmp_path / "none")[0] == 1


def test_other_sizes_and_colour_are_brought_to_the_run(found: Anomalies, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 41, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    scored = score_files(found.out, [tmp_path / "colour.png"], tmp_path / "out")
    assert scored.unreadable == 0
    assert float(scored.rows[0]["patches"]) > 0


def test_what_cannot_be_told_is_neither(chest: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    states = chest.column("opacity").copy()
    states[:4] = -1, -2, -1, -2
    column = Collection.column
    monkeypatch.setattr(
        Collection, "column", lambda self, name: states if name == "opacity" else column(self, name)
    )
    values = normal_target(chest, AnomalySettings("opacity = 0 AND effusion = 0")).values
    effusion = chest.column("effusion")
    for row in range(4):  # an effusion alone is not normal; without one nothing is known
        assert values[row] == (1 if effusion[row] == 1 else -1)
    assert np.array_equal(values[4:] == 0, (states[4:] == 0) & (effusion[4:] == 0))
    assert np.array_equal(values[4:] == 1, ~((states[4:] == 0) & (effusion[4:] == 0)))
    inside = normal_target(
        chest, AnomalySettings("opacity = 0", where="view = 'PA' OR view IS NULL OR view = ''")
    )
    assert set(inside.values[column(chest, "case:view") == "AP"]) <= {-1}


def test_mistakes_are_one_sentence(
    chest: Collection, found: Anomalies, tmp_path: Path, fewlabel: Fewlabel
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.doc").write_text("precious")
    tiny = ["--encoder", "test_resnet", "--size", SIZE_PX, "--steps", 2, "--batch-size", 8]
    run = ["anomalies", chest.path, "--out", tmp_path / "new", *tiny]
    wrong: list[tuple[list[object], str]] = [
        ([*run, "--normal", "opacity = 7"], r"No image is normal by 'opacity = 7' \(0 are, 90 are not\)"),
        (
            [*run, "--normal", "1 = 1"],
            r"Every image that can be told is normal by '1 = 1' \(90 are, 0 are not\)",
        ),
        ([*run, "--normal", "opcity = 0"], 'no "opcity": did you mean "opacity"'),
        ([*run, "--normal", "opacity ="], "expression 'opacity =' cannot be used"),
        ([*run, "--normal", HEALTHY, "--where", "view = 'XX'"], "No image fulfils \"view = 'XX'\""),
        ([*run, "--normal", '"Patient Age" > 85'], r"normal image\(s\) by .* lie in the part 'train'"),
        ([*run, "--normal", HEALTHY, "--specificity", 1], "specificity is 1: a share between 0 and 1"),
        ([*run, "--normal", HEALTHY, "--patches", 0], "patches is 0"),
        ([*run, "--normal", HEALTHY, "--objective", "convirt"], "ConVIRT learns images from their reports"),
        ([*run, "--normal", HEALTHY, "--encoder", "resnet0"], "no encoder called 'resnet0'"),
        (
            ["anomalies", chest.path, "--normal", HEALTHY, "--out", full, *tiny],
            "is not empty and holds no run",
        ),
        (["anomalies", tmp_path, "--normal", HEALTHY, "--out", tmp_path / "new"], "is no collection"),
        (["score", tmp_path, full, "--out", tmp_path / "s"], "holds no whole detector"),
        (["score", found.out, tmp_path / "none.png", "--out", tmp_path / "s"], "There is no file"),
        (["score", found.out, full, "--out", full], "holds something else than scores"),
    ]
    check_refused(fewlabel, wrong)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FewlabelError, match=r"Masks are \(90, 8, 8\)"):
        find_anomalies(chest, SETTINGS, tmp_path / "new", pretraining=VAE, masks=np.zeros((90, 8, 8), bool))


def test_the_command_with_an_objective_that_has_no_decoder(
    chest: Collection, images: Path, tmp_path: Path, fewlabel: Fewlabel
) -> None:
    tiny = ["--encoder", "test_resnet", "--size", SIZE_PX, "--steps", 2, "--batch-size", 8, "--patches", 100]
    out = tmp_path / "run"
    status, said, _ = fewlabel(
        "anomalies", chest.path, "--normal", HEALTHY, "--out", out, "--objective", "simclr", *tiny
    )
    assert status == 0
    assert said.startswith("Learned from ")
    assert f"report: {out}/anomalies.html" in said
    results = json.loads((out / "anomalies.json").read_text())
    assert [row["key"] for row in results["scores"]][:3] == ["patches", "mahalanobis", "random-patches"]
    assert results["localisation"] is None
    assert list(results["maps"]) == ["patches"]
    scored = score_files(out, sorted(images.iterdir())[:2], tmp_path / "scores")
    assert "reconstruction" not in scored.rows[0]
    shutil.rmtree(out / "pretrain")  # the detector needs nothing outside of model/
    assert score_files(out, sorted(images.iterdir())[:2], tmp_path / "again").rows[0]["patches"]
