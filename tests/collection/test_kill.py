"""An import that is killed at any moment is completed by the next one, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewlabel.collection import Collection, import_images
from fewlabel.types import FewlabelError

NAMES = [f"{n:02d}.png" for n in range(10)]
PATCH = """
import os, time
import fewlabel.images as images
_read = images.read
def read(source):
    time.sleep(float(os.environ.get("READ_S", "0")))
    if "crash" in source.name:
        os.kill(os.getpid(), 11)
    return _read(source)
images.read = read
"""


@pytest.fixture
def patched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every process started from here on, reading takes READ_S, and a source named "crash" kills it."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH)
    monkeypatch.syspath_prepend(str(folder))


def killed_at(nth: int, source: Path, to: Path, labels: Path) -> bool:
    """Import in a forked process that kills itself before its nth rename; False if it came to its end."""
    child = os.fork()
    if child == 0:
        renamed, replace = [], os.replace

        def deadly(a, b):
            renamed.append(b)
            if len(renamed) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(a, b)

        os.replace = deadly
        try:
            import_images(source, to, labels=labels, workers=1)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_before_each_of_its_renames(tmp_path: Path, make_images, folder_bytes) -> None:
    source, labels = tmp_path / "in", tmp_path / "l.csv"
    make_images(source, NAMES)
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    labels.write_text("f,ill\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(NAMES)))
    import_images(source, tmp_path / "whole", labels=labels, workers=1)
    expected = folder_bytes(tmp_path / "whole")
    nth = 1
    while killed_at(nth, source, tmp_path / f"c{nth}", labels):
        to = tmp_path / f"c{nth}"
        with pytest.raises(FewlabelError, match=r"was not finished: .*import again"):
            Collection.open(to)
        import_images(source, to, labels=labels, workers=1)
        assert folder_bytes(to) == expected, f"killed before rename {nth}"
        nth += 1
    assert nth == 13  # three chunks of three renames, then quarantine.csv, collection.json and cases.parquet


def test_a_source_that_changes_between_kill_and_next_run(tmp_path: Path, make_images, folder_bytes) -> None:
    source, labels = tmp_path / "in", tmp_path / "l.csv"
    make_images(source, NAMES)
    labels.write_text("f,ill\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(NAMES)))
    assert killed_at(7, source, tmp_path / "c", labels)
    make_images(source, ["00-first.png"], seed=7)
    make_images(source, ["05.png"], seed=8)
    for to in ("c", "whole"):
        import_images(source, tmp_path / to, labels=labels, workers=1)
    assert folder_bytes(tmp_path / "c") == folder_bytes(tmp_path / "whole")


def test_killed_while_appending_leaves_the_old_collection_readable(
    tmp_path: Path, make_images, folder_bytes
) -> None:
    source, labels = tmp_path / "in", tmp_path / "l.csv"
    make_images(source, NAMES)
    labels.write_text("f,ill\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(NAMES)))
    for to in ("whole", "c1", "c3", "c5", "c6"):
        import_images(source, tmp_path / to, labels=labels, workers=1)
    old = Collection.open(tmp_path / "whole").fingerprint
    make_images(source, ["new1.png", "new2.png"], seed=5)
    import_images(source, tmp_path / "whole", labels=labels, workers=1)
    for nth in (1, 3, 5, 6):
        assert killed_at(nth, source, tmp_path / f"c{nth}", labels)
        collection = Collection.open(tmp_path / f"c{nth}")
        assert (collection.fingerprint, len(collection)) == (old, 10)
        assert collection.square(8).shape == (10, 1, 8, 8)
        import_images(source, tmp_path / f"c{nth}", labels=labels, workers=1)
        found = folder_bytes(tmp_path / f"c{nth}")
        assert {k: v for k, v in found.items() if "cache" not in k} == folder_bytes(tmp_path / "whole")


@pytest.mark.parametrize("after_s", [0.4, 0.9])
def test_killed_with_its_workers_in_the_middle(
    tmp_path: Path, make_images, folder_bytes, patched: None, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    source = tmp_path / "in"
    make_images(source, [f"{n:02d}.png" for n in range(24)])
    monkeypatch.setenv("READ_S", "0.1")
    call = f"import_images({str(source)!r}, {str(tmp_path / 'c')!r}, workers=2)"
    code = f"from fewlabel.collection import import_images; {call}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    while not list((tmp_path / "c" / "pixels").glob(".*")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(after_s)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    monkeypatch.setenv("READ_S", "0")
    import_images(source, tmp_path / "c", workers=2)
    import_images(source, tmp_path / "whole", workers=1)
    time.sleep(0.3)  # workers of the killed import notice that they are orphans
    assert folder_bytes(tmp_path / "c") == folder_bytes(tmp_path / "whole")


def test_a_decoder_that_crashes_costs_only_its_file(tmp_path: Path, make_images, patched: None) -> None:
    make_images(tmp_path / "in", [*NAMES, "05crash.png"])
    summary = import_images(tmp_path / "in", tmp_path / "c", workers=2)
    assert (summary.images, summary.quarantined) == (10, 1)
    assert Collection.open(tmp_path / "c").quarantine == (
        ("05crash.png", "the decoder crashed on this file"),
    )


def test_workers_and_one_process_make_the_same_bytes(tmp_path: Path, make_images, folder_bytes) -> None:
    make_images(tmp_path / "in", NAMES)
    for workers in (1, 3):
        import_images(tmp_path / "in", tmp_path / f"c{workers}", workers=workers)
    assert folder_bytes(tmp_path / "c1") == folder_bytes(tmp_path / "c3")


def test_a_worker_that_cannot_start_is_one_sentence(
    tmp_path: Path, make_images, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "in", NAMES)
    monkeypatch.setattr("fewlabel.collection.workers._COMMAND", "raise SystemExit('no luck')")
    with pytest.raises(FewlabelError, match=r"worker process cannot be started \(no luck\)"):
        import_images(tmp_path / "in", tmp_path / "c", workers=2)
