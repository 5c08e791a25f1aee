"""Files are replaced whole, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewlabel.files import replacing, write_bytes, write_text
from fewlabel.types import FewlabelError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one\r\n")
    with replacing(path) as temporary:
        temporary.write_text("two")
        assert path.read_bytes() == b"one\r\n"
    assert path.read_text() == "two"
    write_bytes(path, b"three", lasting=False)
    assert path.read_bytes() == b"three"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a[1].txt"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    left, living = (tmp_path / f".a[1].txt.{number}" for number in (dead.stdout.strip(), os.getppid()))
    others = tmp_path / ".a[1].txt.backup"
    for one in (left, living, others):
        one.write_text("half")
    write_text(path, "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([living.name, others.name, path.name])


def test_no_room_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FewlabelError, match=r"could not be written \(.*\): make room, or choose another folder"
    ):
        write_text(tmp_path / "file" / "a.txt", "x")
