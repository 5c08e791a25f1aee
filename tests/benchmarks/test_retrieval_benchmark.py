"""The benchmark of the index compares equals, and its tables can be made."""

from __future__ import annotations

from pathlib import Path

import make_tables
import numpy as np
import pytest
import retrieval
import retrieval_page

FACTS = {"usable_cores": 2, "memory_gib": 24, "torch": "2", "python": "3", "disturbed": False}


def test_engines_find_the_same_and_everything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "QUERIES", 20)
    monkeypatch.setattr(retrieval, "STEP", 250)
    monkeypatch.setattr(
        retrieval.search_vectors, "EXACT", retrieval.search_vectors.EXACT
    )  # which `measure` sets
    monkeypatch.setattr(retrieval, "memory_of", lambda engine, folder, vectors, exact: 1.5)
    names = ("steps", "added", "states_seen", "seconds_a_step", "median_ms", "p99_ms", "longest_step_seconds")
    monkeypatch.setattr(retrieval, "while_adding", lambda *given: dict.fromkeys(names, 3))
    rows = [retrieval.measure("clustered", 600, exact) for exact in (1000, 500)]
    assert [row["by"] for row in rows] == ["scan", "graph"]
    assert rows[0]["recall_at_10"] == 1
    assert rows[1]["recall_at_10"] > 0.9
    page = retrieval_page.retrieval({"dim": 128, "k": 10, "rows": rows, **FACTS})
    assert "| 600, clustered | scan |" in page
    assert "| 600, clustered | scikit-learn | 2 | 20 |" in page
    assert page.count("scikit-learn") == 2
    folder, vectors = tmp_path / "index", retrieval.made("clustered", 300, seed=1)
    retrieval.build(folder, vectors)
    _, engines = retrieval.engines_of(folder, vectors)
    queries = retrieval.made("clustered", 5, seed=2)
    first, *others = (ask(queries) for ask in engines.values())
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.slow
def test_another_process_adds_while_this_one_searches(tmp_path: Path) -> None:
    retrieval.build(tmp_path / "index", retrieval.made("noise", 300, seed=1))
    queries = retrieval.made("noise", 20, seed=2)
    found = retrieval.while_adding(tmp_path / "index", "noise", 300, queries, 100_000)
    assert found["states_seen"] > 1
    assert len(retrieval.FolderIndex.open(tmp_path / "index")) == 300 + found["steps"] * found["added"]


def test_made_vectors_are_clustered_the_same_way_for_every_seed() -> None:
    one, other = retrieval.made("clustered", 400, seed=1), retrieval.made("clustered", 400, seed=2)
    noise = retrieval.made("noise", 400, seed=1)
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    assert np.median((other @ one.T).max(axis=1)) > np.median((noise @ one.T).max(axis=1)) + 0.2


def test_the_tables_stand_in_their_page(tmp_path: Path) -> None:
    text = "before\n<!-- retrieval:begin -->\nold\n<!-- retrieval:end -->\nafter\n"
    assert "Not measured yet." in make_tables.with_block(
        text, "retrieval", retrieval_page.retrieval(None), "x"
    )
    with pytest.raises(ValueError, match=r"docs/search\.md needs <!-- retrieval:begin -->"):
        make_tables.with_block("nothing", "retrieval", "", "docs/search.md")
