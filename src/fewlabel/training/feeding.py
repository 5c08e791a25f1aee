"""Batches for training, and how they are made ahead of it by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

from fewlabel.processes import rank, world_size
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.types import Batch, Schedule, Tokens
from fewlabel.views import ViewSettings, draw_view

T = TypeVar("T")
AHEAD = 2
"""How many items lie ready: enough to hide an uneven disk, few enough to cost no memory."""


@dataclass(frozen=True)
class Piece:
    """Images `rows` (first, last) of the batch of step `step`, at `size_px`; indices as `TrainingSet` gives them."""

    step: int
    rows: tuple[int, int]
    indices: np.ndarray
    size_px: int


def own_rows(batch_size: int) -> tuple[int, int]:
    """The rows (first, last) of a batch that this process trains on; equal numbers, a remainder is dropped."""
    share = batch_size // world_size()
    return rank() * share, (rank() + 1) * share


def pieces_of(step: int, data: TrainingSet, schedule: Schedule, size_px: int) -> list[Piece]:
    """This process's part of one step's batch, in micro-batches where the schedule asks for them."""
    indices = data.batch_indices(step, schedule.batch_size, schedule.seed)
    first, last = own_rows(len(indices))
    length = schedule.micro_batch or last - first
    return [
        Piece(step, (start, min(start + length, last)), indices, size_px)
        for start in range(first, last, length)
    ]


def views_of(objective: Any, views: ViewSettings) -> tuple[ViewSettings, ...]:
    """The distribution of each view that the objective looks at: `views` for all, unless it says otherwise."""
    if hasattr(objective, "views_of"):
        return tuple(objective.views_of(views))
    return (views,) * objective.view_count


def batches(
    pieces: Iterable[Piece],
    data: TrainingSet,
    views: Sequence[ViewSettings],
    schedule: Schedule,
    *,
    device: torch.device,
    channels_last: bool,
) -> Iterator[Batch]:
    """The images of each piece, gathered from the memory-mapped store, with views drawn as whole tensors; their texts.

    views: the distribution of each view.
    What a piece holds is a function of its step and rows alone.
    """
    for piece in pieces:
        first, last = piece.rows
        indices = piece.indices[first:last]
        generator = torch.Generator().manual_seed(mix_seed("views", schedule.seed, piece.step))
        columns = [data.images(column).to(device, non_blocking=True) for column in indices.T[: len(views)]]
        within = (first, len(piece.indices))
        drawn = tuple(
            draw_view(
                columns[min(number, len(columns) - 1)], view.at(piece.size_px), generator, within=within
            )
            for number, view in enumerate(views)
        )
        if channels_last and drawn and drawn[0].dim() == 4:
            drawn = tuple(view.contiguous(memory_format=torch.channels_last) for view in drawn)
        labels, patients = (
            None if given is None else torch.from_numpy(given[indices[:, 0]]).to(device)
            for given in (data.labels, data.patients)
        )
        text = _texts(piece, data, schedule.seed, device)
        yield Batch(views=drawn, labels=labels, text=text, patients=patients)


def _texts(piece: Piece, data: TrainingSet, seed: int, device: torch.device) -> Tokens | None:
    """One sentence of each image that is the first view; drawn for the whole batch, so that pieces of it agree."""
    numbers = data.text_numbers(piece.indices[:, 0], piece.step, seed)
    if data.texts is None or numbers is None:
        return None
    tokens = data.texts.padded(numbers[slice(*piece.rows)])
    return Tokens(tokens.ids.to(device), tokens.mask.to(device))


class Ahead(Generic[T]):
    """Runs an iterator ahead of whoever takes its items, in a thread on one core. Use it in a `with` block.

    Leaving the block ends the thread. Whatever goes wrong in the thread is raised by `next`.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self.items = items
        self.ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=AHEAD)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._work, name="fewlabel-ahead", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        while self.thread.is_alive():
            with suppress(queue.Empty):  # the thread may wait for room
                self.ready.get(timeout=0.05)
        self.thread.join()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            raise StopIteration
        return found[0]

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread: the others compute meanwhile
        try:
            for item in self.items:
                if self.stopped.is_set():
                    return
                self.ready.put((item,))
            self.ready.put(None)
        except BaseException as error:  # handed to whoever takes the items, and raised there
            self.ready.put(error)
