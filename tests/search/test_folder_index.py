"""An index in a folder finds what sorting all cosines finds, whatever was added, changed and deleted before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_cases import DIM, ORIGIN, OTHER, made_facts, made_vectors, nearest_by_hand

from fewlabel.collection.store import locked
from fewlabel.search import CaseIndex, FolderIndex, begin_index, open_index
from fewlabel.search import vectors as search_vectors
from fewlabel.types import FewlabelError

VECTORS = made_vectors(900)


@pytest.fixture(params=["scanned", "graph"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a graph from 200 cases on, or without one."""
    if request.param == "graph":
        monkeypatch.setattr(search_vectors, "EXACT", 200)
    return str(request.param)


def filled(folder: Path, stop: int = 600, step: int = 600) -> FolderIndex:
    index = FolderIndex.begin(folder, ORIGIN)
    for start in range(0, stop, step):
        rows = range(start, min(start + step, stop))
        index.change(add=(VECTORS[rows.start : rows.stop], made_facts(rows)), fingerprint="whole")
    return index


def found(index: CaseIndex, row: int, k: int = 10, **asked: str) -> list[tuple[str, float]]:
    return [(hit.case, round(hit.similarity, 4)) for hit in index.nearest(VECTORS[row], k, **asked)]  # type: ignore[arg-type]


