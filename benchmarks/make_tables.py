"""Writes the tables of README.md and docs/results.md and the README's figure from benchmarks/results/*.json.

    python benchmarks/make_tables.py            or: make results
    python benchmarks/make_tables.py --check    exit status 1 if anything is not up to date

No figure in these files is written by hand. What was not measured is said to be so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import retrieval_page
from anomaly import JOBS as ANOMALIES
from anomaly_page import anomaly
from compare_encoders import STUDIES
from encoder_sizes_page import encoder_sizes
from image_text import JOBS as PAIRS
from image_text_page import image_text, image_text_short, protocol
from main_job import JOBS
from metric_learning_page import metric_learning
from performance_page import (
    FIGURES,
    PARTS,
    as_svg,
    json_digest,
    markdown_table,
    performance,
    pyplot_for_svg,
)
from semi_supervised_page import semi_supervised

from fewlabel.report.style import LIGHT, looks
from fewlabel.report.words import count, interval, number, p_value, signed
from fewlabel.types import JSON, FewlabelError

ROOT = Path(__file__).resolve().parents[1]
FIGURE = "docs/figures/label-efficiency.svg"
SHOWN_FIRST = "pneumoniamnist"
NOT_MEASURED = "not measured"
ARMS = {
    "simclr": "SimCLR, linear probe",
    "random": "random init, linear probe",
    "supervised": "supervised from scratch",
    "pixels": "16 × 16 pixels",
    "statistics": "six statistics",
}
FIRST_WORDS = {
    "simclr": "a linear probe on SimCLR features",
    "supervised": "the same network trained from scratch",
    "random": "a linear probe on features of its random weights",
}
DRAWN = ("simclr", "supervised", "random", "pixels", "statistics")


class Result:
    """The compact results of one job, or the lack of them."""

    def __init__(self, name: str, content: JSON | None) -> None:
        self.name = name
        self.raw: JSON = content or {}
        self.cells = {(r["name"], r["arm"], r["budget"]): r for r in self.raw.get("metrics", [])}
        differences = self.raw.get("differences", [])
        turned = [_turned(r) for r in differences if r["reference"] == "simclr"]
        self.against = {
            (r["reference"], r["budget"]): r for r in [*turned, *differences] if r["arm"] == "simclr"
        }

    @property
    def measured(self) -> bool:
        """Whether there are results."""
        return bool(self.raw)

    @property
    def budgets(self) -> list[int]:
        """The label budgets; the last one is all labels."""
        return self.raw["budgets"]

    @property
    def few(self) -> int:
        """The budget of the headline, which was fixed before any result was seen."""
        wanted = self.raw["settings"]["evaluation"]["headline_budget"]
        return min(self.budgets, key=lambda budget: (abs(budget - wanted), budget))

    @property
    def metric(self) -> str:
        """The main measure in words."""
        return str(self.raw["metric_labels"][self.raw["metric"]])

    @property
    def measure(self) -> str:
        """The main measure, and which way is better where it is not the usual one."""
        return self.metric if self.raw["higher_is_better"] else f"{self.metric} (lower is better)"

    def value(self, arm: str, budget: int, name: str | None = None) -> str:
        """ "0.941 (0.912 to 0.960)" of the main measure, or of another one."""
        cell = self.cells.get((name or self.raw.get("metric"), arm, budget))
        return f"{number(cell['value'])} ({interval(cell['low'], cell['high'])})" if cell else NOT_MEASURED

    def difference(self, reference: str, budget: int) -> str:
        """SimCLR minus another arm, with interval and p."""
        row = self.against.get((reference, budget))
        if not row:
            return NOT_MEASURED
        return f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])}), p {p_text(row['p'])}"

    def tested(self) -> str:
        """How many images and patients it was tested on, and with how many seeds."""
        data, groups = self.raw["data"], self.raw["groups"]
        known = f"{count(data['test_patients'])} {groups}" if groups else "patients not known"
        seeds = len(self.raw["seeds"])
        return f"{count(data['test'])} images ({known}), {seeds} seed{'' if seeds == 1 else 's'}"

    def saved(self) -> str:
        """The sentence on labels saved."""
        headline = self.raw.get("headline")
        return str(headline["sentence"]) if headline else f"Labels saved: {NOT_MEASURED}."


def _turned(row: JSON) -> JSON:
    """The same difference, the other way round."""
    ends = {"value": -row["value"], "low": -row["high"], "high": -row["low"]}
    return {**row, **ends, "arm": row["reference"], "reference": row["arm"]}


def p_text(value: float) -> str:
    """ "< 0.001" or "= 0.04"."""
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def read_results(folder: Path) -> dict[str, Result]:
    """All results in the folder, those of the jobs first; one that is missing is there and empty."""
    found: dict[str, Result] = {name: Result(name, None) for name, job in JOBS.items() if job.table == "main"}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "job" in content:
            found[path.stem] = Result(path.stem, content)
    return found


def read_study(path: Path) -> JSON | None:
    """What `compare_encoders.py` or `image_text.py` wrote; None where it was not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def first_screen(results: dict[str, Result]) -> str:
    """One result in words, with its picture."""
    result = results[SHOWN_FIRST]
    if not result.measured:
        return f"The main job on PneumoniaMNIST: {NOT_MEASURED} yet (`python benchmarks/main_job.py {SHOWN_FIRST}`)."
    few, every = result.few, result.budgets[-1]
    told = [
        f"{result.value(arm, few)} for {words}"
        for arm, words in FIRST_WORDS.items()
        if result.value(arm, few) != NOT_MEASURED
    ]
    words = (
        f"PneumoniaMNIST with {count(few)} labels ({100 * few / every:.1g} % of them): test {result.metric} "
        f"{', '.join(told)}. {result.saved()}"
    )
    note = f"Test {result.metric} on {result.tested()}; brackets and bands are 95 % intervals."
    return f"{words}\n\n![{result.metric} against the number of labels]({FIGURE})\n\n{note}"


