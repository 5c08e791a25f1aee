"""Exported classifiers: the same answers as `predict`, a card that says what the run knows, one sentence a mistake."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_runs import QUICK, SIZE_PX, TINY, two_steps

from fewlabel.adaptation.features import extract_features
from fewlabel.cli import main
from fewlabel.collection import Collection, import_images, square_image
from fewlabel.images import read_file
from fewlabel.pipeline import Exported, Learned, arms, evaluate, export_model, exporting, learn, predict
from fewlabel.pipeline.portable import PortableClassifier
from fewlabel.pipeline.predicting import CLASSIFIER, load_classifier
from fewlabel.training import load_tensors, save_tensors
from fewlabel.types import FewlabelError, Image

TARGETS = {"binary": "opacity", "category": "side", "number": "Patient Age"}
FORMATS = ("onnx", "torchscript", "monai-bundle")
ROUNDED = 0.5e-4
"""`predict` writes probabilities with four decimals."""
Export = Callable[[str, str], Exported]


@pytest.fixture(scope="module")
def runs(run: Learned, chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind of target, all on one encoder."""
    root, found = tmp_path_factory.mktemp("kinds"), {"binary": run.out}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "supervised_schedule", two_steps)
        for kind in ("category", "number"):
            settings = replace(
                QUICK, target=TARGETS[kind], budgets=(10,), seeds=1, resamples=20, supervised=False
            )
            evaluate(chest, TARGETS[kind], run.out, root / kind, evaluation=settings)
            found[kind] = root / kind
    return {kind: sharpened(path, root / f"sharp-{kind}", chest) for kind, path in found.items()}


