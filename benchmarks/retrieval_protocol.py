"""Do images of one finding find each other, and do sentences find them? The 8x200 protocol of ConVIRT; prints JSON.

    python benchmarks/retrieval_protocol.py COLLECTION MODEL --classes Edema Pneumonia=1 "Pleural Effusion"
    python benchmarks/retrieval_protocol.py COLLECTION MODEL --classes finding --prompts prompts.json

MODEL is the folder of a saved image-text model (`ImageText.save`), or of a run of `fewlabel pretrain` or `learn`, which
has no texts. Several classes are binary targets, of which an image is taken if it has exactly one; one class is a
column whose classes exclude each other. Of each class 10 test images ask and 200 others are to be found (Zhang et al.
2020, arXiv:2010.00747, section 3.2), or as many as there are for all. Only test images of the split that the run kept
are used; an image of the query's own patient is never found. The same network with random weights is measured beside it
on the same resamples.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import machine_facts

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection
from fewlabel.evaluation.intervals import Resamples, paired_difference
from fewlabel.evaluation.retrieval import (
    NO_PATIENT,
    Protocol,
    Retrieval,
    Search,
    cosines,
    draw_protocol,
    exclusive_classes,
    precision_at,
)
from fewlabel.networks import Encoder
from fewlabel.pipeline.arms import random_encoder
from fewlabel.pipeline.pretraining import store_size
from fewlabel.pipeline.runs import read_json, read_split
from fewlabel.tasks import ImageText, Prompts, class_prompts, default_prompts, load_image_text, read_prompts
from fewlabel.tasks.image_text import DESCRIPTION
from fewlabel.training.weights import ENCODER, load_encoder
from fewlabel.types import JSON, FewlabelError


@dataclass(frozen=True)
class Model:
    """An encoder and the size of its views; image_text: None for a run without texts."""

    encoder: Encoder
    size_px: int
    image_text: ImageText | None = None


@dataclass(frozen=True)
class Classes:
    """names in the order of the codes; codes: (N,) of all images of the collection, -1 = none or several."""

    names: tuple[str, ...]
    codes: np.ndarray
    prompts: Prompts


def load_model(folder: Path) -> Model:
    """The model in a folder, whichever of the two kinds it is."""
    if (folder / DESCRIPTION).exists():
        image_text = load_image_text(folder)
        return Model(image_text.encoder, image_text.size_px, image_text)
    run = run_folder(folder)
    made = read_json(run / "pretrain.json", "fewlabel pretrain")
    return Model(load_encoder(run / ENCODER), int(made["settings"]["size_px"]))


def run_folder(folder: Path) -> Path:
    """Of `learn` the first pretraining, else the folder itself."""
    first = folder / "pretrain" / "seed-0"
    return first if first.is_dir() else folder


def held_out_rows(collection: Collection, folder: Path, split: Path | None) -> tuple[np.ndarray, str]:
    """Test rows of the split in `split`, or in the model's folder or the one above it; and how it came about."""
    candidates = (
        [split] if split else [run_folder(folder) / "split.csv", folder.resolve().parent / "split.csv"]
    )
    for path in candidates:
        kept = read_split(path, collection)
        if kept is not None and len(kept.test):
            return kept.test, kept.origin
    raise FewlabelError(
        f"No split with test images of {collection.name} lies in {folder} or above it: give the run's split.csv with "
        "--split."
    )


def read_classes(collection: Collection, specs: Sequence[str], prompts: Path | None) -> Classes:
    """The classes of the images, and what to say of each. Raises FewlabelError for targets that are no classes."""
    targets = [collection.target(spec) for spec in specs]
    wrong = [
        one.name for one in targets if one.kind == "number" or (len(targets) > 1 and one.kind != "binary")
    ]
    if wrong:
        raise FewlabelError(
            f"{wrong[0]} is no class: give several binary targets, such as Pneumonia or Finding=edema, or one column "
            "of classes."
        )
    if len(targets) > 1:
        names = tuple(target.name.removesuffix("=1") for target in targets)
        codes = exclusive_classes(np.stack([target.values == 1 for target in targets], axis=1))
        said = class_prompts([name.lower() for name in names])
    else:
        names, codes = targets[0].classes, targets[0].values
        binary = names[0] == f"not {names[1]}"
        said = (
            default_prompts(names[1].lower()) if binary else class_prompts([name.lower() for name in names])
        )
    return Classes(names, codes, _in_order(names, read_prompts(prompts), prompts) if prompts else said)


def _in_order(names: tuple[str, ...], prompts: Prompts, path: Path) -> Prompts:
    if {*names} != {*prompts.classes}:
        raise FewlabelError(
            f"{path} has prompts of {', '.join(prompts.classes)}, and the classes are {', '.join(names)}: give prompts "
            "of each of them."
        )
    by_name = dict(zip(prompts.classes, prompts.sentences, strict=True))
    return Prompts(names, tuple(by_name[name] for name in names))