def summary(results: dict[str, Result], *, short: bool = False) -> str:
    """One table over all jobs: few labels and all labels, every arm; then how many labels were saved.

    short: only the jobs that pretrain, without those that take another target on their encoder.
    """
    header = ["Target", "Tested on", "Measure", "Labels", *ARMS.values(), "SimCLR − supervised"]
    rows: list[list[str]] = []
    main = [result for result in results.values() if result.raw.get("table", "main") == "main"]
    if short:
        main = [result for result in main if not (result.name in JOBS and JOBS[result.name].encoder_of)]
    for result in main:
        if not result.measured:
            rows.append([f"`{result.name}`", NOT_MEASURED, *["–"] * (len(header) - 2)])
            continue
        for budget in sorted({result.few, result.budgets[-1]}):
            everything = " (all)" if budget == result.budgets[-1] else ""
            rows.append(
                [
                    f"`{result.name}`: {result.raw['about']}" if budget == result.few else f"`{result.name}`",
                    result.tested(),
                    result.measure,
                    count(budget) + everything,
                    *(result.value(arm, budget) for arm in ARMS),
                    result.difference("supervised", budget),
                ]
            )
    saved = [f"- `{result.name}`: {result.saved()}" for result in main if result.measured]
    return "\n\n".join([markdown_table(header, rows), *(["\n".join(saved)] if saved else [])])


RECIPE_ARMS = {
    "supervised": "supervised from scratch",
    "simclr": "SimCLR, linear probe",
    "finetune": "fine-tuned from the output",
    "finetune-head": "fine-tuned from the head",
    "self-distilled": "distilled into its own kind",
    "distilled": "distilled into a smaller network",
}


def recipe(results: dict[str, Result]) -> str:
    """SimCLRv2's steps, at every share of the labels, by network."""
    rows = []
    for result in results.values():
        if result.raw.get("table") != "recipe":
            continue
        settings = result.raw["settings"]
        network, student = settings["pretraining"]["encoder"], settings["evaluation"]["simclr_v2"]["student"]
        for budget in result.budgets:
            share = f"{count(budget)} ({100 * budget / result.budgets[-1]:.0f} %)"
            about = f"{result.raw['about']}, {result.tested()}" if budget == result.budgets[0] else ""
            cells = (result.value(arm, budget) for arm in RECIPE_ARMS)
            rows.append([about, f"{network} → {student}", share, *cells])
    if not rows:
        return NOT_MEASURED.capitalize() + "."
    return markdown_table(["AUROC", "Networks", "Labels", *RECIPE_ARMS.values()], rows)


