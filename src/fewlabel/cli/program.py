"""The program: its app, which the commands join, and how it ends, whatever happens."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

INTERRUPTED = 130
"""Exit status after Ctrl-C, 128 + SIGINT."""

app = typer.Typer(
    help="Many medical images, few labels: from a folder of images to a report that says how many labels were saved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line. Every mistake is one sentence on stderr and a non-zero exit; no traceback."""
    from fewlabel.types import FewlabelError

    interrupted = "stopped; the same command continues where it was."
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except FewlabelError as error:
        _stop(f"error: {error}", 1)
    except (KeyboardInterrupt, typer.Abort):
        _stop(interrupted, INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument
            _stop(f"error: {error.format_message().rstrip('.')}. See fewlabel --help.", 2)
        _unexpected(error)
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        _stop(interrupted, INTERRUPTED)
    sys.exit(code or 0)


def _stop(text: str, code: int) -> NoReturn:
    print(" ".join(text.split()), file=sys.stderr)
    sys.exit(code)


def _unexpected(error: Exception) -> NoReturn:
    """A fault of the program: one sentence for the user, the details in a file for the maintainers."""
    import tempfile
    import traceback

    if isinstance(error, MemoryError):
        _stop("error: there is not enough memory: use a smaller --batch-size or --size.", 1)
    if isinstance(error, OSError):
        _stop(f"error: {error}: check that the disk has space and that the folder may be written.", 1)
    with tempfile.NamedTemporaryFile("w", prefix="fewlabel-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    _stop(
        f"error: something unexpected happened ({type(error).__name__}: {error}); finished work is kept. "
        f"Please report it with {file.name}.",
        70,
    )