def test_the_nearest_are_those_of_a_sort_also_under_a_filter(kind: str, tmp_path: Path) -> None:
    index = filled(tmp_path / "index", step=230)
    assert (index._state.vectors.graph is not None) == (kind == "graph")
    for row in (0, 299, 599):
        assert found(index, row) == nearest_by_hand(VECTORS, VECTORS[row], 10, range(600))
        own = [i for i in range(600) if i // 2 != row // 2]
        assert found(index, row, without_patient=f"p{row // 2}") == nearest_by_hand(
            VECTORS, VECTORS[row], 10, own
        )
        assert found(index, row, without_case=f"c{row}")[0] != (f"c{row}", 1.0)
        older = [i for i in own if i % 2 and 20 + i % 50 > 60]
        where = "view = 'PA' AND \"patient age\" > 60"
        expected = nearest_by_hand(VECTORS, VECTORS[row], 10, older)
        assert found(index, row, where=where, without_patient=f"p{row // 2}") == expected
    assert [hit.case for hit in index.nearest(VECTORS[0], 9, where="case_id IN ('c5', 'c7')")] != []
    assert index.nearest(VECTORS[0], 9, where="view = 'XX'") == []


def test_a_hit_brings_what_is_known_of_the_case(tmp_path: Path) -> None:
    [hit] = filled(tmp_path / "index").nearest(VECTORS[7], 1)
    assert hit.facts == {
        "case_id": "c7", "patient_id": "p3", "view": "PA", "Patient Age": 27.0, "Effusion": 0, "text": "case 7",
    }  # fmt: skip
    assert (hit.case, hit.patient) == ("c7", "p3")


def test_steps_give_what_one_step_gives_and_only_few_files(kind: str, tmp_path: Path) -> None:
    one, many = filled(tmp_path / "one", 900, 900), filled(tmp_path / "many", 900, 90)
    for row in range(0, 900, 90):
        assert found(one, row) == found(many, row)
    assert len(many) == len(one) == 900
    assert len(many._state.manifest.segments) < 5
    assert {path.name for path in (tmp_path / "many").iterdir()} == {
        ".lock", "manifest.json", *(file.name for file in many._state.manifest.files),
    }  # fmt: skip


def test_a_deleted_patient_is_gone_from_every_file(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = filled(folder, step=200)
    before = VECTORS[40].tobytes()
    assert any(before in path.read_bytes() for path in folder.iterdir())
    assert index.delete_patient("p20") == 2
    assert len(index) == 598
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for row in (40, 41):
        for content in files.values():
            assert VECTORS[row].tobytes() not in content
            assert f"case {row}".encode() + b"case" not in content
    assert not any(re.search(rb"\bc40c41\b|p20p20", content) for content in files.values())
    assert found(index, 40) == nearest_by_hand(
        VECTORS, VECTORS[40], 10, [i for i in range(600) if i // 2 != 20]
    )
    assert index.vector_of("c40") is None
    assert "c41" not in FolderIndex.open(folder).known()
    assert index.delete_patient("p20") == 0
    assert index.fingerprint == "whole"


def test_half_of_all_deleted_makes_the_graph_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_vectors, "EXACT", 200)
    index = filled(tmp_path / "index")
    index.change(remove=[f"c{i}" for i in range(50)])
    assert index._state.vectors.covered == 600  # empty places stay
    index.change(remove=[f"c{i}" for i in range(300)])
    assert index._state.vectors.covered == len(index._state.vectors) == len(index) == 300
    assert found(index, 299) == nearest_by_hand(VECTORS, VECTORS[299], 10, range(300, 600))
    index.change(remove=[f"c{i}" for i in range(600)])
    assert len(index) == 0
    assert index.nearest(VECTORS[0], 3) == []
    index.change(add=(VECTORS[:3], made_facts(range(3))))
    assert found(index, 0, 1) == [("c0", 1.0)]


def test_new_facts_and_new_columns(kind: str, tmp_path: Path) -> None:
    index = filled(tmp_path / "index", step=300)
    facts = made_facts([5, 301], said="1").set_column(2, "view", pa.array(["LL", "LL"]))
    index.change(facts=facts.append_column("Mass", pa.array([1, 0], pa.int8())))
    assert sorted(hit.case for hit in index.nearest(VECTORS[5], 10, where="view = 'LL'")) == ["c301", "c5"]
    assert [hit.case for hit in index.nearest(VECTORS[5], 10, where="mass = 1")] == ["c5"]
    assert found(index, 5, 1) == [("c5", 1.0)]
    assert index.known()["c301"] == ("pixels 301", "1")
    text = made_facts([900]).drop_columns(["Patient Age"]).append_column("Patient Age", pa.array(["50Y"]))
    index.change(add=(VECTORS[:1], text))
    assert [hit.facts["Patient Age"] for hit in index.nearest(VECTORS[0], 1, where="case_id='c900'")] == [
        "50Y"
    ]


def test_a_reader_stays_where_it_is_until_it_refreshes(kind: str, tmp_path: Path) -> None:
    writer = filled(tmp_path / "index", 300)
    reader = FolderIndex.open(tmp_path / "index")
    old = found(reader, 450)
    writer.change(remove=["c0"], add=(VECTORS[300:600], made_facts(range(300, 600))), fingerprint="more")
    writer.delete_patient("p9")
    assert found(reader, 450) == old
    assert (len(reader), reader.fingerprint) == (300, "whole")
    reader.refresh()
    assert found(reader, 450) == found(writer, 450) == found(FolderIndex.open(tmp_path / "index"), 450)
    assert (len(reader), reader.fingerprint) == (597, "more")


def test_a_reader_needs_no_file_that_a_writer_has_replaced(kind: str, tmp_path: Path) -> None:
    writer = filled(tmp_path / "index", step=300)
    reader = FolderIndex.open(tmp_path / "index")
    answers = found(reader, 5, where="view = 'PA'")
    writer.change(remove=[f"c{i}" for i in range(599)])
    for case, vector in (("c3", VECTORS[3]), ("c450", VECTORS[450])):
        kept = reader.vector_of(case)
        assert kept is not None
        assert np.array_equal(kept[0], vector)
        assert kept[1].case == case
    assert found(reader, 5, where="view = 'PA'") == answers
    assert reader.delete_patient("p299") == 1  # of c598 and c599 the first was gone before
    assert len(reader) == 0


def test_many_queries_at_once_and_wrong_ones(kind: str, tmp_path: Path) -> None:
    index = filled(tmp_path / "index")
    cosines, rows = index.search(VECTORS[:20], 3)
    assert rows[:, 0].tolist() == list(range(20))
    assert np.allclose(cosines[:, 0], 1, atol=1e-6)
    assert cosines.shape == rows.shape == (20, 3)
    with pytest.raises(FewlabelError, match=rf"Queries are \(1, 5\).*have {DIM} numbers"):
        index.nearest(np.ones(5, np.float32), 3)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("vieww = 'PA'", 'no "vieww": did you mean "view"'),
        ('"Patient Agee" > 3', 'no "Patient Agee": did you mean "Patient Age"'),
        ("view = ", "cannot be used"),
        ("1); DELETE FROM cases; --", "cannot be used"),
        ("facts_hash = 'x'", 'no "facts_hash"'),
    ],
)
def test_wrong_expressions(where: str, expected: str, tmp_path: Path) -> None:
    index = filled(tmp_path / "index", 20)
    with pytest.raises(FewlabelError, match=expected):
        index.nearest(VECTORS[0], 3, where=where)
    assert len(index) == 20


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("harm", [cut, altered, Path.unlink])
@pytest.mark.parametrize("name", ["*.npy", "*.arrow", "*.links", "manifest.json"])
def test_damage_is_seen_and_a_command_named(
    name: str, harm: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_vectors, "EXACT", 20)
    folder = tmp_path / "index"
    filled(folder, 40, 40)
    [path] = folder.glob(name)
    harm(path)
    with pytest.raises(FewlabelError, match=r"`fewlabel index .* --model .*`") as told:
        open_index(folder)
    assert ("--rebuild" in str(told.value)) != (harm is Path.unlink and name == "manifest.json")
    again = begin_index(folder, ORIGIN)
    again.change(add=(VECTORS[:40], made_facts(range(40))))
    assert found(open_index(folder), 3, 1) == [("c3", 1.0)]


