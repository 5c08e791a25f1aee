"""Keeps decoders quiet: what they print is collected, and what they raise becomes one sentence."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("pydicom", "tifffile", "nibabel.global", "PIL")
_LOCK = threading.Lock()
_muted = 0
_saved_descriptor = -1


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def collected(messages: list[str]) -> Iterator[None]:
    """Python warnings and log records of the image libraries go into `messages` and not to the terminal.

    Warning filters belong to the whole process: of two threads that read at once, one may see the other's.
    """
    handler = _Collector(messages)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            finally:
                messages.extend(str(warning.message) for warning in caught)
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate, logger.level = propagate, level


@contextmanager
def muted_stderr() -> Iterator[None]:
    """Sends file descriptor 2 to the null device: C decoders write there past Python.

    Nested and parallel uses share one redirection; the last to leave restores it.
    """
    global _muted, _saved_descriptor
    with _LOCK:
        _muted += 1
        if _muted == 1:
            _saved_descriptor = _redirect()
    try:
        yield
    finally:
        with _LOCK:
            _muted -= 1
            if _muted == 0 and _saved_descriptor >= 0:
                os.dup2(_saved_descriptor, 2)
                os.close(_saved_descriptor)


def _redirect() -> int:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, ValueError):
        return -1
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    return saved


def one_line(text: object, limit: int = 300) -> str:
    """Any text as one line without runs of blanks, cut at `limit` characters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def error_line(error: BaseException) -> str:
    """What an exception says, in one line that is never empty."""
    return one_line(error) or type(error).__name__


def first_sentence(error: BaseException) -> str:
    """The first sentence of what an exception says: libraries go on with advice and dumps of bytes."""
    return re.split(r"(?<=\w)[.!:] (?=[A-Z])", error_line(error))[0]


def library_notes(messages: list[str], library: str) -> tuple[str, ...]:
    """Each distinct message once, as a line of provenance."""
    lines = dict.fromkeys(one_line(message) for message in messages)
    return tuple(f"{library} remarks: {line}" for line in lines)
