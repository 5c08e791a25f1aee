"""README and docs/results.md are made from the results, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import make_tables
import pytest

PROJECT = Path(__file__).resolve().parents[2]
README = "\n".join(
    f"before {name}\n<!-- {name}:begin -->\nold\n<!-- {name}:end -->"
    for name in ("results", "tables", "objectives")
)


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
    for name in ("results", "tables", "objectives"):
        assert "not measured" in block(root, name)
        assert "0." not in block(root, name).replace("2002.05709", "").replace("1807.03748", "")
    assert not (root / make_tables.FIGURE).exists()
    assert (root / "README.md").read_text().endswith("after\n")


def test_figures_of_a_result_stand_in_the_tables(root: Path, made_result: dict[str, Any]) -> None:
    put(root, made_result)
    assert make_tables.main([], root) == 0
    first, tables, objectives = (block(root, name) for name in ("results", "tables", "objectives"))
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
    assert "0.931 (0.911 to 0.941) with 47" in objectives
    assert "0.812 (0.792 to 0.822) with 47" in objectives
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
    assert "mean absolute error (lower is better)" in block(root, "tables")


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
