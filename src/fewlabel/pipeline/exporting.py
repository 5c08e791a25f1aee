"""`fewlabel export`: the classifier of a run as ONNX, TorchScript or MONAI bundle, checked, with a model card."""

from __future__ import annotations

import importlib
import json
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection, square_image
from fewlabel.files import check_new, filling, write_text
from fewlabel.pipeline.model_card import Equality, RunFacts, model_card
from fewlabel.pipeline.monai_bundle import write_bundle_files
from fewlabel.pipeline.portable import PortableClassifier, unit_image
from fewlabel.pipeline.predicting import Classifier, load_classifier
from fewlabel.pipeline.runs import RUN, read_json
from fewlabel.report.contract import read_results
from fewlabel.types import FewlabelError, Image
from fewlabel.views import to_unit_range

TOLERANCE = 1e-4
"""How far an exported network may be from the run: of a probability, or of a number divided by the largest one."""
OPSET = 17
_PLACES = {
    "onnx": ("model.onnx", "MODEL_CARD.md"),
    "torchscript": ("model.ts", "MODEL_CARD.md"),
    "monai-bundle": ("models/model.ts", "docs/README.md"),
}
_MADE = ((1.0, 1.0),) * 8 + ((1.0, 0.61), (0.43, 1.37), (2.9, 2.2))
"""Heights and widths of the made images that are compared, as multiples of the run's size."""
_COLLECTED = 16
"""How many images of the collection are compared."""

Network = Callable[[torch.Tensor], np.ndarray]
"""image (B, C, H, W) -> output (B, K)."""


@dataclass(frozen=True)
class Exported:
    """out: the folder. model, card: the network and the model card in it. equality: what the check found."""

    out: Path
    model: Path
    card: Path
    equality: Equality


def export_model(run: str | Path, to: str, out: str | Path) -> Exported:
    """Write the classifier of a finished run for other programs, into a new folder.

    to: "onnx", "torchscript", or "monai-bundle". The network is a `PortableClassifier`. It is loaded again from its
    file and compared with the run on made images and on some of the run's collection, where that is at hand.
    Raises FewlabelError for an unfinished run, an unknown format, a missing extra, a folder that is not empty, a
    network that the format cannot hold, and where outputs differ by more than 1e-4; then nothing is left behind.
    """
    run, out = Path(run), Path(out)
    _check(to, out)
    classifier = load_classifier(run)
    facts = RunFacts(
        to,
        classifier,
        read_json(run / RUN, "fewlabel learn"),
        read_json(run / "model" / "model.json", "fewlabel learn"),
        read_results(run),
        collection_of(run),
    )
    model, card = _PLACES[to]
    with filling(out) as made:
        (made / model).parent.mkdir(parents=True, exist_ok=True)
        network = _write_network(facts, made / model)
        equality = compare(classifier, network, facts.collection)
        _refuse_differences(equality, to)
        write_text(made / card, model_card(facts, equality))
        if to == "monai-bundle":
            write_bundle_files(made, facts)
    return Exported(out, out / model, out / card, equality)


def _check(to: str, out: Path) -> None:
    formats = list(_PLACES)
    if to not in formats:
        raise FewlabelError(f"{to!r} is no format: export to {', '.join(formats[:-1])} or {formats[-1]}.")
    check_new(out)
    if to == "onnx":
        for name in ("onnx", "onnxruntime"):
            _extra(name)


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FewlabelError(f'{name} is not installed: run pip install "fewlabel[export]".') from error


def collection_of(run: Path) -> Collection | None:
    """The collection that the run was made from, if it is still where it was and still the same."""
    made = read_json(run / RUN, "fewlabel learn")
    try:
        collection = Collection.open(made["collection"])
    except FewlabelError:
        return None
    return collection if collection.fingerprint == made["data"][0] else None


