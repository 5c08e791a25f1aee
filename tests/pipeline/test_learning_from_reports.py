"""Images learned from their reports, from a folder and a table to the report page."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import QUICK, SIZE_PX, TINY

from fewlabel.collection import Collection
from fewlabel.phantoms import write_radiographs
from fewlabel.pipeline import Learned, arms, evaluate, learn, pretrain
from fewlabel.pipeline.adopting import only_target, open_or_import, paired_texts
from fewlabel.pipeline.runs import read_split
from fewlabel.pipeline.settings import PretrainSettings, TextSettings
from fewlabel.tasks.image_text import load_image_text
from fewlabel.types import FewlabelError

CONVIRT = replace(TINY, objective="convirt", text=TextSettings(steps=3))
FAST = replace(QUICK, budgets=(20,), seeds=1, resamples=40, supervised=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and findings.csv beside it with labels and reports of all but the last ten images."""
    root = tmp_path_factory.mktemp("reports")
    table = write_radiographs(root / "made", 90, seed=3, size_px=SIZE_PX, dicom_files=1)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[-10:]:
        row["report"] = ""
    with (root / "findings.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    shutil.move(root / "made" / "images", root / "chest")
    return root


@pytest.fixture(scope="module")
def learned(folder: Path) -> Learned:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "supervised_schedule", lambda *given: pytest.fail("no scratch was asked for"))
        return learn(
            folder / "chest",
            "opacity",
            folder / "run",
            reports=folder / "findings.csv",
            pretraining=CONVIRT,
            evaluation=FAST,
        )


def test_a_folder_and_a_table_are_enough(learned: Learned, folder: Path) -> None:
    collection = Collection.open(folder / "chest-collection")
    assert len(np.unique(collection.patients())) < len(collection) == 90  # the column Patient ID was found
    results = learned.results
    assert {arm["label"] for arm in results["arms"]} >= {"ConVIRT, linear probe"}
    modes = {(mode["key"], mode["encoder"]): mode["rows"] for mode in results["retrieval"]["modes"]}
    asked = [("text-image", f"ConVIRT, asked for {name}") for name in ("opacity", "not opacity")]
    images = [("image-image", "ConVIRT"), ("image-image", "random init")]
    assert set(modes) == {*images, *asked, ("image-text", "ConVIRT")}
    for rows in modes.values():
        assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    assert {row["name"] for row in results["zero_shot"]["rows"]} >= {"auroc"}
    page = learned.report.read_text()
    assert "There is no evidence of opacity." in page
    assert "image to text" in page.lower()


def test_hits_are_test_images_of_other_patients(learned: Learned, folder: Path) -> None:
    collection = Collection.open(folder / "chest-collection")
    split = read_split(learned.out / "split.csv", collection)
    assert split is not None
    patients = collection.patients()

    def row(shown: dict) -> int:
        return int(shown["figure"].removeprefix("figures/case-").removesuffix(".png"))

    asked = [one for one in learned.results["retrieval"]["queries"] if one["mode"] == "image-image"]
    assert len(asked) == 4
    for one in asked:
        hits = [row(hit) for hit in one["hits"]]
        assert len(hits) == 10
        assert set(hits) <= set(split.test.tolist())
        assert patients[row(one["query"])] not in patients[hits]
        assert all(hit["right"] == (hit["truth"] == one["query"]["truth"]) for hit in one["hits"])


def test_what_is_kept_is_the_model_that_was_trained(learned: Learned, folder: Path) -> None:
    seed = learned.out / "pretrain" / "seed-0"
    model = load_image_text(seed / "image-text")
    layers = len(model.text_encoder.network.encoder.layer)
    assert model.text_encoder.frozen_layers == layers // 2  # half, as 6 of 12
    assert model.temperature == 0.1
    again = evaluate(
        folder / "chest-collection",
        "effusion",
        learned.out,
        folder / "again",
        reports=folder / "findings.csv",
        evaluation=replace(FAST, target="effusion"),
    )
    assert {mode["key"] for mode in again.results["retrieval"]["modes"]} == {
        "image-image", "text-image", "image-text",
    }  # fmt: skip


