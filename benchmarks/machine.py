"""What a timing needs beside the times: the machine, what else was running on it, and the peak of memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import threading
from types import TracebackType

import psutil

from fewlabel.types import JSON

BUSY_LOAD = 0.5
LIBRARIES = ("fewlabel", "torch", "timm", "numpy", "pillow", "pydicom", "pyarrow")


def machine_facts() -> JSON:
    """Cores, threads, versions, the GPU if there is one, and whether the machine was idle before the start.

    torch is asked only where it is loaded already: loading it here would count as memory of what is measured.
    """
    load, torch = os.getloadavg()[0], sys.modules.get("torch")
    facts: JSON = {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads() if torch else None,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
        "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "load_average_before": round(load, 2),
        "disturbed": load > BUSY_LOAD,
    }
    if facts["disturbed"]:
        facts["note"] = (
            f"Something else was running (load average {load:.1f} before the start): the times are too long. "
            "The ratio, measured in turns, suffers less. Measure again on an idle machine."
        )
    return facts


class PeakMemory:
    """The highest sum of resident memory of this process and its children; GPU memory too.

    Sampled on entering, every 5 ms, and on leaving. The kernel's own high-water mark is not used: some sandboxes
    report 0. Pages that processes share are counted once for each of them, so the sum is an upper bound.

    private: leave out pages that are shared, such as those of mapped files, which the kernel drops when it likes.
    """

    def __init__(self, *, private: bool = False) -> None:
        self.start_mib = self.peak_mib = 0.0
        self._private = private
        self._me = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self.start_mib = self.peak_mib = self._resident_mib()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _resident_mib(self) -> float:
        total = 0
        for process in [self._me, *self._me.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                total += memory.rss - (memory.shared if self._private else 0)
        return total / 2**20

    def _watch(self) -> None:
        ends = False
        while not ends:
            ends = self._stop.wait(0.005)
            self.peak_mib = max(self.peak_mib, self._resident_mib())

    def facts(self) -> JSON:
        """peak_memory_mib, and peak_gpu_memory_mib where there is a GPU."""
        found: JSON = {"peak_memory_mib": round(self.peak_mib)}
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_available():
            found["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        return found
