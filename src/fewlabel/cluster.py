"""Work on the machines of a Ray cluster: independent pieces as tasks, and training by several processes.

All machines must see the same files under the same paths (a shared file system), and have fewlabel installed with the
extra `cluster`. Without an address nothing of this is imported.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fewlabel.types import JSON, FewlabelError

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3
KNOCK_SECONDS = 10


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise FewlabelError('Ray is not installed: run pip install "fewlabel[cluster]".') from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at `address` ("auto", "host:port", or "local" for one on this machine).

    A connection that is there already is used and left open. Raises FewlabelError if the cluster does not answer.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _no_answer(address, reason) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise FewlabelError at once if nothing listens at "host:port"; Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_answer(address, str(error)) from error


def _no_answer(address: str, reason: str) -> FewlabelError:
    return FewlabelError(
        f"No Ray cluster answers at {address!r} ({reason}): start one with `ray start --head`, or give its address."
    )


def map_on_cluster(
    address: str, function: Callable[..., R], items: Sequence[T], *shared: Any, cpus: int = 1
) -> Iterator[tuple[int, R]]:
    """(place in `items`, function(item, *shared)) for every item, in the order in which they are done.

    shared: sent once to each machine. A piece whose machine dies is done again elsewhere, up to 3 times.
    Raises FewlabelError where `function` does, or when a piece could not be done at all.
    """
    with connected(address) as ray:
        constants = [ray.put(one) for one in shared]
        remote = ray.remote(num_cpus=cpus, max_retries=RETRIES)(function)
        places = {remote.remote(item, *constants): place for place, item in enumerate(items)}
        while places:
            done, _ = ray.wait(list(places), num_returns=1)
            yield places.pop(done[0]), _result(ray, done[0])


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except (
        ray.exceptions.RayTaskError
    ) as error:  # also where it is a FewlabelError: Ray's text is a traceback
        raise FewlabelError(str(error.cause).strip().splitlines()[-1]) from error
    except ray.exceptions.RayError as error:
        raise FewlabelError(
            f"A piece of work was lost with its machine {RETRIES + 1} times ({type(error).__name__}): look at the "
            "cluster's machines and run the same command again, it goes on from what is done."
        ) from error


def train_on_cluster(
    address: str, function: Callable[[JSON], None], settings: JSON, *, processes: int, folder: Path
) -> None:
    """Run function(settings) in `processes` processes that form one torch.distributed group (Ray Train).

    function: must go on from its own checkpoint when it is called again: after the death of a process or a machine all
    are started anew, up to 3 times. folder: on the shared file system, for Ray's own notes.
    Raises FewlabelError where `function` does, or when the processes died too often.
    """
    with connected(address) as ray:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        on_gpu = ray.cluster_resources().get("GPU", 0) >= processes
        if not on_gpu and ray.cluster_resources().get("CPU", 0) < processes:
            raise FewlabelError(
                f"{processes} processes were asked for, and the cluster at {address!r} has "
                f"{int(ray.cluster_resources().get('CPU', 0))} cores: ask for fewer, or add machines."
            )
        trainer = TorchTrainer(
            function,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=on_gpu),
            run_config=RunConfig(
                name="ray",
                storage_path=str(folder.resolve()),
                failure_config=FailureConfig(max_failures=RETRIES),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise FewlabelError(_last_sentence(error)) from error


def _last_sentence(error: BaseException) -> str:
    """The sentence of the FewlabelError that a process ended with, or what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    mark = f"{FewlabelError.__name__}: "
    for line in reversed(lines):
        if mark in line:
            return line.partition(mark)[2]
    reason = f"{type(error).__name__}: {lines[-1] if lines else ''}"
    return f"Training on the cluster failed ({reason}): the last checkpoint stays, the same command goes on from it."