def _write_network(facts: RunFacts, path: Path) -> Network:
    """Write the network, and load it from the file that was written."""
    classifier = facts.classifier
    portable = PortableClassifier(classifier).eval()
    channels, side = classifier.encoder.settings.channels, classifier.store_px
    example = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    said = {
        "target": classifier.target,
        "kind": classifier.probe.kind,
        "outputs": json.dumps(facts.outputs),
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: whether it was right, the comparison says
        try:
            if facts.to == "onnx":
                return _write_onnx(portable, example, path, said)
            return _write_torchscript(portable, example, path, said)
        except OSError:
            raise
        except Exception as error:  # exporters and runtimes raise many things
            reason = textwrap.shorten(str(error), 160, placeholder=" ...")
            raise FewlabelError(
                f"The encoder {classifier.encoder.settings.name} cannot be exported to {facts.to} ({reason}): "
                "choose another format with --to."
            ) from error


def _write_torchscript(
    portable: nn.Module, example: torch.Tensor, path: Path, said: dict[str, str]
) -> Network:
    """Traced, and not frozen: a frozen network could not be moved to another device."""
    traced = torch.jit.trace(portable, (example,), check_trace=False)
    extra = {f"{key}.txt": value for key, value in said.items()}
    torch.jit.save(traced, str(path), _extra_files=extra)
    loaded = torch.jit.load(str(path))  # written just now, by these lines
    return lambda image: loaded(image).numpy()


def _write_onnx(portable: nn.Module, example: torch.Tensor, path: Path, said: dict[str, str]) -> Network:
    """By tracing: that needs the package onnx alone, and works with every torch that Fewlabel takes."""
    onnx, onnxruntime = _extra("onnx"), _extra("onnxruntime")
    axes = {"image": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
    torch.onnx.export(
        portable,
        (example,),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["output"],
        dynamic_axes=axes,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, said)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image.numpy()})[0]


@torch.no_grad()
def compare(classifier: Classifier, network: Network, collection: Collection | None) -> Equality:
    """The exported network against `predict`'s own way, on made images and on some of the collection.

    Squares, in one batch, and made images of other sizes, one by one, must agree. Whole images of the collection are
    measured and not judged: `predict` keeps their squares in 8 or 16 bits, which an exported network does not.
    """
    channels = classifier.encoder.settings.channels
    made = _made_images(classifier.store_px, channels)
    found = [] if collection is None else _spread(collection)
    squares = np.stack([_square(classifier, image) for image in (*made, *found)])
    features = extract_features(classifier.encoder, squares, size_px=classifier.size_px)
    truth = classifier.probe.predict(features).reshape(len(squares), -1)  # (N, K)
    together = network(to_unit_range(torch.from_numpy(squares)))
    alone = np.concatenate([network(unit_image(image, channels)[None]) for image in (*made, *found)])
    scale = max(1.0, float(np.abs(truth).max())) if classifier.probe.kind == "number" else 1.0
    far = np.abs(np.stack([together, alone]) - truth).max(axis=2) / scale  # (2, N)
    return Equality(
        largest=float(max(far[0].max(), far[1, : len(made)].max())),
        tolerance=TOLERANCE,
        made=len(made),
        collected=len(found),
        whole=float(far[1, len(made) :].max()) if found else None,
    )


def _made_images(side: int, channels: int) -> list[Image]:
    """Noise of 16 bits, so that rounding hardly counts: squares of the run's size, and other shapes."""
    rng = np.random.default_rng(0)
    shapes = [(round(height * side), round(width * side)) for height, width in _MADE]
    return [
        Image(rng.integers(0, 65536, (channels, *shape), dtype=np.uint16), display_range=(0.0, 65535.0))
        for shape in shapes
    ]


def _spread(collection: Collection) -> list[Image]:
    rows = np.linspace(0, len(collection) - 1, _COLLECTED).astype(int)
    return [collection.image(int(row)) for row in np.unique(rows)]


def _square(classifier: Classifier, image: Image) -> np.ndarray:
    """(C, S, S) uint16, as `predict` makes it, but not shrunk beforehand."""
    channels, longer = classifier.encoder.settings.channels, max(image.pixels.shape)
    return square_image(image, classifier.store_px, channels=channels, max_side_px=longer)


def _refuse_differences(equality: Equality, to: str) -> None:
    if not equality.largest <= equality.tolerance:
        raise FewlabelError(
            f"The network exported to {to} differs from the run by {equality.largest:.2g}, and at most "
            f"{equality.tolerance:g} is allowed: nothing was written; choose another format with --to."
        )
