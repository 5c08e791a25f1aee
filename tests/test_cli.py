"""The command line: every mistake is one sentence on stderr, a status that is not 0, no traceback, nothing lost."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fewlabel import cli
from fewlabel.types import FewlabelError

COMMANDS = (
    "import",
    "learn",
    "pretrain",
    "cross-validate",
    "evaluate",
    "predict",
    "export",
    "anomalies",
    "score",
    "generate",
    "report",
    "phantoms",
    "index",
    "search",
)
TINY = ["--encoder", "test_resnet", "--size", "16", "--steps", "2", "--batch-size", "8"]


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def fewlabel(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """fewlabel("learn", ...) runs the command line in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fewlabel", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capfd.readouterr()
        return Answer(int(stopped.value.code or 0), shown.out, shown.err)

    return run


def refused(answer: Answer, expected: str, status: int = 1) -> None:
    assert answer.status == status, answer
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("error: ")
    assert re.search(expected, lines[0]), lines[0]
    assert "Traceback" not in answer.out
    assert not re.search(r"\.py\b|File \"|<class", lines[0])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fewlabel.phantoms import write_radiographs

    folder = tmp_path_factory.mktemp("made") / "images"
    write_radiographs(folder, 40, seed=4, size_px=16, dicom_files=1)
    return folder


@pytest.fixture(scope="module")
def chest(images: Path) -> Path:
    from fewlabel.collection import import_images

    to = images.parent / "chest"
    import_images(images, to, labels=images / "labels.csv", patient_column="Patient ID", workers=1)
    return to


