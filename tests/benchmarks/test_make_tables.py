"""README and docs/results.md are made from the results, and from nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import make_tables
import pytest

PROJECT = Path(__file__).resolve().parents[2]
BLOCKS = ("results", "tables", "recipe", "sizes", "objectives", "positives", "image-text")
README = "\n".join(f"before {name}\n<!-- {name}:begin -->\nold\n<!-- {name}:end -->" for name in BLOCKS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(README + "\nafter\n")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    return tmp_path


def put(root: Path, result: dict[str, Any]) -> None:
    (root / "benchmarks" / "results" / f"{result['job']}.json").write_text(json.dumps(result))


def block(root: Path, name: str) -> str:
    text = (root / "README.md").read_text()
    return text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]


def test_without_results_everything_is_said_to_be_not_measured(root: Path) -> None:
    assert make_tables.main([], root) == 0
    for name in BLOCKS:
        assert "not measured" in block(root, name).lower()
        assert not re.search(r"\b0\.\d", block(root, name))
    assert not (root / make_tables.FIGURE).exists()
    assert (root / "README.md").read_text().endswith("after\n")


def test_figures_of_a_result_stand_in_the_tables(root: Path, made_result: dict[str, Any]) -> None:
    put(root, made_result)
    assert make_tables.main([], root) == 0
    first, tables = block(root, "results"), block(root, "tables")
    assert "47 labels (1 % of them)" in first
    assert "needs 777 otherwise" in first
    assert make_tables.FIGURE in first
    few, every = (line for line in tables.splitlines() if line.startswith("| `pneumoniamnist`"))
    for value in (
        "0.931 (0.911 to 0.941)",
        "0.753 (0.733 to 0.763)",
        "0.812",
        "0.777",
        "0.711",
        "600 patients",
    ):
        assert value in few
    assert "+0.119 (+0.080 to +0.150), p < 0.001" in few
    assert "4,708 (all)" in every
    assert "0.971 (0.951 to 0.981)" in every
    page = (root / "docs" / "results.md").read_text()
    assert "A warning of the run." in page
    assert '"steps": 1234' in page
    svg = (root / make_tables.FIGURE).read_text()
    assert "<svg" in svg
    assert make_tables.digest(make_tables.Result("pneumoniamnist", made_result)) in svg


def test_every_table_of_a_measured_job_has_the_random_arm(root: Path, made_result: dict[str, Any]) -> None:
    put(root, made_result)
    make_tables.main([], root)
    header = next(line for line in block(root, "tables").splitlines() if line.startswith("| Target"))
    assert make_tables.ARMS["random"] in header
    assert "arm random" in (root / "docs" / "results.md").read_text()


def test_an_arm_that_was_not_trained_is_not_measured(root: Path, made_result: dict[str, Any]) -> None:
    made_result["metrics"] = [row for row in made_result["metrics"] if row["arm"] != "supervised"]
    made_result |= {"differences": [], "headline": None}
    put(root, made_result)
    assert make_tables.main([], root) == 0
    assert "Labels saved: not measured." in block(root, "results")
    assert "trained from scratch" not in block(root, "results")
    row = next(line for line in block(root, "tables").splitlines() if line.startswith("| `pneumoniamnist`"))
    assert row.count("not measured") == 2  # the arm and the difference


def test_lower_is_better_is_said(root: Path, made_result: dict[str, Any]) -> None:
    made_result |= {
        "job": "nih-age",
        "higher_is_better": False,
        "metric_labels": {"auroc": "mean absolute error"},
    }
    put(root, made_result)
    make_tables.main([], root)
    assert "mean absolute error (lower is better)" in (root / "docs" / "results.md").read_text()


def test_check_tells_what_is_stale(
    root: Path, made_result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    put(root, made_result)
    assert make_tables.main(["--check"], root) == 1
    assert "old" in block(root, "results")
    make_tables.main([], root)
    assert make_tables.main(["--check"], root) == 0
    made_result["metrics"][0]["value"] = 0.925
    put(root, made_result)
    capsys.readouterr()
    assert make_tables.main(["--check"], root) == 1
    said = capsys.readouterr().out
    assert all(name in said for name in ("README.md", "docs/results.md", make_tables.FIGURE))


def test_markers_must_be_there_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "README.md").write_text("nothing")
    assert make_tables.main([], root) == 1
    assert "README.md needs <!-- results:begin -->" in capsys.readouterr().err


def test_this_project_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_tables.main(["--check"], PROJECT) == 0, capsys.readouterr().out + "run make results"


def test_the_recipe_has_its_own_table(root: Path, made_result: dict[str, Any]) -> None:
    steps = {"finetune": 0.901, "finetune-head": 0.902, "self-distilled": 0.903, "distilled": 0.904}
    like = made_result["metrics"][0]
    made_result["metrics"] += [
        {**like, "arm": arm, "budget": budget, "value": value}
        for arm, value in steps.items()
        for budget in (47, 4708)
    ]
    made_result["settings"] = {
        "pretraining": {"encoder": "resnet50"},
        "evaluation": {"headline_budget": 50, "simclr_v2": {"student": "resnet18"}},
    }
    put(root, {**made_result, "job": "x-simclr-v2", "table": "recipe"})
    assert make_tables.main([], root) == 0
    few, every = (line for line in block(root, "recipe").splitlines() if "resnet50 → resnet18" in line)
    assert "47 (1 %)" in few
    assert "4,708 (100 %)" in every
    assert [few.index(f"{value:.3f}") for value in steps.values()] == sorted(
        few.index(f"{value:.3f}") for value in steps.values()
    )
    assert "x-simclr-v2" not in block(root, "tables")
    assert "## x-simclr-v2" in (root / "docs" / "results.md").read_text()


def test_compared_encoders_have_their_tables(root: Path) -> None:
    def row(target: str, way: str, value: float, difference: float) -> dict[str, Any]:
        return {
            "target": target, "way": way, "label": f"way {way}", "budget": 47, "metric": "auroc", "value": value,
            "low": value - 0.01, "high": value + 0.02, "n": 314, "patients": 205, "against": "simclr",
            "difference": difference, "difference_low": difference - 0.05, "difference_high": difference + 0.05,
            "p": 0.5,
        }  # fmt: skip

    ways = {
        key: {"label": key, "network": "ResNet-18", "trainings": [{"steps": 321, "seconds": 9.0}]}
        for key in ("simclr", "patient")
    }
    content = {
        "study": "positives-nih", "about": "chests", "groups": "patients", "seconds": 9.0, "label_seeds": 6,
        "pretraining_seeds": 1, "ways": ways,
        "rows": [
            row("sex", "simclr", 0.7, 0.0), row("sex", "patient", 0.75, 0.05),
            row("sex", "random, ResNet-18", 0.5, -0.2), row("view", "simclr", 0.8, 0.0),
        ],
    }  # fmt: skip
    for name in ("positives-nih", "objectives"):
        (root / "benchmarks" / "results" / f"{name}.json").write_text(json.dumps(content))
    assert make_tables.main([], root) == 0
    told = block(root, "positives")
    sex = "| sex, n = 314 of 205 patients | ResNet-18 |"
    assert f"{sex} way simclr | 321 | 0.700 (0.690 to 0.720) |" in told
    assert f"{sex} way patient | 321 | 0.750 (0.740 to 0.770); +0.050 (" in told
    assert f"{sex} way random, ResNet-18 | 0 | 0.500" in told
    assert "6 draws of labels, 1 pretraining of 9 s of the processor each" in told
    assert "Of 2 differences 1 is told from 0: way random, ResNet-18 (sex, 47 labels: −0.200)." in told
    assert "arXiv:2006.07733" in block(root, "objectives")


def test_a_job_on_grades_also_tells_referable(root: Path, made_result: dict[str, Any]) -> None:
    graded = made_result | {
        "job": "idrid-grading",
        "target": {"kind": "ordinal", "referable": "2"},
        "metric": "kappa",
        "metric_labels": {"kappa": "quadratic weighted kappa"},
        "metrics": [row | {"name": "kappa"} for row in made_result["metrics"]]
        + [row | {"name": "auroc_referable", "value": 0.765} for row in made_result["metrics"]],
        "differences": [
            {**row, "arm": "finetune", "reference": "simclr", "name": "kappa"}
            for row in made_result["differences"]
        ],
        "arms": [*made_result["arms"], {"key": "finetune", "label": "fine-tuned", "role": "method"}],
    }
    put(root, graded)
    assert make_tables.main([], root) == 0
    text = (root / "docs" / "results.md").read_text()
    assert "AUROC of referable, 2 or more:" in text
    assert "0.765 (0.911 to 0.941)" in text
    assert (
        "−0.119 (−0.150 to −0.080), p < 0.001" in text
    )  # SimCLR minus fine-tuned, which was kept the other way
