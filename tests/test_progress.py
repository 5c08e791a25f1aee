"""The bar of a command: silent where nobody looks on, and gone before another bar begins."""

from __future__ import annotations

import pytest

from fewlabel.cli import progress
from fewlabel.cli.progress import Bar


def test_a_total_of_0_ends_the_bar_and_prints_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    with Bar("evaluating") as show:
        show(1, 2, "one")
        show(0, 0, "fold 2 of 5: pretraining")
        show(1, 2, "two")
    said = capsys.readouterr().err
    assert "\nfold 2 of 5: pretraining\n" in said
    assert said.index("one") < said.index("fold 2 of 5") < said.index("two")


def test_nothing_is_written_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("evaluating") as show:
        show(1, 2, "one")
        show(0, 0, "a line")
    assert capsys.readouterr().err == ""
