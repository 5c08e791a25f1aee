"""Labels and images worth a second look: flipped labels and copies that were put there, and those that really are."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import SIZE_PX, MakeCollection

from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import EASY, write_radiographs
from fewlabel.pipeline import Learned, PretrainSettings, inspect_labels, pretrain
from fewlabel.pipeline.inspecting import COLUMNS, CONTRADICTED, CROSSING, LABEL, OUTLIER
from fewlabel.types import FewlabelError


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, set[str], list[set[str]]]:
    """Made radiographs; 5 % of the labels flipped; three images twice, two of them with another label.

    Returns the collection, the cases with a flipped label, and the pairs that contradict each other.
    """
    root = tmp_path_factory.mktemp("flawed")
    labels = write_radiographs(root / "images", 300, seed=3, size_px=SIZE_PX, dicom_files=0, difficulty=EASY)
    rows = _rows(labels)
    rng = np.random.default_rng(0)
    flipped = rng.permutation(len(rows))[:15]
    for i in flipped:
        rows[i]["reticulation"] = str(1 - int(rows[i]["reticulation"]))
    twice = [i for i in range(len(rows)) if i not in flipped][5:8]
    for i in twice:
        name = f"images/copy_{i}.png"
        shutil.copy(root / "images" / rows[i]["file"], root / "images" / name)
        other = str(1 - int(rows[i]["reticulation"])) if i != twice[0] else rows[i]["reticulation"]
        rows.append({**rows[i], "file": name, "Patient ID": f"C{i}", "reticulation": other})
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    import_images(root / "images", root / "chest", labels=labels, patient_column="Patient ID", workers=1)
    pairs = [{rows[i]["file"], f"images/copy_{i}.png"} for i in twice[1:]]
    return Collection.open(root / "chest"), {rows[i]["file"] for i in flipped}, pairs


@pytest.fixture(scope="module")
def encoder(
    flawed: tuple[Collection, set[str], list[set[str]]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("encoder") / "run"
    settings = PretrainSettings(encoder="test_resnet", size_px=SIZE_PX, steps=40, batch_size=64)
    pretrain([flawed[0]], out, settings)
    return out


def test_flipped_labels_are_found_above_chance(
    flawed: tuple[Collection, set[str], list[set[str]]], encoder: Path, tmp_path: Path
) -> None:
    collection, flipped, _ = flawed
    found = inspect_labels(collection, "reticulation", encoder, tmp_path)
    assert found.path == tmp_path / "worth_a_look.csv"
    suspects = [row for row in _rows(found.path) if row["what"] == LABEL]
    wrong = [row["case"] in flipped for row in suspects]
    chance = len(flipped) / len(collection)
    recall = sum(wrong) / len(flipped)
    assert np.mean(wrong) > 3 * chance
    assert recall > 3 * len(suspects) / len(collection)  # as many drawn at random would find that share
    assert np.mean(wrong[:10]) > 6 * chance
    assert found.notes[0].startswith("How well the labels of other patients tell reticulation: AUROC 0.")
    for row in suspects:
        assert {row["label"], row["suggested_label"]} == {"reticulation", "not reticulation"}
        assert row["part"] in ("train", "val", "test")
    assert {row["part"] for row in suspects} >= {"train", "test"}


def test_copies_that_contradict_each_other_are_found_without_an_encoder(
    flawed: tuple[Collection, set[str], list[set[str]]],
) -> None:
    collection, _, pairs = flawed
    found = inspect_labels(collection, "reticulation")
    assert found.path is None
    ids = collection.column("case_id")
    listed = {frozenset((ids[one.row], ids[one.other])) for one in found.findings if one.what == CONTRADICTED}
    assert listed == {frozenset(pair) for pair in pairs}
    assert found.counts == {CONTRADICTED: 4, CROSSING: 0, LABEL: 0, OUTLIER: 0}
    assert found.summary == "4 images are worth a second look (4 x copy with another label)"
    assert found.notes[0].startswith("No model was given")
    one = found.findings[0]
    assert one.score == pytest.approx(1)
    assert {one.label, one.suggested} == {"reticulation", "not reticulation"}


def test_copies_in_two_parts_are_found(
    flawed: tuple[Collection, set[str], list[set[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts as a source states them: the three copies in test, the pictures that they were made from in training."""
    collection = flawed[0]
    ids = collection.column("case_id")
    stated = np.array(["Testing" if "copy" in name else "train" for name in ids], dtype=object)
    column = Collection.column
    monkeypatch.setattr(
        Collection, "column", lambda self, name: stated if name == "case:split" else column(self, name)
    )
    found = inspect_labels(collection, "reticulation")
    crossing = [one for one in found.findings if one.what == CROSSING]
    assert len(crossing) == 6
    assert {one.part for one in crossing} == {"train", "test"}
    for one in crossing:
        assert ("copy" in ids[one.row]) == (one.part == "test") != ("copy" in ids[one.other])
        assert one.why.endswith(f"which lies in {'train' if one.part == 'test' else 'test'}.")


