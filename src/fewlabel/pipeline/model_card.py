"""The model card of an exported classifier: what the run knows of it, as Markdown; what it does not know is said.

The words stand in model_card.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fewlabel.collection import Collection
from fewlabel.pipeline.predicting import Classifier
from fewlabel.pipeline.runs import versions
from fewlabel.report.results import Results
from fewlabel.report.words import NOT_KNOWN, count, interval, is_number, number
from fewlabel.types import JSON

NOT_A_DEVICE = (
    "For research only. This is not a medical device; its output must not be used for the care of patients."
)
UNKNOWN = "unknown"
_NAMES = {
    "onnx": ("`model.onnx`, an ONNX network", "`image`", "`output`"),
    "torchscript": ("`model.ts`, a TorchScript network", "its argument", "its result"),
    "monai-bundle": ("A MONAI bundle around `models/model.ts`, a TorchScript network", "`image`", "`pred`"),
}
"""Of each format: the file, the input, the output."""


@dataclass(frozen=True)
class Equality:
    """What comparing an exported network with the run found.

    largest: difference between outputs, of a number divided by the largest one; tolerance: what was allowed.
    made, collected: images compared, made ones and ones of the collection.
    whole: the largest difference where images of the collection were given whole, not as the squares that `predict`
    keeps; None without any.
    """

    largest: float
    tolerance: float
    made: int
    collected: int
    whole: float | None


@dataclass(frozen=True)
class RunFacts:
    """What is known of an exported run. to: the format. run, model, results: run.json, model.json, results.json.

    collection: the one that the run was made from; None where it is not at hand.
    """

    to: str
    classifier: Classifier
    run: JSON
    model: JSON
    results: JSON
    collection: Collection | None

    @property
    def title(self) -> str:
        """Target and collection."""
        return str(self.results.get("title") or self.classifier.target)

    @property
    def made(self) -> bool:
        """Whether the images are made by a program."""
        return bool(self.results.get("made_images"))

    @property
    def data(self) -> JSON:
        """Who was in which part."""
        return self.results.get("data") or {}

    @property
    def outputs(self) -> list[str]:
        """What each column of the output is: the classes, or the target itself where it is a number."""
        probe, target = self.classifier.probe, self.classifier.target
        return [target] if probe.kind == "number" else list(self.classifier.classes)


def model_card(facts: RunFacts, equality: Equality) -> str:
    """The card, Markdown."""
    loader = FileSystemLoader(Path(__file__).parent)
    words = Environment(
        loader=loader, trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return words.get_template("model_card.md").render(
        not_a_device=NOT_A_DEVICE,
        title=facts.title,
        made=facts.made,
        equality=equality,
        warnings=facts.results.get("warnings") or [],
        versions=_versions(facts),
        **_network(facts),
        **_data(facts),
        **_performance(facts),
    )


def _network(facts: RunFacts) -> JSON:
    classifier, settings = facts.classifier, facts.classifier.encoder.settings
    file, given, result = _NAMES[facts.to]
    return {
        "file": file,
        "input": given,
        "output": result,
        "bundle": facts.to == "monai-bundle",
        "encoder": settings.name,
        "features": classifier.encoder.dim,
        "channels": settings.channels,
        "names": facts.outputs,
        "number": classifier.probe.kind == "number",
        "probe": "ordinal probe" if classifier.cuts else "linear probe",
        "cuts": [f"{cut:.6g}" for cut in classifier.cuts.at] if classifier.cuts else [],
        "referable": classifier.classes[classifier.referable] if classifier.cuts else "",
        "size_px": classifier.size_px,
        "store_px": classifier.store_px,
        "max_side_px": classifier.max_side_px,
    }


def _data(facts: RunFacts) -> JSON:
    data, target = facts.data, facts.results["target"]
    modalities = ", ".join(f"{name}: {count(n)}" for name, n in (data.get("modalities") or {}).items())
    rows = [
        ("Collection", facts.model.get("trained_on")),
        ("Made by a program", "yes, all or some of the images" if facts.made else "not marked as such"),
        ("Further collections, used without labels", _further(facts)),
        ("Target", f"{target.get('name')} ({target.get('kind')})"),
        ("Restricted to images with", target.get("where") or "no restriction"),
        ("Labels come from", _label_source(facts)),
        ("Set aside, label uncertain", count(data.get("uncertain"))),
        ("Set aside, label not mentioned", count(data.get("not_mentioned"))),
        ("Split", data.get("split")),
        *((name, _part(data, part)) for name, part in _PARTS),
        ("Modalities", modalities),
        ("Image sizes", data.get("image_sizes")),
        ("Pixel spacing", data.get("spacing_mm")),
        ("Age, sex and origin of the patients; scanners", "not summarised by the run"),
    ]
    return {
        "data": _table(("", ""), rows),
        "counts": _label_counts(facts),
        "facts": [] if facts.collection is None else list(facts.collection.facts),
        "collection": facts.model.get("trained_on", UNKNOWN),
        "pretraining_images": _known(count(data.get("pretraining_images"))),
        "labels": _known(count(facts.model.get("training_labels"))),
        "validation": _known(count(data.get("validation_labels"))),
        "settings": _table(("Setting of pretraining", "Value"), _settings(facts)),
        "keeps": _keeps(facts),
    }


def _keeps(facts: RunFacts) -> str:
    """What of the training images stays with the run, which this export leaves behind."""
    kept = facts.model.get("keeps") or f"an {UNKNOWN} part of the training images"
    return f"The folder `model` of the run keeps {kept}, for `fewlabel predict` to show; this export holds none of it."


_PARTS = (("All", ""), ("Training", "train"), ("Validation", "val"), ("Test", "test"))


def _part(data: JSON, part: str) -> str:
    images, patients = (part, f"{part}_patients") if part else ("images", "patients")
    return f"{_known(count(data.get(images)))} images, {_known(count(data.get(patients)))} patients"


def _further(facts: RunFacts) -> str:
    return ", ".join(Path(other).name for other in facts.run.get("pretrain_on") or []) or "none"


def _label_counts(facts: RunFacts) -> str:
    names = facts.classifier.classes
    rows = [
        (part, *(count(row.get(name, 0)) for name in names))
        for part, row in (facts.data.get("label_counts") or {}).items()
    ]
    return _table(("", *names), rows) if names and rows else ""


def _label_source(facts: RunFacts) -> str:
    """Where the label column came from; the target is that column, or compares it with something."""
    if facts.collection is None:
        return f"{UNKNOWN}: the collection was not at hand, or has changed since"
    fitting = [c for c in facts.collection.labels.values() if facts.classifier.target.startswith(c.name)]
    column = max(fitting, key=lambda c: len(c.name), default=None)
    return column.origin if column and column.origin else f"{UNKNOWN}: it is no label column"


def _settings(facts: RunFacts) -> list[tuple[str, object]]:
    settings = dict(facts.run.get("pretraining") or {})
    text = settings.pop("text", {})
    if settings.get("objective") == "convirt":
        settings |= {f"text: {name}": value for name, value in text.items()}
    return [(name, "not set" if value is None else value) for name, value in settings.items()]


def classifier_measures(facts: RunFacts) -> list[JSON]:
    """The rows of results.json on the exported kind of classifier with all labels, the main measure first."""
    results = Results(facts.results)
    wanted = ((name, method_key(facts), results.budgets[-1]) for name in results.metric_names)
    return [results.cells[key] for key in wanted if key in results.cells]


def method_key(facts: RunFacts) -> str:
    """The arm that the exported classifier belongs to; in older runs the first that is a method, a linear probe."""
    first = next(str(arm["key"]) for arm in facts.results["arms"] if arm.get("role") == "method")
    return str(facts.results.get("final", first))


def _performance(facts: RunFacts) -> JSON:
    results = Results(facts.results)
    rows = [
        (
            results.title(row["name"]),
            number(row.get("value")),
            interval(row.get("low"), row.get("high")),
            count(row.get("n")),
            count(row.get("patients")),
        )
        for row in classifier_measures(facts)
    ]
    nothing = "Labels saved against training from scratch: not measured."
    return {
        "seeds": len(facts.results.get("seeds") or []),
        "method": results.arm(method_key(facts)),
        "further": method_key(facts) != "simclr",
        "budget": count(results.budgets[-1]),
        "measures": _table(("Measure", "Value", "95 % interval", "Test images, n", "Patients"), rows),
        "metric": results.title(results.metric),
        "budgets": _budgets(results),
        "headline": (facts.results.get("headline") or {}).get("sentence") or nothing,
    }


def _budgets(results: Results) -> str:
    def cell(arm: str, budget: int) -> str:
        row = results.cells.get((results.metric, arm, budget), {})
        if not is_number(row.get("value")):
            return "not measured"
        return f"{number(row['value'])} ({interval(row.get('low'), row.get('high'))})"

    rows = [(count(budget), *(cell(arm, budget) for arm in results.labels)) for budget in results.budgets]
    return _table(("Labels", *results.labels.values()), rows)


def _versions(facts: RunFacts) -> str:
    then, now = facts.results.get("versions") or {}, versions()
    names = [name for name in now if name not in ("machine", "threads", "cores", "gpu")]
    return _table(("", "Trained with", "Exported with"), [(n, then.get(n, UNKNOWN), now[n]) for n in names])


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_known(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _known(value: object) -> str:
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return UNKNOWN if text in ("", "None", NOT_KNOWN) else text
