"""Products in bfloat16 that end the process: found in a child, and gone round."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from fewlabel.training import Compute, processor
from fewlabel.training.compute import check_compute, has_bf16
from fewlabel.training.processor import LIMIT, WITHOUT_AMX, bf16_survives
from fewlabel.types import FewlabelError


@pytest.fixture(autouse=True)
def with_amx(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.delenv(LIMIT, raising=False)
    bf16_survives.cache_clear()
    yield
    bf16_survives.cache_clear()


def dies_of_amx(monkeypatch: pytest.MonkeyPatch, *, heeds_the_limit: bool) -> None:
    """What a trial's child calls first ends it, as oneDNN's AMX kernels do."""

    really = torch.set_num_threads

    def set_num_threads(threads: int) -> None:
        if not (heeds_the_limit and os.environ.get(LIMIT) == WITHOUT_AMX):
            os.kill(os.getpid(), signal.SIGILL)
        really(threads)  # a child with the threads of before the fork would wait for them for ever

    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)


def test_a_sound_processor_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_trial", lambda: True)
    assert bf16_survives()
    assert LIMIT not in os.environ


def test_amx_is_left_out_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    dies_of_amx(monkeypatch, heeds_the_limit=True)
    assert bf16_survives()
    assert os.environ.pop(LIMIT) == WITHOUT_AMX
    check_compute(Compute("bf16"), torch.device("cpu"))


def test_without_bf16_where_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    dies_of_amx(monkeypatch, heeds_the_limit=False)
    assert not has_bf16(torch.device("cpu"))
    assert LIMIT not in os.environ
    with pytest.raises(FewlabelError, match=f"{LIMIT}={WITHOUT_AMX}"):
        check_compute(Compute("bf16"), torch.device("cpu"))
    check_compute(Compute("32"), torch.device("cpu"))


def test_a_limit_that_was_set_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "AVX512_CORE_AMX")
    dies_of_amx(monkeypatch, heeds_the_limit=True)
    assert not bf16_survives()
    assert os.environ[LIMIT] == "AVX512_CORE_AMX"


def test_a_child_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "TRIAL_SECONDS", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: signal.pause())
    assert not processor._trial()