def compared_encoders(content: JSON | None) -> str:
    """One study of `compare_encoders.py`: its ways to pretrain, with few and with all labels."""
    if content is None:
        return NOT_MEASURED.capitalize() + "."
    ways = content["ways"]
    cells: dict[tuple[str, str], list[JSON]] = {}
    for row in sorted(content["rows"], key=lambda row: int(row["budget"])):
        cells.setdefault((row["target"], row["way"]), []).append(row)
    lines = []
    for (target, way), found in cells.items():
        first = found[0]
        groups = f" of {count(first['patients'])} {content['groups']}" if content["groups"] else ""
        steps = " / ".join(str(one["steps"]) for one in ways[way]["trainings"]) if way in ways else "0"
        network = ways[first["against"]]["network"]
        line = [f"{target}, n = {count(first['n'])}{groups}", network, first["label"], steps]
        for row in found:
            gap = [signed(row[key]) for key in ("difference", "difference_low", "difference_high")]
            against = "" if row["against"] == way else f"; {gap[0]} ({gap[1]} to {gap[2]})"
            labels = f"{count(row['budget'])}: " if row["budget"] != content["rows"][0]["budget"] else ""
            line.append(f"{labels}{number(row['value'])} ({interval(row['low'], row['high'])}){against}")
        lines.append(line)
    header = ["Target", "Network", "Pretraining", "Steps", f"{count(content['rows'][0]['budget'])} labels"]
    if len(lines[0]) > len(header):
        header.append("All labels")
    times = content["pretraining_seeds"]
    note = (
        f"{content['about'][0].upper()}{content['about'][1:]}. Test AUROC of a linear probe; {content['label_seeds']} "
        f"draws of labels, {times} pretraining{'' if times == 1 else 's'} of {content['seconds']:g} s of "
        "the processor each; after the semicolon the paired difference to the first of the same network. 95 % "
        "intervals."
    )
    return f"{markdown_table(header, lines)}\n\n{note} {_told_apart(content['rows'])}"


def _told_apart(rows: list[JSON]) -> str:
    """Which differences to the first of the same network an interval holds apart from 0, and out of how many."""
    compared = [row for row in rows if row["against"] != row["way"]]
    apart = [row for row in compared if row["difference_low"] > 0 or row["difference_high"] < 0]
    named = [
        f"{row['label']} ({row['target']}, {count(row['budget'])} labels: {signed(row['difference'])})"
        for row in apart
    ]
    told = f"{count(len(apart))} {'is' if len(apart) == 1 else 'are'}" if apart else "none is"
    words = f"Of {count(len(compared))} differences {told} told from 0"
    return f"{words}: {'; '.join(named)}." if named else f"{words}."


def objectives(content: JSON | None) -> str:
    """Every listed objective with its paper, and what equal compute gave."""
    from fewlabel.objectives import OBJECTIVES

    listed = markdown_table(["Objective", "Paper"], [[f"`{one.name}`", one.paper] for one in OBJECTIVES])
    return f"{listed}\n\n{compared_encoders(content)}"


def over_steps(content: JSON) -> str:
    """Few labels while pretraining goes on: what `few_labels_over_steps.py` measured."""
    few = min(row["labels"] for rows in content["variants"].values() for row in rows)
    kinds = [("one", "chosen", few), ("own", "chosen", few), ("own", "C = 1", few), ("one", "chosen", None)]
    names = ["one scale, strength chosen", "own scales, strength chosen", "own scales, C = 1"]
    header = ["Step", *(f"{few} labels, {name}" for name in names), "all labels, one scale, strength chosen"]
    parts = [
        "## Few labels over pretraining steps",
        f"{content['about']}; {content['draws']} draws of {few} labels, one pretraining. AUROC on validation / on "
        "test, for explanation; nothing is chosen on test. Made by `python benchmarks/few_labels_over_steps.py`.",
    ]
    for variant, rows in content["variants"].items():
        cells: dict[int, list[str]] = {}
        for scaling, strength, labels in kinds:
            for row in rows:
                right = row["labels"] == labels if labels else row["labels"] != few
                if right and (row["scaling"], row["strength"]) == (scaling, strength):
                    cells.setdefault(row["step"], []).append(f"{row['val']:.3f} / {row['test']:.3f}")
        parts += [
            f"**{variant}**",
            markdown_table(header, [[count(step), *line] for step, line in sorted(cells.items())]),
        ]
    return "\n\n".join(parts)


