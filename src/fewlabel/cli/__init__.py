"""The command line: parses arguments, calls one function, prints. Nothing else.

program.py     the app and how it ends
options.py     options that several commands share
progress.py    the bar
importing.py, training.py, using.py, searching.py    the commands, which join the app when they are imported
"""

from fewlabel.cli import importing, searching, training, using  # noqa: F401
from fewlabel.cli.program import app, main

__all__ = ["app", "main"]