WRONG_WORDS: list[tuple[list[str], str]] = [
    (["nothing"], "No such command 'nothing'"),
    (["learn"], "Missing argument 'collection'"),
    (["evaluate", "chest"], "Missing option '--target'"),
    (["pretrain", "chest"], "Missing option '--out'"),
    (["learn", "--nonsense"], "No such option: --nonsense"),
    (["learn", "c", "--target", "x", "--out", "o", "--steps", "many"], "Invalid value for '--steps'"),
    (
        ["learn", "c", "--target", "x", "--out", "o", "--learning-rate", "fast"],
        "Invalid value for '--learning-rate'",
    ),
    (["predict"], "Missing argument 'run'"),
    (["predict", "run"], "Missing argument 'files'"),
    (["pretrain", "--out", "o"], "Missing argument 'collections'"),
    (["import", "images"], "Missing option '--to'"),
    (["evaluate", "chest", "--target", "x", "--out", "o"], "Missing option '--model'"),
    (["export", "run", "--out", "o"], "Missing option '--to'"),
    (["generate", "run"], "Missing option '--out'"),
    (["report"], "Missing argument 'run'"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG_WORDS)
def test_wrong_words(arguments: list[str], expected: str, fewlabel: Command) -> None:
    refused(fewlabel(*arguments), f"{expected}.*See fewlabel --help", status=2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--target", "opacty"], 'did you mean "opacity"'),
        (["--target", "View Position=XP"], "PA"),
        (["--target", "Patient Age>old"], "is no number"),
        (["--target", "file"], "40 different values in 40 images"),
        (["--target", "made"], "at least two classes are needed"),
        (["--target", ""], "No target was named and chest has 5 columns"),
        (["--target", "opacity", "--encoder", "resnet81"], "no encoder called 'resnet81'.*Did you mean"),
        (["--target", "opacity", "--encoder", "inception_v3"], "cannot take images of 64 px"),
        (["--target", "opacity", "--weights", "w.pth"], r"not a \.safetensors file"),
        (["--target", "opacity", "--weights", "w.safetensors"], r"no weights file w\.safetensors"),
        (["--target", "opacity", "--budgets", "10,many"], "whole numbers with commas between"),
        (["--target", "opacity", "--budgets", "10,5000"], r"budget of 5000 labels .* has \d+ usable"),
        (["--target", "opacity", "--budgets", "-3"], "use budgets from 2"),
        (["--target", "opacity", "--seeds", "0"], "seeds is 0"),
        (["--target", "opacity", "--pretraining-seeds", "0"], "pretraining_seeds is 0"),
        (["--target", "opacity", "--validation-labels", "1"], "validation_labels is 1"),
        (["--target", "opacity", "--steps", "0"], "steps is 0"),
        (["--target", "opacity", "--batch-size", "0"], "batch_size is 0"),
        (["--target", "opacity", "--size", "0"], "size_px is 0"),
        (["--target", "opacity", "--seed", "-1"], "seed is -1"),
        (["--target", "opacity", "--learning-rate", "-1"], "learning_rate is -1"),
        (["--target", "opacity", "--temperature", "0"], "temperature is 0"),
        (["--target", "opacity", "--optimizer", "adagrad"], "use adamw, adam, sgd or lars"),
        (["--target", "opacity", "--views", "strong"], "use medical, simclr, convirt or light"),
        (["--target", "opacity", "--loss", "triplet"], "use nt-xent or info-nce"),
        (
            ["--target", "opacity", "--loss", "info-nce", "--objective", "byol"],
            "--loss has no meaning with --objective",
        ),
        (
            ["--target", "opacity", "--head-layers", "3", "--objective", "mae"],
            "--head-layers has no meaning .* moco",
        ),
        (
            ["--target", "opacity", "--pair-share", "0.5"],
            "no meaning with --positives views, only with patient or",
        ),
        (["--target", "opacity", "--positives", "patient", "--pair-share", "2"], "pair_share is 2"),
        (["--target", "opacity", "--student", "resnet10t"], "--student has no meaning with --recipe probe"),
        (["--target", "opacity", "--joint-steps", "4"], "only with semi-supervised or three-stage"),
        (
            ["--target", "opacity", "--recipe", "simclr-v2", "--keep", "small"],
            "use finetune, self-distilled or distil",
        ),
        (
            ["--target", "opacity", "--recipe", "simclr-v2", "--student", "resnet99"],
            "no encoder called 'resnet99'",
        ),
        (["--target", "opacity", "--recipe", "simclr-v2", "--objective", "byol"], "BYOL leaves none"),
        (["--target", "opacity", "--where", "opacity >"], "opacity >"),
        (["--target", "opacity", "--where", "opacity = 7"], "No image fulfils"),
        (["--target", "opacity", "--where", "1; DROP TABLE cases"], "DROP"),
        (["--target", "opacity", "--pretrain-on", "nowhere"], "no collection at nowhere"),
    ],
)
def test_mistakes_in_learning_leave_no_folder(
    options: list[str], expected: str, chest: Path, tmp_path: Path, fewlabel: Command
) -> None:
    refused(fewlabel("learn", chest, *options, "--out", tmp_path / "run"), expected)
    assert not (tmp_path / "run").exists()


def test_after_a_mistake_the_right_command_works_in_the_same_folder(
    chest: Path, tmp_path: Path, fewlabel: Command
) -> None:
    out = tmp_path / "encoder"
    wrong = ["--encoder", "test_resnett", *TINY[2:]]
    refused(fewlabel("pretrain", chest, *wrong, "--out", out), "Did you mean test_resnet")
    done = fewlabel("pretrain", chest, *TINY, "--out", out)
    assert done.status == 0, done.err
    assert all(line.startswith("warning: ") for line in done.err.splitlines())
    assert re.fullmatch(r"2 steps on \d+ images: .*encoder\.safetensors\n", done.out)
    refused(
        fewlabel("pretrain", chest, *TINY, "--temperature", "0.1", "--out", out), "temperature: .*0.2 .*0.1"
    )


def test_inspecting_without_a_model_looks_for_copies(chest: Path, tmp_path: Path, fewlabel: Command) -> None:
    answer = fewlabel("inspect", chest, "--target", "opacity", "--out", tmp_path)
    assert answer.status == 0
    assert "No model was given" in answer.err
    assert (tmp_path / "worth_a_look.csv").exists()
    refused(fewlabel("inspect", chest, "--target", "opacty", "--out", tmp_path), 'did you mean "opacity"')


