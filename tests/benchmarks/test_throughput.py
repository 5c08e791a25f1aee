"""The throughput benchmarks print JSON that holds together; no time is asserted."""

from __future__ import annotations

import json

import import_throughput
import machine
import pretrain_throughput
import pytest


def test_import_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    import_throughput.main(["--count", "6", "--size", "32", "--rounds", "2", "--workers", "1"])
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["count"] == 6
    assert len(told["images_per_second_rounds"]) == len(told["plain_images_per_second_rounds"]) == 2
    assert told["ratio"] > 0
    assert told["peak_memory_mib"] > 10
    assert told["waiting_seconds"] >= 0


@pytest.mark.slow
def test_pretrain_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain_throughput.main(["--size", "16", "--batch", "4", "--steps", "1", "--rounds", "2"])
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] == pytest.approx(told["waiting_seconds"] + told["computing_seconds"], abs=0.01)
    assert len(told["images_per_second_rounds"]) == len(told["bare_images_per_second_rounds"]) == 2
    assert told["cores"] >= 1


@pytest.mark.parametrize(("load", "disturbed"), [(0.1, False), (3.0, True)])
def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch, load: float, disturbed: bool) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0))
    facts = machine.machine_facts()
    assert facts["disturbed"] is disturbed
    assert ("Something else was running" in facts.get("note", "")) is disturbed