def test_another_format_and_another_content_of_the_manifest(tmp_path: Path) -> None:
    filled(tmp_path / "index", 4)
    path = tmp_path / "index" / "manifest.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "fingerprint": "other"}))
    with pytest.raises(FewlabelError, match=r"manifest\.json is damaged \(its checksum differs\)"):
        open_index(tmp_path / "index")


def test_the_second_writer_is_told_to_wait(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", 4)
    with (
        locked(tmp_path / "index"),
        pytest.raises(FewlabelError, match=r"another change is writing to .*: wait"),
    ):
        index.change(remove=["c0"])
    assert len(index) == 4
    index.change(remove=["c0"])
    assert len(index) == 3


def test_two_writers_one_after_the_other_lose_nothing(tmp_path: Path) -> None:
    one = filled(tmp_path / "index", 4)
    two = FolderIndex.open(tmp_path / "index")
    one.change(add=(VECTORS[10:11], made_facts([10])))
    two.change(add=(VECTORS[11:12], made_facts([11])))
    assert {"c10", "c11"} <= two.known().keys()


def test_places_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "00000001-1.npy").write_bytes(b"precious")
    with pytest.raises(FewlabelError, match="is not empty and holds no index"):
        begin_index(tmp_path, ORIGIN)
    with pytest.raises(FewlabelError, match="There is no index at"):
        open_index(tmp_path)
    with pytest.raises(FewlabelError, match="is not empty and holds no index"):
        begin_index(tmp_path / "00000001-1.npy", ORIGIN)
    assert (tmp_path / "00000001-1.npy").read_bytes() == b"precious"
    with pytest.raises(FewlabelError, match="mysql://x is no place for an index"):
        open_index("mysql://x")


def test_an_index_keeps_files_of_others_in_its_folder(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", 4)
    (tmp_path / "index" / "notes.npy").write_bytes(b"precious")
    index.change(remove=["c0"])
    assert (tmp_path / "index" / "notes.npy").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (OTHER, r"made by model abc \(resnet18 of /runs/chest\), and /runs/other holds model xyz.*--rebuild"),
        (
            ORIGIN.__class__(**{**ORIGIN.to_json(), "size_px": 64}),
            r"other preprocessing \(size_px 32 and not 64\)",
        ),
    ],
)
def test_vectors_of_another_model_or_preprocessing(other: object, expected: str) -> None:
    with pytest.raises(FewlabelError, match=expected):
        ORIGIN.check_same(other, "chest/index")  # type: ignore[arg-type]
    ORIGIN.check_same(ORIGIN, "chest/index")


def test_the_graph_finds_nearly_all_that_a_scan_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 5,000 vectors, all, half or a twentieth of them allowed: recall at 10 above 0.95."""
    rng = np.random.default_rng(1)
    vectors = made_vectors(5000, seed=1)
    graph = search_vectors.new_graph(DIM)
    graph.add(vectors)
    by_graph = search_vectors.Vectors(graph, search_vectors.scan_of(DIM))
    by_scan = search_vectors.Vectors(None, search_vectors.scan_of(DIM, vectors))
    monkeypatch.setattr(search_vectors, "EXACT", 100)
    for allowed in (None, rng.random(5000) < 0.5, rng.random(5000) < 0.05):
        _, found_rows = by_graph.search(vectors[:100], 10, allowed)
        _, right = by_scan.search(vectors[:100], 10, allowed)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found_rows, right, strict=True)])
        assert recall > 0.95
        if allowed is not None:
            assert allowed[found_rows].all()