def image_to_image(
    model: Model, queries: np.ndarray, candidates: np.ndarray, search: Search, given: argparse.Namespace
) -> JSON:
    """Features h of the encoder and of random weights, and the projected v where there is an image-text model."""

    def features(encoder: Encoder) -> list[np.ndarray]:
        return [extract_features(encoder, pixels, size_px=model.size_px) for pixels in (queries, candidates)]

    embedded = {
        "features": features(model.encoder),
        "random": features(random_encoder(model.encoder.settings, given.seed)),
    }
    if model.image_text is not None:
        embedded["embeddings"] = [model.image_text.embed_images(pixels) for pixels in (queries, candidates)]
    resamples = search.draw(resamples=given.resamples, seed=given.seed)
    found = {way: measured(cosines(*both), search, resamples, given.at) for way, both in embedded.items()}
    random = found.pop("random")
    return {
        "chance": round(random.chance, 5),
        "random": rows(random),
        **{way: rows(one, against=random) for way, one in found.items()},
    }


def text_to_image(
    model: ImageText,
    classes: Classes,
    drawn: Protocol,
    candidates: np.ndarray,
    owners: np.ndarray,
    given: argparse.Namespace,
) -> JSON:
    """Each sentence of a class asks for its images."""
    present = np.unique(drawn.candidate_classes)
    asked = [(sentence, int(c)) for c in present for sentence in classes.prompts.sentences[c]]
    of_text = np.array([c for _, c in asked])
    nobody = np.full(len(asked), NO_PATIENT)
    search = Search.by_class(of_text, drawn.candidate_classes, nobody, owners)
    similarity = cosines(
        model.embed_texts([sentence for sentence, _ in asked]), model.embed_images(candidates)
    )
    found = measured(similarity, search, search.draw(resamples=given.resamples, seed=given.seed), given.at)
    said = {classes.names[c]: list(classes.prompts.sentences[c]) for c in present}
    return {"chance": round(found.chance, 5), "prompts": said, "embeddings": rows(found)}


def measured(similarity: np.ndarray, search: Search, resamples: Resamples, at: Sequence[int]) -> Retrieval:
    """Precision at each k that there are candidates for."""
    return precision_at(similarity, search, resamples, at=[k for k in at if k <= similarity.shape[1]])


def rows(found: Retrieval, against: Retrieval | None = None) -> list[JSON]:
    """One row a precision; with the paired difference to `against`."""
    told: list[JSON] = []
    for metric, (k, precision) in zip(found.metrics(), found.precision.items(), strict=True):
        row: JSON = {
            "metric": metric.name, "value": metric.value, "low": metric.low, "high": metric.high, "n": metric.n,
            "patients": metric.patients, "left_out": found.left_out[k],
        }  # fmt: skip
        if against is not None:
            gap = paired_difference(precision, against.precision[k])
            row["over_random"] = {"value": gap.value, "low": gap.low, "high": gap.high, "p": gap.p}
        told.append(row)
    return told


def measure(given: argparse.Namespace) -> JSON:
    """The content of the JSON."""
    facts = machine_facts()
    collection, model = Collection.open(given.collection), load_model(given.model)
    test, origin = held_out_rows(collection, given.model, given.split)
    classes = read_classes(collection, given.classes, given.prompts)
    patients = collection.patients()
    drawn = draw_protocol(
        classes.codes[test],
        patients[test],
        candidates_per_class=given.candidates,
        queries_per_class=given.queries,
        seed=given.seed,
        names=classes.names,
    )
    asking, finding = test[drawn.queries], test[drawn.candidates]
    store_px = store_size(model.size_px, [collection])
    pixels = collection.square(store_px, channels=model.encoder.settings.channels)
    queries, candidates = pixels[asking], pixels[finding]
    search = Search.by_class(
        drawn.query_classes, drawn.candidate_classes, patients[asking], patients[finding]
    )
    told: JSON = {
        "benchmark": "retrieval_protocol", "collection": collection.name, "fingerprint": collection.fingerprint,
        "model": given.model.resolve().name, "network": model.encoder.settings.name, "size_px": model.size_px,
        "split": origin, "test_images": len(test),
        "classes": {name: int(np.sum(classes.codes[test] == c)) for c, name in enumerate(classes.names)},
        "queries_per_class": drawn.queries_per_class, "candidates_per_class": drawn.candidates_per_class,
        "protocol_note": drawn.note, "seed": given.seed, "resamples": given.resamples,
        "image_to_image": image_to_image(model, queries, candidates, search, given),
    }  # fmt: skip
    if model.image_text is not None:
        told["text_to_image"] = text_to_image(
            model.image_text, classes, drawn, candidates, patients[finding], given
        )
    return {**told, **facts}


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says and print JSON. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--classes", nargs="+", required=True, help="binary targets, or one column of classes"
    )
    parser.add_argument("--prompts", type=Path, help='JSON, {"class": ["sentence", ...], ...}')
    parser.add_argument("--split", type=Path, help="the run's split.csv, where it is not beside the model")
    parser.add_argument("--queries", type=int, default=10, help="of each class")
    parser.add_argument("--candidates", type=int, default=200, help="of each class")
    parser.add_argument("--at", type=int, nargs="+", default=[5, 10, 50])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    try:
        print(json.dumps(measure(parser.parse_args(arguments)), indent=1))
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