def test_places_that_are_wrong(chest: Path, images: Path, tmp_path: Path, fewlabel: Command) -> None:
    learn = ["--target", "opacity", "--out"]
    refused(fewlabel("learn", tmp_path / "nowhere", *learn, tmp_path / "run"), "no collection at .*nowhere")
    refused(
        fewlabel("learn", images, *learn, tmp_path / "run"), "is no collection: make one with fewlabel import"
    )
    refused(fewlabel("learn", chest, *learn, images), "is not empty and holds no run")
    refused(fewlabel("learn", chest, *learn, images / "labels.csv"), "is not empty and holds no run")
    refused(fewlabel("learn", chest, *learn, images / "labels.csv" / "run"), "Not a directory|not a folder")
    model = ["--target", "opacity", "--out", tmp_path / "run", "--model"]
    refused(fewlabel("evaluate", chest, *model, tmp_path / "nowhere"), "is no finished run")
    refused(fewlabel("evaluate", chest, *model, chest), "is no finished run")
    refused(fewlabel("predict", tmp_path / "nowhere", images), "is no finished run")
    export = ["export", tmp_path / "nowhere", "--out", tmp_path / "out", "--to"]
    refused(fewlabel(*export, "torchscript"), "is no finished run")
    refused(fewlabel(*export, "tflite"), "'tflite' is no format: export to onnx, torchscript or monai-bundle")
    refused(fewlabel("generate", tmp_path / "nowhere", "--out", tmp_path / "out"), r"run\.json is missing")
    refused(fewlabel("report", tmp_path / "nowhere"), r"results\.json is missing")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_importing(images: Path, tmp_path: Path, fewlabel: Command) -> None:
    to = ["--to", tmp_path / "chest", "--workers", "1"]
    refused(fewlabel("import", tmp_path / "nowhere", *to), "there is nothing at")
    (tmp_path / "empty").mkdir()
    refused(fewlabel("import", tmp_path / "empty", *to), "empty")
    refused(fewlabel("import", images, *to, "--unlisted", "positive"), 'use negative or "not mentioned"')
    refused(fewlabel("import", images, *to, "--labels", tmp_path / "none.csv"), "none.csv cannot be read")
    labels = ["--labels", images / "labels.csv"]
    refused(
        fewlabel("import", images, *to, *labels, "--patient-column", "Patient"), 'did you mean "Patient ID"'
    )
    (tmp_path / "other.csv").write_text("file,opacity\nx.png,1\ny.png,0\nz.png,1\n")
    refused(fewlabel("import", images, *to, "--labels", tmp_path / "other.csv"), "x.png")
    assert not (tmp_path / "chest" / "cases.parquet").exists()


def test_mistakes_in_making_images(tmp_path: Path, fewlabel: Command) -> None:
    refused(fewlabel("phantoms", tmp_path / "a", "--count", "0"), "expected at least 1 image")
    refused(fewlabel("phantoms", tmp_path / "a", "--size", "0"), "expected at least 1 image of 16 px")
    refused(fewlabel("phantoms", tmp_path / "a", "--kind", "faces"), "use radiographs or fundi")
    refused(
        fewlabel("phantoms", tmp_path / "a", "--kind", "fundi", "--count", "0"), "0 patients and images of 64"
    )
    assert not (tmp_path / "a").exists()
    assert (
        fewlabel("phantoms", tmp_path / "eyes", "--kind", "fundi", "--count", "2", "--size", "32").status == 0
    )
    assert len(list((tmp_path / "eyes" / "images").iterdir())) == 4
    (tmp_path / "file").write_text("precious")
    refused(fewlabel("phantoms", tmp_path / "file", "--count", "2"), "Not a directory|not a folder")
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "a").exists()