def sharpened(run: Path, to: Path, chest: Collection) -> Path:
    """A copy whose outputs differ from image to image; those of so short a run are all alike, and equal anything."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("features", "outputs", "pretrain"))
    said, found = json.loads((to / "model" / "model.json").read_text()), load_classifier(to)
    features = extract_features(found.encoder, chest.square(found.store_px), size_px=found.size_px)
    weights = np.random.default_rng(2).normal(size=found.probe.weights.shape)
    logits = found.probe.scaling(features) @ weights
    weights *= 2 / logits.std()
    tensors, _ = load_tensors(to / "model" / CLASSIFIER)
    tensors["weights"] = torch.from_numpy(weights)
    tensors["intercept"] = torch.from_numpy(
        40.0 * (said["kind"] == "number") - logits.mean(axis=0) * 2 / logits.std()
    )
    save_tensors(tensors, to / "model" / CLASSIFIER)
    said["calibration"] = {"slope": 0.7, "offset": -0.3}
    (to / "model" / "model.json").write_text(json.dumps(said))
    return to


@pytest.fixture(scope="module")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    """exported(kind, format), each made once."""
    root, kept = tmp_path_factory.mktemp("exported"), {}

    def export(kind: str, to: str) -> Exported:
        if to == "onnx":
            pytest.importorskip("onnxruntime")
            pytest.importorskip("onnx")
        if (kind, to) not in kept:
            kept[kind, to] = export_model(runs[kind], to, root / kind / to)
        return kept[kind, to]

    return export


def answers(exported: Exported, image: np.ndarray) -> np.ndarray:
    """What a program without Fewlabel gets: image (B, C, H, W) float32 -> (B, K)."""
    if exported.model.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(exported.model), providers=["CPUExecutionProvider"])
        return session.run(["output"], {"image": image})[0]
    with torch.no_grad():
        return torch.jit.load(str(exported.model))(torch.from_numpy(image)).numpy()


def predicted(run: Path, files: list[Path]) -> np.ndarray:
    """(N, K) probabilities, or (N, 1) numbers, from the rows of `predict`."""
    rows = predict(run, files).rows
    columns = [name for name in rows[0] if name.startswith("probability_")]
    if not columns:
        return np.array([[float(row["prediction"])] for row in rows])
    p = np.array([[float(row[name]) for name in columns] for row in rows])
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


@pytest.fixture(scope="module")
def pictures(chest: Collection) -> list[Path]:
    return sorted((chest.path.parent / "images" / "images").glob("*.png"))[:6]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_files_get_the_answers_of_predict(
    kind: str, to: str, exported: Export, runs: dict[str, Path], pictures: list[Path]
) -> None:
    images = np.stack([np.asarray(PIL.Image.open(path), np.float32)[None] / 255 for path in pictures])
    assert images.shape == (len(pictures), 1, SIZE_PX, SIZE_PX)
    found, expected = answers(exported(kind, to), images), predicted(runs[kind], pictures)
    assert found.dtype == np.float32
    assert expected[:, 0].std() > 0.05  # else anything would be equal
    allowed = 1e-4 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed + ROUNDED)


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
@pytest.mark.parametrize("shape", [(50, 37), (20, 90), (11, 11), (SIZE_PX, 5)])
def test_any_size_and_depth(
    to: str, shape: tuple[int, int], exported: Export, runs: dict[str, Path], tmp_path: Path
) -> None:
    """A 16-bit picture, prepared as the card says."""
    values = np.random.default_rng(3).gamma(2.0, 4000.0, shape).clip(0, 65535).astype(np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / "deep.png")
    low, high = np.percentile(values, [0.5, 99.5])
    image = ((values - low) / (high - low)).astype(np.float32)[None, None]
    expected = predicted(runs["binary"], [tmp_path / "deep.png"])
    np.testing.assert_allclose(answers(exported("binary", to), image), expected, rtol=0, atol=1e-4 + ROUNDED)


def test_fitting_agrees_with_the_squares_of_a_collection(run: Learned) -> None:
    portable = PortableClassifier(load_classifier(run.out))
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 130, (60, 2)):
        pixels = rng.integers(0, 65536, (1, height, width), dtype=np.uint16)
        image = Image(pixels, display_range=(0.0, 65535.0))
        square = square_image(image, SIZE_PX, channels=1, max_side_px=1000)
        rows, columns = portable._fit(torch.from_numpy(pixels.astype(np.float32))[None])
        fitted = rows.numpy() @ pixels.astype(np.float32) @ columns.numpy().T
        np.testing.assert_allclose(fitted, square, rtol=0, atol=0.6)  # of 65535


def test_the_network_is_fixed_to_no_device(exported: Export) -> None:
    graph = torch.jit.load(str(exported("binary", "torchscript").model)).inlined_graph
    assert "Device" not in str(graph)


def test_the_files_say_what_the_columns_are(exported: Export) -> None:
    extra = {"outputs.txt": ""}
    torch.jit.load(str(exported("category", "torchscript").model), _extra_files=extra)
    assert json.loads(extra["outputs.txt"]) == ["left", "none", "right"]
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(exported("number", "onnx").model))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["kind"], json.loads(said["outputs"])) == ("number", ["Patient Age"])


def test_the_card_says_what_the_run_knows(exported: Export, run: Learned) -> None:
    result = exported("binary", "torchscript")
    card = result.card.read_text()
    assert (result.out / "MODEL_CARD.md") == result.card
    data = run.results["data"]
    assert f"| Test | {data['test']} images, {data['test_patients']} patients |" in card
    everything = run.results["budgets"][-1]
    for row in run.results["metrics"]:
        if (row["arm"], row["budget"]) == ("simclr", everything) and row["value"] is not None:
            shown = f"| {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['n']} | {row['patients']} |"
            assert shown.replace("-", "−").replace("|−", "|-") in card
        if (row["arm"], row["name"]) == ("supervised", "auroc"):
            assert f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in card
    assert all(f"- {warning}" in card for warning in run.results["warnings"])
    assert "made images" in card
    assert "not a medical device" in card
    assert "| Labels come from | labels.csv: opacity |" in card
    assert "16 images of the collection" in card
    assert f"{result.equality.largest:.1e}; up to 0.0001 is allowed" in card
    assert "None" not in card.replace("| none", "")


@pytest.mark.parametrize("change", [{"collection": "nowhere"}, {"data": ["another fingerprint"]}])
def test_what_is_unknown_is_said_to_be(change: dict[str, object], run: Learned, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run.out, moved, ignore=shutil.ignore_patterns("features", "outputs", "pretrain"))
    settings = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps({**settings, **change}))
    results = json.loads((moved / "results.json").read_text())
    del results["data"]["pretraining_images"], results["data"]["split"]
    (moved / "results.json").write_text(json.dumps(results))
    result = export_model(moved, "torchscript", tmp_path / "out")
    card = result.card.read_text()
    assert "| Labels come from | unknown: the collection was not at hand, or has changed since |" in card
    assert "| Split | unknown |" in card
    assert "pretrained without labels on unknown images" in card
    assert "0 images of the collection, which was not at hand or has changed" in card
    assert (result.equality.collected, result.equality.whole) == (0, None)


def test_the_files_of_a_monai_bundle(exported: Export) -> None:
    out = exported("category", "monai-bundle").out
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    configs = {"configs/metadata.json", "configs/inference.json"}
    assert found == {*configs, "models/model.ts", "docs/README.md", "LICENSE"}
    metadata = json.loads((out / "configs/metadata.json").read_text())
    required = "schema version monai_version pytorch_version numpy_version required_packages_version task"
    assert set(metadata) >= {*required.split(), "description", "authors", "copyright", "network_data_format"}
    [image] = metadata["network_data_format"]["inputs"].values()
    [pred] = metadata["network_data_format"]["outputs"].values()
    keys = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}
    assert set(image) >= keys
    assert set(pred) >= keys
    assert pred["channel_def"] == {"0": "left", "1": "none", "2": "right"}
    assert metadata["eval_metrics"]["auroc"]["n"] > 0
    assert "not a medical device" in metadata["intended_use"]
    assert "monai.bundle run" in (out / "docs/README.md").read_text()


@pytest.mark.slow
def test_monai_runs_the_bundle(
    exported: Export, runs: dict[str, Path], pictures: list[Path], tmp_path: Path
) -> None:
    for package in ("monai", "ignite", "fire"):
        pytest.importorskip(package)
    import nibabel

    (tmp_path / "images").mkdir()
    out = shutil.copytree(exported("binary", "monai-bundle").out, tmp_path / "bundle")
    for path in pictures:
        shutil.copy(path, tmp_path / "images")
    slice_ = np.random.default_rng(5).normal(100, 40, (24, 31, 1)).astype(np.int16)
    nibabel.Nifti1Image(slice_, np.diag([1.0, -1, 1, 1])).to_filename(tmp_path / "images" / "slice.nii.gz")
    deep = np.random.default_rng(6).gamma(2.0, 4000.0, (50, 37)).astype(np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / "images" / "deep.png")
    colour = np.random.default_rng(7).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    PIL.Image.fromarray(colour).save(tmp_path / "images" / "z-colour.png")
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--bundle_root", "."]
    done = subprocess.run(
        [sys.executable, *command, "--dataset_dir", str(tmp_path / "images")],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (out / "output" / "predictions.csv").open(newline="") as file:
        found = {row[0]: [float(value) for value in row[1:]] for row in csv.reader(file)}
    files = sorted((tmp_path / "images").iterdir())
    assert sorted(found) == [str(path) for path in files]
    expected = predicted(runs["binary"], files)
    given = np.array([found[str(path)] for path in files])
    np.testing.assert_allclose(given[:-1], expected[:-1], rtol=0, atol=1e-4 + ROUNDED)
    np.testing.assert_allclose(given[-1], expected[-1], rtol=0, atol=5e-3)  # `predict` rounds grey to 8 bits


def test_a_network_that_differs_is_refused(
    run: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = PortableClassifier.forward
    monkeypatch.setattr(PortableClassifier, "forward", lambda self, image: right(self, image) + 3e-4)
    with pytest.raises(FewlabelError, match=r"differs from the run by 0.0003, and at most 0.0001 is allowed"):
        export_model(run.out, "torchscript", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_extra(missing: str, run: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)  # type: ignore[arg-type]
    with pytest.raises(
        FewlabelError, match=rf'{missing} is not installed: run pip install "fewlabel\[export\]"'
    ):
        export_model(run.out, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_mistakes(run: Learned, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="is no finished run"):
        export_model(tmp_path, "torchscript", tmp_path / "out")
    with pytest.raises(
        FewlabelError, match="'pickle' is no format: export to onnx, torchscript or monai-bundle"
    ):
        export_model(run.out, "pickle", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(FewlabelError, match="is not an empty folder: give a new one"):
            export_model(run.out, "torchscript", out)
    with pytest.raises(FewlabelError, match="could not be written"):
        export_model(run.out, "torchscript", tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_network_that_cannot_be_traced(
    run: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("an operation\nthat it does not know")

    monkeypatch.setattr(exporting.torch.jit, "trace", fail)
    with pytest.raises(
        FewlabelError, match=r"test_resnet cannot be exported to torchscript \(an operation that"
    ):
        export_model(run.out, "torchscript", tmp_path / "out")


def test_the_command(
    run: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    monkeypatch.setattr(
        "sys.argv", ["fewlabel", "export", str(run.out), "--to", "torchscript", "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    shown = capfd.readouterr()
    assert shown.err == ""
    assert f"{out / 'model.ts'}: at most " in shown.out
    assert f"model card: {out / 'MODEL_CARD.md'}" in shown.out
    assert {path.name for path in out.iterdir()} == {"model.ts", "MODEL_CARD.md"}


@pytest.mark.slow
@pytest.mark.real
def test_real_radiographs(shared_data: Path, tmp_path: Path) -> None:
    """Whole X-rays of 8 bits: equal but for the rounding of `predict`'s squares, which the card states."""
    source, labels = shared_data / "nih-chest-xray", {}
    if not source.is_dir():
        pytest.skip(f"no chest X-rays at {source}")
    with (source / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            labels[Path(row["Image Index"]).stem] = row
    files = [path for path in sorted((source / "images").rglob("*.jpg")) if path.stem in labels][:60]
    (tmp_path / "some").mkdir()
    for path in files:
        shutil.copy(path, tmp_path / "some")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient", "age"])
        writer.writerows(
            [path.name, labels[path.stem]["Patient ID"], labels[path.stem]["Patient Age"]] for path in files
        )
    import_images(
        tmp_path / "some",
        tmp_path / "chest",
        labels=tmp_path / "labels.csv",
        patient_column="patient",
        workers=1,
    )
    settings = replace(QUICK, target="age>50", budgets=(10,), seeds=1, resamples=20, supervised=False)
    learned = learn(tmp_path / "chest", "age>50", tmp_path / "run", pretraining=TINY, evaluation=settings)
    run = sharpened(learned.out, tmp_path / "sharp", Collection.open(tmp_path / "chest"))
    result = export_model(run, "torchscript", tmp_path / "out")
    assert result.equality.collected == 16
    assert result.equality.whole is not None
    expected = predicted(run, files[:5])
    assert expected[:, 0].std() > 0.05
    store_px = load_classifier(run).store_px
    for path, p in zip(files, expected, strict=False):
        image = np.asarray(PIL.Image.open(path).convert("L"), np.float32)[None, None] / 255
        assert max(image.shape) > store_px
        np.testing.assert_allclose(answers(result, image)[0], p, rtol=0, atol=result.equality.whole + 1e-3)
        square = square_image(read_file(path), store_px, channels=1, max_side_px=512)[None] / np.float32(
            65535
        )
        np.testing.assert_allclose(answers(result, square)[0], p, rtol=0, atol=1e-4 + ROUNDED)
