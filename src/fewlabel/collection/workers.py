"""Reading chunks in several processes that survive each other's death.

Each worker is a fresh interpreter that runs `main` below, takes one chunk a line from its standard input and
says on its standard output which source it is at. Python's own process pools were not taken: they start the
user's script anew in each worker, wait for ever for some deaths, and cannot say which file killed a worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from fewlabel.cluster import map_on_cluster
from fewlabel.collection.chunks import Chunk, read_chunk
from fewlabel.collection.store import is_disk_full
from fewlabel.types import FewlabelError

_COMMAND = "from fewlabel.collection.workers import main; main()"
_PARENT_FOLDER = str(Path(__file__).resolve().parents[2])
OnSource = Callable[[], None]


def read_chunks(chunks: Sequence[Chunk], *, workers: int, on_source: OnSource) -> None:
    """Read all chunks, each into its staging file; `on_source` is called once for each source begun.

    workers=1 reads in this process, which a decoder that crashes takes with it.
    A source on which a worker dies twice is left out as crashed. Raises FewlabelError where the disk is full
    or no worker can be started; what was done until then stays.
    """
    if workers == 1 or not chunks:
        for chunk in chunks:
            _here(chunk, on_source)
        return
    crew = _Crew(on_source)
    with ThreadPoolExecutor(min(workers, len(chunks))) as threads:
        futures = [threads.submit(crew.read, chunk) for chunk in chunks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            crew.stopped.set()
            crew.end(kill=any(not f.done() for f in futures))
            threads.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()


def read_chunks_on_cluster(chunks: Sequence[Chunk], address: str, *, on_source: OnSource) -> None:
    """As `read_chunks`, each chunk as a task of the Ray cluster at `address`, which writes into the same folder."""
    for place, _ in map_on_cluster(address, _read_one, chunks):
        for _ in chunks[place].sources:
            on_source()


def _read_one(chunk: Chunk) -> None:
    """In a worker process of its own, so that a decoder that crashes does not take the cluster's process with it."""
    read_chunks([chunk], workers=2, on_source=lambda: None)


def disk_full(root: Path) -> FewlabelError:
    """The one sentence on a full disk."""
    return FewlabelError(
        f"the disk that holds {root} is full: free some space and run the same import again, "
        "it goes on from what was read so far"
    )


def _here(chunk: Chunk, on_source: OnSource) -> None:
    try:
        read_chunk(chunk, progress=lambda *_: on_source())
    except OSError as error:
        raise _as_sentence(error, chunk.root) from None


def _as_sentence(error: OSError, root: Path) -> FewlabelError:
    return disk_full(root) if is_disk_full(error) else FewlabelError(f"{root} cannot be written: {error}")


class _Crew:
    """Workers that wait for a chunk, and the threads that lend them."""

    def __init__(self, on_source: OnSource) -> None:
        self.stopped = threading.Event()
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: list[_Worker] = []
        self._on_source = on_source
        self._lock = threading.Lock()

    def read(self, chunk: Chunk) -> None:
        deaths: dict[int, int] = {}
        while not self.stopped.is_set():
            worker = self._take()
            reached = worker.read(chunk, self._begun)
            if reached is None:
                self._idle.put(worker)
                return
            deaths[reached] = deaths.get(reached, 0) + 1
            if self.stopped.is_set():
                return
            if reached < 0 and deaths[reached] > 1:
                raise FewlabelError(
                    f"a worker process cannot be started ({worker.last_words()}): try workers=1"
                )
            if reached >= 0 and deaths[reached] > 1:
                chunk = replace(chunk, crashed=(*chunk.crashed, reached))

    def end(self, *, kill: bool) -> None:
        with self._lock:
            for worker in self._all:
                worker.end(kill=kill)

    def _take(self) -> _Worker:
        with suppress(Empty):
            while True:
                worker = self._idle.get_nowait()
                if worker.alive:
                    return worker
        worker = _Worker()
        with self._lock:
            self._all.append(worker)
        return worker

    def _begun(self) -> None:
        with self._lock:
            self._on_source()


class _Worker:
    def __init__(self) -> None:
        paths = [_PARENT_FOLDER, *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        self._errors: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def read(self, chunk: Chunk, begun: OnSource) -> int | None:
        """None when the chunk is done; where the worker died, the position that it was at (-1: none yet)."""
        reached = -1
        try:
            _say(self._process.stdin, chunk.to_json())
        except OSError:
            return reached
        for line in self._process.stdout or ():
            said = json.loads(line)
            if "at" in said:
                reached = said["at"]
                begun()
            elif said.get("full"):
                raise disk_full(chunk.root)
            elif "error" in said:
                raise FewlabelError(said["error"])
            else:
                return None
        self._process.wait()
        return reached

    def last_words(self) -> str:
        return self._errors[-1].strip() if self._errors else f"exit status {self._process.poll()}"

    def end(self, *, kill: bool) -> None:
        if kill:
            self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        """Keeps the last lines of what a decoder prints, so that it can neither block nor fill memory."""
        for line in self._process.stderr or ():
            self._errors[:-4] = []
            self._errors.append(line)


def _say(stream: IO[str] | None, line: str) -> None:
    if stream is not None:
        stream.write(line + "\n")
        stream.flush()


def main() -> None:
    """A worker's life: chunks in, progress out, until standard input or the import that started it ends."""
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what decoders print must not mix with the answers

    def at(position: int, *_: object) -> None:
        if os.getppid() != parent:
            sys.exit("the import that this worker belongs to has ended")
        _say(answers, json.dumps({"at": position}))

    for line in sys.stdin:
        chunk = Chunk.from_json(line)
        try:
            read_chunk(chunk, progress=at)
            _say(answers, json.dumps({"done": chunk.part}))
        except OSError as error:
            sentence = str(_as_sentence(error, chunk.root))
            _say(answers, json.dumps({"full": is_disk_full(error), "error": sentence}))