def test_a_full_disk(chest: Path, tmp_path: Path, fewlabel: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabel.training import checkpoint

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = ["pretrain", chest, *TINY, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        refused(fewlabel(*command), "No space left on device.*free some space")
    assert fewlabel(*command).status == 0


def test_a_broken_checkpoint(chest: Path, tmp_path: Path, fewlabel: Command) -> None:
    command = ["pretrain", chest, *TINY, "--out", tmp_path / "run"]
    assert fewlabel(*command).status == 0
    (tmp_path / "run" / "encoder.safetensors").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x00" * 30)
    refused(fewlabel(*command), "No checkpoint .* can be read.*Remove it")


@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (FewlabelError("a reason\nof two lines"), "^error: a reason of two lines$", 1),
        (MemoryError(), "not enough memory: use a smaller --batch-size", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device.*the disk has space", 1),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "Permission denied", 1),
    ],
)
def test_troubles_of_the_machine(
    error: Exception,
    expected: str,
    status: int,
    chest: Path,
    tmp_path: Path,
    fewlabel: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(_failing(error, chest, tmp_path, fewlabel, monkeypatch), expected, status)


def _failing(
    error: BaseException, chest: Path, tmp_path: Path, fewlabel: Command, monkeypatch: pytest.MonkeyPatch
) -> Answer:
    """The answer where learning ends in `error`."""

    def fail(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr("fewlabel.pipeline.learn", fail)
    return fewlabel("learn", chest, "--target", "opacity", "--out", tmp_path / "run")


def test_a_fault_of_the_program_is_kept_for_its_makers(
    chest: Path, tmp_path: Path, fewlabel: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    answer = _failing(KeyError("first\nsecond"), chest, tmp_path, fewlabel, monkeypatch)
    assert answer.status == 70
    [line] = answer.err.splitlines()
    assert "something unexpected happened (KeyError" in line
    [log] = tmp_path.glob("fewlabel-*.log")
    assert str(log) in line
    assert "Traceback" in log.read_text()


def test_ctrl_c(chest: Path, tmp_path: Path, fewlabel: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _failing(KeyboardInterrupt(), chest, tmp_path, fewlabel, monkeypatch)
    assert answer.status == 130
    assert answer.err == "stopped; the same command continues where it was.\n"


def test_options_that_are_not_given_are_the_defaults_of_the_settings() -> None:
    from fewlabel.cli.options import evaluation_options, pretraining_options
    from fewlabel.pipeline import EvaluateSettings, PretrainSettings

    assert pretraining_options() == PretrainSettings()
    assert evaluation_options() == EvaluateSettings("")


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from fewlabel.cli import main; main()", *map(str, arguments)]


@pytest.mark.slow
def test_ctrl_c_while_training_and_the_same_command_again(chest: Path, tmp_path: Path) -> None:
    tiny = [*TINY[:4], "--steps", "100000", "--batch-size", "8"]
    command = program("pretrain", chest, *tiny, "--out", tmp_path / "run")
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control has its background commands ignore Ctrl-C, and they hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    limit = time.monotonic() + 120
    try:
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    wanted = (130, "", "stopped; the same command continues where it was.\n")
    assert (running.returncode, out, err) == wanted


@pytest.mark.slow
def test_as_a_program(tmp_path: Path) -> None:
    def ran(*arguments: object) -> Answer:
        done = subprocess.run(program(*arguments), capture_output=True, text=True, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    plain, asked = ran(), ran("--help")
    assert plain == asked
    assert (asked.status, asked.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", asked.out, re.MULTILINE)
    refused(
        ran("learn", tmp_path / "nowhere", "--target", "x", "--out", tmp_path / "run"), "no collection at"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_explained(command: str, fewlabel: Command) -> None:
    answer = fewlabel(command, "--help")
    assert (answer.status, answer.err) == (0, "")
    options = re.findall(r"^  (--\S+)(.*(?:\n {8,}.*)*)", answer.out, re.MULTILINE)
    assert [name for name, text in options if not re.search(r"[a-z]{3,}.*\.", text)] == []