def initial_weights(content: JSON) -> str:
    """Residual blocks that start closed or open: what `initial_weights.py` measured."""
    rows = content["rows"]
    lines = []
    for steps, start in sorted({(row["steps"], row["start"]) for row in rows}):
        found = [row for row in rows if (row["steps"], row["start"]) == (steps, start)]
        cells = [
            " / ".join(f"{row[key]:.{digits}f}" for row in found)
            for key, digits in (("loss", 2), ("auroc_few", 3), ("auroc_all", 3))
        ]
        lines.append([count(steps), start, *cells])
    header = [
        "Steps",
        "Blocks start",
        "Loss at the end",
        f"AUROC, {content['few']} labels",
        "AUROC, all labels",
    ]
    about = f"{content['about']}; one figure a seed. Made by `python benchmarks/initial_weights.py`."
    return "\n\n".join(["## Initial weights", about, markdown_table(header, lines)])


FURTHER: dict[str, Callable[[JSON], str]] = {
    "few-labels-over-steps": over_steps,
    "initial-weights": initial_weights,
    "retrieval-protocol-nih-weak-text": protocol,
    "metric-learning-nih-chest-xray": metric_learning,
    "metric-learning-mednist-64": metric_learning,
    "semi-supervised-pneumoniamnist": semi_supervised,
}
"""Result files that are no jobs of `main_job.py`, and what makes their part of the page."""


def _retrieval(folder: Path) -> str:
    return retrieval_page.retrieval(read_study(folder / f"{retrieval_page.NAME}.json"))


def _anomaly(folder: Path) -> str:
    found = [read_study(folder / f"anomaly-{name}.json") for name in ANOMALIES]
    return anomaly([content for content in found if content])


BLOCKS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "docs/search.md": ("retrieval", _retrieval),
    "docs/anomalies.md": ("anomaly", _anomaly),
}
"""Pages written by hand with one block of tables: its name, and what makes it of the folder of results."""


def page(results: dict[str, Result], further: Sequence[str] = ()) -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        "Made by `make results` from `benchmarks/results`; not to be edited by hand. Each line of `main_job.py` that "
        "made them: `python benchmarks/main_job.py NAME`. Brackets hold 95 % intervals from a bootstrap over patients "
        "and seeds. Differences are paired; p is two-sided. `random init` is the same network with random weights: "
        "what it reaches needs no pretraining. `six statistics` sees no anatomy.",
        summary(results),
        *(section(result) for result in results.values()),
        *further,
    ]
    return "\n\n".join(parts) + "\n"


def section(result: Result) -> str:
    """Everything on one job."""
    if not result.measured:
        return f"## {result.name}\n\n{NOT_MEASURED.capitalize()}."
    raw, data = result.raw, result.raw["data"]
    labels = {arm["key"]: arm["label"] for arm in raw["arms"]}
    header = ["Labels", *(labels.values())]
    rows = [[count(b), *(result.value(arm, b) for arm in labels)] for b in result.budgets]
    others = [key for key in labels if key != "simclr"]
    gaps = [[count(b), *(result.difference(key, b) for key in others)] for b in result.budgets]
    facts = (
        f"{raw['about'][0].upper()}{raw['about'][1:]}. {count(data['images'])} images; "
        f"tested on {result.tested()}; {count(data['train'])} training and {count(data['val'])} validation labels; "
        f"{count(data['pretraining_images'])} images pretrained on; split: {data['split']}."
    )
    warnings = "\n".join(f"- {text}" for text in raw["warnings"])
    referable: list[str] = []
    if raw["target"]["kind"] == "ordinal":
        found = [
            [count(b), *(result.value(arm, b, "auroc_referable") for arm in labels)] for b in result.budgets
        ]
        about = f"AUROC of referable, {raw['target']['referable']} or more:"
        referable = [about, markdown_table(header, found)]
    parts = [
        f"## {result.name}",
        facts,
        result.saved(),
        f"{result.measure[0].upper()}{result.measure[1:]}:",
        markdown_table(header, rows),
        *referable,
        "SimCLR's linear probe minus the others:",
        markdown_table(["Labels", *(labels[key] for key in others)], gaps),
        f"Warnings of the run:\n\n{warnings}" if warnings else "The run gave no warning.",
        f"Settings: `{json.dumps(raw['settings'].get('pretraining', {}), sort_keys=True)}`",
    ]
    return "\n\n".join(parts)