def test_test_labels_have_no_say_in_what_is_said_of_the_others(
    flawed: tuple[Collection, set[str], list[set[str]]], encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, _, _ = flawed

    def of_training(found: list) -> list:
        return [(one.row, one.score) for one in found if one.what == LABEL and one.part != "test"]

    before = inspect_labels(collection, "reticulation", encoder).findings
    truth = collection.target("reticulation")
    test = {one.row for one in before if one.part == "test"}
    values = truth.values.copy()
    values[list(test)] = 1 - values[list(test)]
    changed = type(truth)(truth.name, truth.kind, truth.classes, values)
    monkeypatch.setattr(Collection, "target", lambda self, spec, **options: changed)
    after = inspect_labels(collection, "reticulation", encoder).findings
    assert of_training(before) == of_training(after)
    assert [one for one in before if one.part == "test"] != [one for one in after if one.part == "test"]


def test_what_a_run_writes_is_what_the_function_finds(
    run: Learned, chest: Collection, tmp_path: Path
) -> None:
    found = inspect_labels(chest, "opacity", run.out, tmp_path)
    assert found.path is not None
    assert (run.out / "worth_a_look.csv").read_text() == found.path.read_text()
    given = run.results["worth_a_look"]
    assert given["counts"] == found.counts
    assert given["labelled"] == given["images"] == len(chest)
    assert list(_rows(found.path)[0]) == list(COLUMNS)
    for finding in given["findings"]:
        assert (run.out / finding["figure"]).exists()


def test_a_classifier_alone_has_an_encoder_too(
    run: Learned, make_collection: MakeCollection, tmp_path: Path
) -> None:
    """A folder with nothing else, as of evaluate; forty images say too little to doubt a label."""
    other = make_collection("other", 40, seed=9)
    shutil.copytree(run.out / "model", tmp_path / "model")
    found = inspect_labels(other, "opacity", tmp_path)
    assert {one.part for one in found.findings} <= {""}
    assert found.notes[0].startswith(
        "The labels of other patients tell opacity no better than chance (AUROC 0."
    )


def test_mistakes_are_one_sentence(chest: Collection, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match='did you mean "opacity"'):
        inspect_labels(chest, "opacty")
    with pytest.raises(FewlabelError, match="is no finished run"):
        inspect_labels(chest, "opacity", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FewlabelError, match="could not be written"):
        inspect_labels(chest, "opacity", out=tmp_path / "file")


@pytest.mark.real
def test_the_contradicting_copies_of_idrid(shared_data: Path, tmp_path: Path) -> None:
    """Found from pixels and labels alone; `overlaps.csv`, which lists them, is read only to compare."""
    folder = shared_data / "idrid"
    lines, files = ["file,grade,risk,part"], {"train": "a. IDRiD_Disease Grading_Training Labels.csv"}
    for part, name in (files | {"test": "b. IDRiD_Disease Grading_Testing Labels.csv"}).items():
        for row in _rows(folder / name):
            grade, risk = row["Retinopathy grade"], row["Risk of macular edema "]
            lines.append(f"{part}/{row['Image name'].strip()}.jpg,grade {grade},risk {risk},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    import_images(
        folder / "grading_512px", tmp_path / "idrid", labels=tmp_path / "labels.csv", split_column="part"
    )
    collection = Collection.open(tmp_path / "idrid")
    ids = [str(one).removesuffix(".jpg") for one in collection.column("case_id")]
    row_of = {name: row for row, name in enumerate(ids)}
    listed = {
        (row_of[f"{row['split_a']}/{row['image_a']}"], row_of[f"{row['split_b']}/{row['image_b']}"])
        for row in _rows(folder / "overlaps.csv")
        if row["kind"] == "grading_vs_grading"
    }
    exact = set()
    for target in ("grade", "risk"):
        values = collection.target(target).values
        found = inspect_labels(collection, target)
        contradicting = {
            frozenset((one.row, one.other))
            for one in found.findings
            if one.what == CONTRADICTED and one.why.startswith("The same picture as")
        }
        assert contradicting == {frozenset(pair) for pair in listed if len({*values[list(pair)]}) == 2}
        exact |= contradicting
        crossing = {
            frozenset((ids[one.row], ids[one.other])) for one in found.findings if one.what == CROSSING
        }
        assert crossing == {frozenset(("train/IDRiD_118", "test/IDRiD_064"))}
    assert len(exact) == 4
