"""What every index offers, and which kind lies where: a folder, or an address of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from fewlabel.search.cases import Hit, Origin
from fewlabel.search.folder import FolderIndex
from fewlabel.types import FewlabelError

ADDRESSES = ("postgresql://", "postgres://")


class CaseIndex(Protocol):
    """Unit vectors and facts of cases. `FolderIndex` says what each of these does; `PostgresIndex` does the same."""

    @property
    def place(self) -> str: ...

    @property
    def origin(self) -> Origin: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def left_out(self) -> frozenset[str]: ...

    def __len__(self) -> int: ...

    def known(self) -> dict[str, tuple[str, str]]: ...

    def vector_of(self, case: str) -> tuple[np.ndarray, Hit] | None: ...

    def nearest(
        self,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        without_patient: str = "",
        without_case: str = "",
    ) -> list[Hit]: ...

    def change(
        self,
        *,
        remove: Iterable[str] = (),
        add: tuple[np.ndarray, pa.Table] | None = None,
        facts: pa.Table | None = None,
        fingerprint: str = "",
        leave_out: str = "",
    ) -> None: ...

    def delete_patient(self, patient: str) -> int: ...


def open_index(place: str | Path) -> CaseIndex:
    """The index in a folder, or at postgresql://... Raises FewlabelError where there is none, or a damaged one."""
    if str(place).startswith(ADDRESSES):
        from fewlabel.search.postgres import PostgresIndex  # of an extra

        return PostgresIndex.open(str(place))
    _check_address(place)
    return FolderIndex.open(place)


def begin_index(place: str | Path, origin: Origin) -> CaseIndex:
    """A new index; with its first change it takes the place of the index that is there.

    Raises FewlabelError for a folder that holds something else, or a server that cannot be reached.
    """
    if str(place).startswith(ADDRESSES):
        from fewlabel.search.postgres import PostgresIndex  # of an extra

        return PostgresIndex.begin(str(place), origin)
    _check_address(place)
    return FolderIndex.begin(place, origin)


def _check_address(place: str | Path) -> None:
    if "://" in str(place):
        raise FewlabelError(
            f"{place} is no place for an index: give a folder, or postgresql://user@host/database."
        )
