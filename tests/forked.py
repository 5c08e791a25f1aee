"""Scripts in processes of their own that need not load torch first: they come from a server that has it loaded."""

from __future__ import annotations

import multiprocessing.context
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LOADED = [
    "fewlabel.objectives",
    "fewlabel.training",
    "fewlabel.pipeline",
    "lightning_fabric",
    "sklearn.linear_model",
]
LIMIT_S = 600


def fork_server() -> multiprocessing.context.ForkServerContext:
    """The one server of this process: whoever asks first decides what it loads, so all must ask here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def run_forked(
    script: Path,
    arguments: Sequence[object] = (),
    *,
    environments: Sequence[Mapping[str, str]] = ({},),
    path: Sequence[Path | str] = (),
    folder: Path | None = None,
) -> str:
    """What a script prints in as many processes at once as there are environments; all must end well.

    path: more folders to import from. folder: where they work.
    """
    context = fork_server()
    printed = [script.with_suffix(f".{number}.txt") for number in range(len(environments))]
    given = [str(script), *map(str, arguments)]
    running = [
        context.Process(target=_run, args=(given, dict(one), [*map(str, path)], folder, to))
        for one, to in zip(environments, printed, strict=True)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(LIMIT_S)
    said = "".join(to.read_text() for to in printed)
    for process in running:
        process.kill()
        assert process.exitcode == 0, said
    return said


def _run(
    arguments: list[str], environment: dict[str, str], path: list[str], folder: Path | None, to: Path
) -> None:
    with to.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.argv, sys.path = arguments, [*path, *sys.path]
    os.chdir(folder or Path.cwd())
    import torch

    torch.set_num_threads(1)
    runpy.run_path(arguments[0], run_name="__main__")


def two_ranks() -> list[dict[str, str]]:
    """What torchrun sets for two processes on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked",
    }  # fmt: skip
    return [{**both, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
