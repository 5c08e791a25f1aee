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
    """A progress bar on a terminal; nothing where output goes to a file. Started by its first call.

    A call with a total of 0 ends it and prints a line, since what follows has a bar of its own; the next call starts
    another one.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> ProgressCallback:
        return self.show

    def show(self, done: int, total: int, what: str) -> None:
        if not is_terminal():
            return
        if total == 0:
            self.stop()
            print(what, file=sys.stderr)
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

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __exit__(self, *error: object) -> None:
        self.stop()
