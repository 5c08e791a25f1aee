"""An index in PostgreSQL with pgvector, for many people and machines: filter and search are one statement.

A schema of the database holds two tables: `cases`, a row a case with a column for each fact and its vector, and
`about`, one row on what the vectors were made of. Everything happens in transactions: a reader finds the state before a
change or the one after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from fewlabel.collection.matching import checked_name
from fewlabel.search.cases import HASHES, Hit, Origin, left_out_mark
from fewlabel.search.server import Address, Server, code_of
from fewlabel.types import JSON, FewlabelError

FORMAT = 1
VECTOR = "_vector"
LONGEST_NAME = 63
WIDEST_INDEXED, WIDEST_HALVED = 2000, 4000
"""Dimensions up to which pgvector's HNSW takes its type vector, and halfvec; above, all rows are compared."""
BREADTH, WIDEST_BREADTH = 128, 1000
"""hnsw.ef_search, and what the server allows."""
SECONDS = 60
"""A search may take so long, then it is given up; a change waits so long for searches to end."""
_OLDEST = (0, 8)
_OF_EXPRESSIONS = ("22", "25", "42", "57")
"""Classes of refusals that an expression may call for: data, writing, syntax and names, time."""
_ROWS = 500


class PostgresIndex:
    """An index at postgresql://user@host/database?schema=name; `open` it, or `begin` a new one. As `FolderIndex`."""

    def __init__(
        self,
        server: Server,
        origin: Origin,
        fingerprint: str = "",
        left_out: frozenset[str] = frozenset(),
        *,
        begun: bool = False,
    ) -> None:
        self._server, self.origin, self._begun = server, origin, begun
        self.fingerprint, self.left_out = fingerprint, left_out
        self._schema = _quoted(server.address.schema)

    @staticmethod
    def open(address: str) -> PostgresIndex:
        """The index there. Raises FewlabelError where there is none, or where the server cannot be reached."""
        server = Server(Address.parse(address))
        with server.reading():
            [[said]] = server.run(f"SELECT said FROM {_quoted(server.address.schema)}.about")
        if said["format"] != FORMAT:
            raise FewlabelError(
                f"The index at {server.address.shown} is of format {said['format']} and this version reads {FORMAT}: "
                "make it anew with `fewlabel index COLLECTION --model RUN --rebuild`."
            )
        origin = Origin.from_json(said["origin"])
        return PostgresIndex(server, origin, said["fingerprint"], frozenset(said["left_out"]))

    @staticmethod
    def begin(address: str, origin: Origin) -> PostgresIndex:
        """A new index that takes the place of the one in that schema with its first `change`.

        Raises FewlabelError where the server cannot be reached or has no pgvector of at least 0.8.
        """
        server = Server(Address.parse(address))
        with server.writing():
            _check_pgvector(server)
        return PostgresIndex(server, origin, begun=True)

    def __len__(self) -> int:
        if self._begun:
            return 0
        with self._server.reading():
            [[count]] = self._server.run(f"SELECT count(*) FROM {self._schema}.cases")
        return int(count)

    @property
    def place(self) -> str:
        """The address without its password."""
        return self._server.address.shown

    def known(self) -> dict[str, tuple[str, str]]:
        """The `HASHES` of each case, by id."""
        if self._begun:
            return {}
        with self._server.reading():
            rows = self._server.run(f"SELECT case_id, {', '.join(HASHES)} FROM {self._schema}.cases")
        return {case: (pixels, facts) for case, pixels, facts in rows}

    def vector_of(self, case: str) -> tuple[np.ndarray, Hit] | None:
        """The unit vector (K,) of a case and what is known of it; None where the index does not have it."""
        with self._server.reading():
            rows = self._server.run(
                f"SELECT {VECTOR}::text FROM {self._schema}.cases WHERE case_id = :case_id", case_id=case
            )
            facts = self._facts_of([case])
        if not rows:
            return None
        return np.array(json.loads(rows[0][0]), dtype=np.float32), Hit(1.0, facts[case])

    def nearest(
        self,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        without_patient: str = "",
        without_case: str = "",
    ) -> list[Hit]:
        """As `FolderIndex.nearest`; `where` is SQL of PostgreSQL, judged in a transaction that cannot write."""
        if vector.shape != (self.origin.dim,):
            raise FewlabelError(
                f"The query is {vector.shape} and the vectors of the index have {self.origin.dim} numbers: ask with "
                "features of the model that made it."
            )
        with self._server.reading():
            columns = self._columns()
            try:
                found = self._nearest(columns, vector, k, where, without_patient, without_case)
            except Exception as error:
                if where is not None and (
                    code_of(error)[:2] in _OF_EXPRESSIONS or "placeholder" in str(error)
                ):
                    raise FewlabelError(_mistake(where, error, list(columns))) from None
                raise
            facts = self._facts_of([case for case, _ in found])
        return [Hit(cosine, facts[case]) for case, cosine in found]

    def _nearest(
        self, columns: dict[str, str], vector: np.ndarray, k: int, where: str | None, patient: str, case: str
    ) -> list[tuple[str, float]]:
        server = self._server
        for name, value in (
            ("hnsw.ef_search", min(max(BREADTH, k), WIDEST_BREADTH)),
            ("hnsw.iterative_scan", "strict_order"),
            ("statement_timeout", 1000 * SECONDS),
        ):
            server.run("SELECT set_config(:name, :value, true)", name=name, value=str(value))
        operands = _operands(self.origin.dim)
        rows = server.run(
            f"SELECT case_id, {operands} FROM (SELECT * FROM ({self._shown(columns)}) AS cases "
            f"WHERE (\n{where or 'true'}\n)) AS cases "
            "WHERE (:patient = '' OR patient_id IS DISTINCT FROM :patient) AND case_id <> :case_id "
            f"ORDER BY {operands} LIMIT :k",
            query=_text_of(vector),
            patient=patient,
            case_id=case,
            k=k,
        )
        return [(str(found), 1.0 - float(distance)) for found, distance in rows]

    def _shown(self, columns: dict[str, str]) -> str:
        """A selection of all columns under their names, and under the same in small letters."""
        shown = {name: name for name in columns}
        for name in columns:
            shown.setdefault(name.lower(), name)
        listed = ", ".join(f"{_quoted(name)} AS {_quoted(called)}" for called, name in shown.items())
        return f"SELECT {listed} FROM {self._schema}.cases"

    def _facts_of(self, cases: list[str]) -> dict[str, JSON]:
        rows = self._server.run(
            f"SELECT case_id, to_jsonb(cases) FROM {self._schema}.cases WHERE case_id = ANY(CAST(:cases AS text[]))",
            cases=cases,
        )
        hidden = (*HASHES, VECTOR)
        return {case: {name: v for name, v in facts.items() if name not in hidden} for case, facts in rows}

    def change(
        self,
        *,
        remove: Iterable[str] = (),
        add: tuple[np.ndarray, pa.Table] | None = None,
        facts: pa.Table | None = None,
        fingerprint: str = "",
        leave_out: str = "",
    ) -> None:
        """As `FolderIndex.change`, in one transaction. The graph is made when a fingerprint says that all is in."""
        server, schema = self._server, self._schema
        with server.writing():
            server.run("SELECT set_config('lock_timeout', :limit, true)", limit=str(1000 * SECONDS))
            [[ours]] = server.run(
                "SELECT pg_try_advisory_xact_lock(hashtext(:schema))", schema=server.address.schema
            )
            if not ours:
                raise FewlabelError(f"another change is writing to {self.place}: wait until it has ended")
            if self._begun:
                self._make_tables()
            gone = list(remove)
            server.run(f"DELETE FROM {schema}.cases WHERE case_id = ANY(CAST(:gone AS text[]))", gone=gone)
            for table in (add[1] if add else None, facts):
                if table is not None:
                    self._make_columns(table.schema)
            if add is not None:
                self._insert(*add)
            if facts is not None:
                self._update(facts)
            if fingerprint:
                self._make_graph()
            left_out = self._left_out_with(leave_out)
            said = {
                "format": FORMAT,
                "origin": self.origin.to_json(),
                "fingerprint": fingerprint,
                "left_out": sorted(left_out),
            }
            server.run(f"UPDATE {schema}.about SET said = CAST(:said AS jsonb)", said=json.dumps(said))
        self.fingerprint, self.left_out, self._begun = fingerprint, left_out, False

    def delete_patient(self, patient: str) -> int:
        """Remove all cases of a patient, and keep him out; returns how many there were."""
        with self._server.reading():
            rows = self._server.run(
                f"SELECT case_id FROM {self._schema}.cases WHERE patient_id = :patient", patient=patient
            )
        if rows:
            cases = [case for [case] in rows]
            self.change(remove=cases, fingerprint=self.fingerprint, leave_out=patient)
        return len(rows)

    def _left_out_with(self, patient: str) -> frozenset[str]:
        """Marks of those who are out now, and of this patient; "" = of nobody else."""
        [[said]] = self._server.run(f"SELECT said FROM {self._schema}.about")
        marks = {*said.get("left_out", ()), *([left_out_mark(patient)] if patient else [])}
        return frozenset(marks)

    def _columns(self) -> dict[str, str]:
        """Type of each column of `cases`, by name, in order."""
        rows = self._server.run(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = :schema AND table_name = 'cases' ORDER BY ordinal_position",
            schema=self._server.address.schema,
        )
        return {str(name): str(kind) for name, kind in rows}

    def _make_tables(self) -> None:
        server, schema = self._server, self._schema
        server.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        server.run(f"DROP TABLE IF EXISTS {schema}.cases, {schema}.about")
        server.run(f"CREATE TABLE {schema}.about (said jsonb NOT NULL)")
        server.run(f"INSERT INTO {schema}.about VALUES ('{{}}')")
        hashes = ", ".join(f"{name} text" for name in HASHES)
        server.run(
            f"CREATE TABLE {schema}.cases (case_id text PRIMARY KEY, patient_id text, {hashes}, "
            f"{VECTOR} vector({int(self.origin.dim)}) NOT NULL)"
        )
        server.run(f"CREATE INDEX ON {schema}.cases (patient_id)")

    def _make_columns(self, schema: pa.Schema) -> None:
        there = self._columns()
        for field in schema:
            if len(field.name.encode()) > LONGEST_NAME:
                raise FewlabelError(
                    f'The column "{field.name}" has a name of {len(field.name.encode())} bytes and PostgreSQL takes '
                    f"{LONGEST_NAME}: rename it, or use an index in a folder."
                )
            name, kind = _quoted(field.name), _kind(field.type)
            if field.name not in there:
                self._server.run(f"ALTER TABLE {self._schema}.cases ADD COLUMN {name} {kind}")
            elif kind == "text" and there[field.name] != "text":
                self._server.run(f"ALTER TABLE {self._schema}.cases ALTER COLUMN {name} TYPE text")

    def _insert(self, vectors: np.ndarray, table: pa.Table) -> None:
        names = ", ".join(_quoted(name) for name in (*table.column_names, VECTOR))
        for start, rows in _batches(table):
            for row, vector in zip(rows, vectors[start:], strict=False):
                row[VECTOR] = vector.astype(float).tolist()
            self._server.run(
                f"INSERT INTO {self._schema}.cases ({names}) SELECT {names} FROM "
                f"json_populate_recordset(NULL::{self._schema}.cases, CAST(:rows AS json))",
                rows=json.dumps(rows),
            )

    def _update(self, facts: pa.Table) -> None:
        own = [_quoted(name) for name in facts.column_names if name != "case_id"]
        for _, rows in _batches(facts):
            self._server.run(
                f"UPDATE {self._schema}.cases AS old SET {', '.join(f'{name} = new.{name}' for name in own)} FROM "
                f"json_populate_recordset(NULL::{self._schema}.cases, CAST(:rows AS json)) AS new "
                "WHERE old.case_id = new.case_id",
                rows=json.dumps(rows),
            )

    def _make_graph(self) -> None:
        dim = self.origin.dim
        if dim > WIDEST_HALVED:
            return
        kind = "vector" if dim <= WIDEST_INDEXED else "halfvec"
        operand = VECTOR if kind == "vector" else f"({VECTOR}::halfvec({dim}))"
        self._server.run(
            f"CREATE INDEX IF NOT EXISTS cases_graph ON {self._schema}.cases USING hnsw ({operand} {kind}_cosine_ops)"
        )


