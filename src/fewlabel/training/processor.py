"""Whether this process survives a product in bfloat16 on the CPU: found by trying, in a child.

On some virtual machines that announce AMX, what oneDNN makes of it (3.12, in torch 2.13) is an illegal instruction,
which ends the process; its AVX-512 kernels work there.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import resource
import signal
import warnings

import torch

LIMIT, WITHOUT_AMX = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"
TRIAL_SECONDS = 10


@functools.cache
def bf16_survives() -> bool:
    """Where a product with AMX fails, oneDNN is told to leave AMX out, in this process and in those that it starts.

    oneDNN heeds that only before its first use in a process: after it, False is the answer.
    """
    if not torch.cpu._is_amx_tile_supported() or _trial():
        return True
    if LIMIT in os.environ:
        return False
    os.environ[LIMIT] = WITHOUT_AMX
    if _trial():
        return True
    del os.environ[LIMIT]
    return False


def _trial() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside threads: the child uses none of them
        child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TRIAL_SECONDS)
            torch.set_num_threads(1)
            square = torch.zeros(64, 64, dtype=torch.bfloat16)
            square @ square
        finally:
            os._exit(0)
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])
