"""A bar that shows how far a command is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewlabel.types import ProgressCallback


def is_terminal() -> bool:
    """Whether a person looks on."""
    return sys.stderr.isatty()


class Bar:
    """A progress bar on a terminal; nothing where output goes to a file. Started by its first call."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> ProgressCallback:
        return self.show

    def show(self, done: int, total: int, what: str) -> None:
        if not is_terminal():
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                "{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[what]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=total, what=what)
        self.bar.update(self.task, completed=done, total=total, what=what)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
