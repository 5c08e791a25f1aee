"""Cross-validation by patient: who is in which fold, what is pooled, going on, and what is refused beforehand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_runs import QUICK, TINY, two_steps

from fewlabel.collection import Collection
from fewlabel.pipeline import CrossValidated, arms, cross_validate, cross_validation
from fewlabel.pipeline.cross_validation import fold_splits
from fewlabel.splits import linked_groups
from fewlabel.types import FewlabelError

FOLDS = 2
VAE = replace(TINY, objective="vae")
EVALUATION = replace(QUICK, budgets=(10,), headline_budget=10, seeds=1, resamples=40)


def validated(chest: Collection, out: Path, **more: Any) -> CrossValidated:
    given = {"pretraining": VAE, "evaluation": EVALUATION, "folds": FOLDS} | more
    return cross_validate(chest, "opacity", out, **given)


@pytest.fixture(scope="module")
def crossed(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> CrossValidated:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "supervised_schedule", two_steps)
        return validated(chest, tmp_path_factory.mktemp("crossed") / "run")


def _parts(path: Path) -> dict[str, set[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        part: {row["case_id"] for row in rows if row["part"] == part} for part in ("train", "val", "test")
    }


@pytest.mark.slow
def test_every_patient_is_tested_once_by_who_never_saw_them(
    crossed: CrossValidated, chest: Collection
) -> None:
    """Read from what each fold kept, down to the small pictures of what it was pretrained on."""
    case_ids = chest.column("case:case_id")
    groups = linked_groups(
        chest.patients(), chest.column("case:exact_group"), chest.column("case:near_group")
    )
    group = dict(zip(case_ids, groups, strict=True))
    tested: list[int] = []
    for number in range(1, FOLDS + 1):
        folder = crossed.out / f"fold-{number}"
        parts = _parts(folder / "split.csv")
        who = {part: {group[case] for case in cases} for part, cases in parts.items()}
        assert sum(map(len, parts.values())) == len(chest)
        assert not who["train"] & who["test"]
        assert not who["val"] & who["test"]
        assert not who["train"] & who["val"]
        seen = np.load(folder / "pretrain" / "thumbnails.npy", allow_pickle=False)
        assert np.array_equal(seen, chest.thumbnails()[np.isin(case_ids, list(parts["train"]))])
        tested += sorted(who["test"])
    assert sorted(tested) == sorted(set(groups))


@pytest.mark.slow
def test_mean_and_pooled_figures_are_those_of_the_outputs(crossed: CrossValidated, chest: Collection) -> None:
    target = chest.target("opacity").values
    folds = [cross_validation._read_fold(crossed.out / f"fold-{number}") for number in (1, 2)]
    by_fold = [
        np.mean([roc_auc_score(target[fold.tested], p[:, 1]) for p in fold.outputs["simclr", 10]])
        for fold in folds
    ]

    def row(kind: str) -> Any:
        wanted = ("simclr", 10, "auroc")
        [found] = [r for r in crossed.results[kind] if (r["arm"], r["budget"], r["name"]) == wanted]
        return found

    assert row("metrics")["per_seed"] == pytest.approx(by_fold)
    assert row("metrics")["value"] == pytest.approx(np.mean(by_fold))
    assert row("metrics")["low"] < np.mean(by_fold) < row("metrics")["high"]
    everyone = np.concatenate([target[fold.tested] for fold in folds])
    assert row("metrics")["n"] == len(everyone) == (target >= 0).sum()
    joint = np.concatenate([fold.outputs["simclr", 10] for fold in folds], axis=1)
    expected = np.mean([roc_auc_score(everyone, p[:, 1]) for p in joint])
    assert row("pooled")["value"] == pytest.approx(expected)


@pytest.mark.slow
def test_page_and_figures_without_labels(crossed: CrossValidated) -> None:
    found = {row["name"]: row for row in crossed.results["unlabelled"]}
    assert set(found) == {
        "reconstruction_error", "elbo", "bits_a_dimension", "frechet_reconstructions", "frechet_samples",
    }  # fmt: skip
    for row in found.values():
        assert len(row["folds"]) == FOLDS
        assert row["value"] == pytest.approx(np.mean([fold["value"] for fold in row["folds"]]))
        assert all(fold["low"] <= fold["value"] <= fold["high"] for fold in row["folds"])
    text = crossed.page.read_text()
    assert crossed.headline in text
    assert "with 10 labels" in crossed.headline.lower()
    for shown in ("Fold by fold", "Reconstruction error", "Pooled", "These images are made", "Fold 2"):
        assert shown in text


@pytest.mark.slow
def test_goes_on_between_and_within_folds(
    crossed: CrossValidated, chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the last training of fold 2: fold 1 is not touched again, nor what fold 2 has trained."""
    original, trained = arms.train_on_labels, []

    def stop(*given: Any) -> Any:
        trained.append(len(given[1].train))
        if len(trained) == 4:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(arms, "train_on_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        validated(chest, tmp_path / "run")
    first = (tmp_path / "run" / "fold-1" / "fold.json").stat().st_mtime_ns
    again = validated(chest, tmp_path / "run")
    assert len(trained) == 4 + 1  # 2 budgets a fold; the last one again
    assert (tmp_path / "run" / "fold-1" / "fold.json").stat().st_mtime_ns == first
    assert again.results["metrics"] == crossed.results["metrics"]
    errors = [one.results["unlabelled"][0]["value"] for one in (again, crossed)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    with pytest.raises(FewlabelError, match="another setting"):
        validated(chest, tmp_path / "run", folds=3)


def test_the_official_test_part_stays_out(chest: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = np.where(np.arange(len(chest)) < 20, "test", "train")
    column = Collection.column

    def official(self: Collection, name: str) -> np.ndarray:
        return parts if name == "case:split" else column(self, name)

    monkeypatch.setattr(Collection, "column", official)
    for split in fold_splits(chest, EVALUATION, FOLDS, 0):
        taken = np.concatenate([split.train, split.val, split.test])
        assert sorted(taken) == list(range(20, len(chest)))


@pytest.mark.parametrize(
    ("evaluation", "folds", "said"),
    [
        (EVALUATION, 200, "200 folds were asked for, and the images come from"),
        (EVALUATION, 1, "1 folds were asked for"),
        (replace(EVALUATION, budgets=(80,)), FOLDS, "In fold 1 of 2: A budget of 80 labels"),
        (replace(EVALUATION, where='"Patient Age" < 0'), FOLDS, "No image fulfils"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    chest: Collection, tmp_path: Path, evaluation: Any, folds: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "pretrain", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(FewlabelError, match=said):
        validated(chest, tmp_path / "run", evaluation=evaluation, folds=folds)
    assert not (tmp_path / "run").exists()


def test_a_class_of_fewer_patients_than_folds_is_named(chest: Collection) -> None:
    target = chest.target("opacity")
    sick = np.unique(chest.patients()[target.values == 1])
    with pytest.raises(FewlabelError, match=r"opacity = opacity was seen in \d+ patient\(s\): use at most"):
        fold_splits(chest, EVALUATION, len(sick) + 1, 0)