def _check_pgvector(server: Server) -> None:
    there = server.run("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
    version = there[0][0] if there else "none"
    if not there or tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise FewlabelError(
            f"The server of {server.address.shown} has pgvector {version} and at least 0.8 is needed: have it "
            "installed there, or use an index in a folder."
        )
    server.run("CREATE EXTENSION IF NOT EXISTS vector")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _kind(given: pa.DataType) -> str:
    if pa.types.is_floating(given):
        return "double precision"
    if pa.types.is_boolean(given):
        return "boolean"
    return "bigint" if pa.types.is_integer(given) else "text"


def _operands(dim: int) -> str:
    """The distance between rows and the query, written as the graph's index knows it."""
    if WIDEST_INDEXED < dim <= WIDEST_HALVED:
        return f"{VECTOR}::halfvec({dim}) <=> CAST(:query AS halfvec({dim}))"
    return f"{VECTOR} <=> CAST(:query AS vector({dim}))"


def _text_of(vector: np.ndarray) -> str:
    return json.dumps(vector.astype(float).tolist())


def _batches(table: pa.Table) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(first row, rows as JSON takes them) of some rows at a time; NaN becomes null."""
    for start in range(0, len(table), _ROWS):
        rows = table.slice(start, _ROWS).to_pylist()
        yield (
            start,
            [{name: None if value != value else value for name, value in row.items()} for row in rows],
        )


def _mistake(where: str, error: BaseException, columns: list[str]) -> str:
    said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    unknown = re.match(r'column "?(?:cases\.)?(.+?)"? does not exist', str(said.get("M", "")))
    if unknown:
        try:
            checked_name(unknown[1], [name for name in columns if name not in (*HASHES, VECTOR)], "the index")
        except FewlabelError as found:
            return f"{found} (names with blanks go in double quotes, text in single ones)"
    told = str(said.get("M", error)).splitlines()[0]
    return f"the expression {where!r} cannot be used: {told}"