def digest(result: Result) -> str:
    """Of all that the figure shows; it stands in the figure, so that --check need not draw."""
    shown = [result.cells[key] for key in sorted(result.cells) if key[0] == result.raw["metric"]]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def figure(result: Result) -> str:
    """SVG of the main measure over the number of labels, with 95 % bands."""
    pyplot = pyplot_for_svg()
    styles = looks(result.raw["arms"])
    canvas, axes = pyplot.subplots(figsize=(8, 4.4), layout="constrained")
    for arm in DRAWN:
        cells = [result.cells.get((result.raw["metric"], arm, budget)) for budget in result.budgets]
        points = [(cell["budget"], cell["value"], cell["low"], cell["high"]) for cell in cells if cell]
        if not points:
            continue
        x, y, low, high = zip(*points, strict=True)
        look = styles[arm]
        axes.fill_between(x, low, high, color=look.ink, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=look.ink, linestyle=look.linestyle, marker=look.marker, ms=5, label=ARMS[arm])
    axes.set_xscale("log")
    axes.set_xticks(result.budgets, [count(budget) for budget in result.budgets])
    axes.minorticks_off()
    axes.set_xlabel("labelled training images")
    axes.set_ylabel(f"test {result.metric}")
    axes.grid(axis="y", color=LIGHT["line"], linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return as_svg(canvas, digest(result))


def with_block(text: str, name: str, content: str, page: str = "README.md") -> str:
    """The text with what stands between <!-- name:begin --> and <!-- name:end --> replaced."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise FewlabelError(f"{page} needs {begin} and {end} once each, in this order: put them back.")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def made(root: Path) -> dict[str, str]:
    """What each file should hold, by its path below the project; the figure only where it has to be drawn."""
    results = read_results(root / "benchmarks" / "results")
    readme = (root / "README.md").read_text(encoding="utf-8")
    studies = {name: read_study(root / "benchmarks" / "results" / f"{name}.json") for name in STUDIES}
    pairs = [read_study(root / "benchmarks" / "results" / f"image-text-{name}.json") for name in PAIRS]
    measured = [one for one in pairs if one]
    blocks = {
        "results": first_screen(results),
        "tables": summary(results, short=True),
        "recipe": recipe(results),
        "sizes": encoder_sizes(read_study(root / "benchmarks" / "results" / "encoder-sizes.json")),
        "objectives": objectives(studies["objectives"]),
        "image-text": image_text_short(measured),
        "positives": "\n\n".join(
            compared_encoders(studies[name]) for name in STUDIES if name != "objectives"
        ),
    }
    for name, content in blocks.items():
        readme = with_block(readme, name, content)
    paths = {name: root / "benchmarks" / "results" / f"{name}.json" for name in FURTHER}
    further = [
        FURTHER[name](json.loads(path.read_text(encoding="utf-8")))
        for name, path in paths.items()
        if path.exists()
    ]
    further += [image_text(measured)] if measured else []
    files = {"README.md": readme, "docs/results.md": page(results, further)}
    folder = root / "benchmarks" / "results"
    found = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in PARTS
        if (folder / f"{name}.json").exists()
    }
    files["docs/performance.md"] = performance(found)
    for path, (name, make) in BLOCKS.items():
        if (root / path).exists():
            files[path] = with_block((root / path).read_text(encoding="utf-8"), name, make(folder), path)
    for name in FIGURES.keys() & found.keys():
        path = f"docs/figures/{name}.svg"
        if not is_drawn(root / path, json_digest(found[name])):
            files[path] = FIGURES[name](found[name])
    first = results[SHOWN_FIRST]
    if first.measured and not is_drawn(root / FIGURE, digest(first)):
        files[FIGURE] = figure(first)
    return files


def is_drawn(path: Path, wanted: str) -> bool:
    """Whether the figure was drawn from these results."""
    return path.is_file() and re.search(rf"\b{wanted}\b", path.read_text(encoding="utf-8")) is not None


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write, or with --check compare. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if something is not up to date"
    )
    check = parser.parse_args(arguments).check
    try:
        files = made(root)
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    paths = {root / name: text for name, text in files.items()}
    stale = [p for p, text in paths.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(root)} {'is not up to date: run make results' if check else 'written'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".part")
            temporary.write_text(paths[path], encoding="utf-8")
            os.replace(temporary, path)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