def test_the_same_call_returns_at_once_and_other_texts_are_refused(
    learned: Learned, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.open(folder / "chest-collection")
    texts = paired_texts(collection, folder / "findings.csv", CONVIRT.text)
    assert len(texts) == 80
    seed = learned.out / "pretrain" / "seed-0"
    made = json.loads((seed / "pretrain.json").read_text())
    kept = PretrainSettings.from_json(made["settings"])
    split = read_split(seed / "split.csv", collection)
    assert split is not None
    monkeypatch.setattr(
        "fewlabel.pipeline.pretraining.fit", lambda *given, **more: pytest.fail("trained again")
    )
    assert pretrain([collection], seed, kept, texts=texts, splits=[split]).image_text is not None
    fewer = paired_texts(collection, folder / "findings.csv", replace(CONVIRT.text, keep=("impression",)))
    with pytest.raises(FewlabelError, match="holds a run with other settings"):
        pretrain([collection], seed, kept, texts=fewer, splits=[split])


def test_no_sentence_of_validation_or_test_patients_reaches_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned: Learned
) -> None:
    collection = Collection.open(folder / "chest-collection")
    texts = paired_texts(collection, folder / "findings.csv", CONVIRT.text)
    seen: dict[str, list[str]] = {}

    def stop(said: list[str], *given: object, **more: object) -> None:
        seen["said"] = list(said)
        raise KeyboardInterrupt

    split = read_split(learned.out / "split.csv", collection)
    assert split is not None
    monkeypatch.setattr("fewlabel.pipeline.pairs.train_text_encoder", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain([collection], tmp_path, CONVIRT, texts=texts, splits=[split])
    trained = {s for row in split.train if row in texts.rows for s in texts.of_row(int(row))}
    assert set(seen["said"]) == trained
    everything = {sentence for sentences in texts.sentences for sentence in sentences}
    assert everything - trained  # some sentences are said of held-out patients alone


@pytest.mark.parametrize(
    ("settings", "with_texts", "words"),
    [
        (CONVIRT, False, "give them with --reports"),
        (TINY, True, "choose the objective convirt"),
        (replace(CONVIRT, text=TextSettings(encoder="nowhere/at/all")), True, "no folder"),
        (replace(CONVIRT, text=TextSettings(frozen_layers=9, steps=3)), True, "9 layers were to be frozen"),
    ],
)
def test_mistakes_are_one_sentence(
    settings: PretrainSettings, with_texts: bool, words: str, folder: Path, tmp_path: Path, learned: Learned
) -> None:
    collection = Collection.open(folder / "chest-collection")
    texts = paired_texts(collection, folder / "findings.csv", CONVIRT.text) if with_texts else None
    with pytest.raises(FewlabelError, match=words) as error:
        pretrain([collection], tmp_path / "run", settings, texts=texts)
    assert "\n" not in str(error.value)


def test_positives_have_no_meaning_with_text() -> None:
    with pytest.raises(FewlabelError, match="ConVIRT looks at one view"):
        replace(CONVIRT, positives="patient")


def test_the_only_target_is_taken_and_several_are_named(
    folder: Path, tmp_path: Path, learned: Learned
) -> None:
    with pytest.raises(FewlabelError, match=r"opacity, effusion, .*--target"):
        only_target(Collection.open(folder / "chest-collection"))
    (tmp_path / "labels.csv").write_text(
        "file,finding\n" + "".join(f"{p.name},{n % 2}\n" for n, p in enumerate((folder / "chest").iterdir()))
    )
    shutil.copytree(folder / "chest", tmp_path / "few")
    found = open_or_import(tmp_path / "few", tmp_path / "labels.csv")
    assert only_target(found) == "finding"
    assert len(open_or_import(tmp_path / "few", tmp_path / "labels.csv")) == len(
        found
    )  # nothing is added twice
    (tmp_path / "few").rename(tmp_path / "away")
    (tmp_path / "few").symlink_to(folder / "chest")
    with pytest.raises(FewlabelError, match="was made of other images"):
        open_or_import(tmp_path / "few", tmp_path / "labels.csv")
