"""Does a bigger network gain more with fewer labels, and does its small student keep that? SimCLRv2's claims, asked.

    python benchmarks/main_job.py nih-chest-xray-simclr-v2-resnet18 nih-chest-xray-simclr-v2-resnet50
    python benchmarks/encoder_sizes.py > benchmarks/results/encoder-sizes.json

Nothing is trained: what the runs of `main_job.py` answered on the test images, which they keep in the work folder, is
compared, with the same draws of labels and the same resamples of patients. Each network was pretrained once, so that an
interval holds the chance of patients and labels, and not that of pretrainings. Collections of which a run is missing
are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from main_job import (
    JOBS,
    RECIPE_DATA,
    RECIPE_NETWORKS,
    ROOT,
    SOURCES,
    data_folder,
    encoder_folder,
    import_source,
)

from fewlabel.evaluation.intervals import Bootstrap, bootstrap, draw_resamples, paired_difference
from fewlabel.evaluation.label_efficiency import metric_suite
from fewlabel.pipeline.arms import load_outputs
from fewlabel.pipeline.evaluating import labelled_rows, rows_of_budgets
from fewlabel.pipeline.runs import read_split
from fewlabel.types import JSON, FewlabelError

SMALL, BIG = RECIPE_NETWORKS
TUNED, STUDENT, SCRATCH = "finetune-head", "distilled", "supervised"


@dataclass(frozen=True)
class Comparison:
    """One network minus another: network and arm of each, as of the run of `main_job.py`."""

    key: str
    minuend: tuple[str, str]
    subtrahend: tuple[str, str]


COMPARISONS = (
    Comparison("scratch", (BIG, SCRATCH), (SMALL, SCRATCH)),
    Comparison("tuned", (BIG, TUNED), (SMALL, TUNED)),
    Comparison("student", (BIG, STUDENT), (BIG, TUNED)),
    Comparison("same-size", (BIG, STUDENT), (SMALL, TUNED)),
)
"""The bigger network minus the smaller one, from scratch and fine-tuned; the bigger one's student, which is as small as
the smaller one, minus the bigger one fine-tuned, and minus the smaller one fine-tuned."""


def compare(answers: dict[tuple[str, str], list[Bootstrap]], budgets: Sequence[int]) -> list[JSON]:
    """A row for each comparison and budget, and one, without a budget, of the first budget's minus the last one's.

    answers: by network and arm, the measure at each budget, all of the same resamples.
    """
    rows = []
    for one in COMPARISONS:
        pairs = list(zip(answers[one.minuend], answers[one.subtrahend], strict=True))
        for budget, (a, b) in zip(budgets, pairs, strict=True):
            rows.append({"key": one.key, "budget": budget, **_told(a, b)})
        rows.append({"key": one.key, "budget": None, **_told(_minus(*pairs[0]), _minus(*pairs[-1]))})
    return rows


def _minus(a: Bootstrap, b: Bootstrap) -> Bootstrap:
    """The difference as a measure of its own; its seeds are those of both, which are the same draws of labels."""
    seeds = a.seed_values - b.seed_values
    return replace(a, value=a.value - b.value, seed_values=seeds, draws=a.draws - b.draws)


def _told(a: Bootstrap, b: Bootstrap) -> JSON:
    found = paired_difference(a, b)
    numbers = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    return {**{name: round(number, 5) for name, number in numbers.items()}, "n": a.n, "patients": a.patients}


def run_data(name: str, work: Path) -> JSON | None:
    """The rows of one collection; None where a run is missing."""
    jobs = {network: JOBS[f"{name}-simclr-v2-{network}"] for network in RECIPE_NETWORKS}
    folders = {network: encoder_folder(f"{name}-simclr-v2-{network}", JOBS, work) for network in jobs}
    if not all((folder / "results.json").exists() for folder in folders.values()):
        return None
    collection = import_source(name, data_folder(), work)
    first = jobs[SMALL].evaluation
    target = first.target_in(collection)
    split, other = (read_split(folders[network] / "split.csv", collection) for network in (SMALL, BIG))
    if split is None or other is None or not np.array_equal(split.test, other.test):
        raise FewlabelError(
            f"The runs on {name} were not tested on the same images of it: run both jobs again."
        )
    labelled = labelled_rows(collection, target, split, first)
    train, test = labelled.train, labelled.test
    patients = collection.patients()
    budgets = [*(first.budgets or ()), len(train)]
    suite = metric_suite(target.kind)
    resamples = draw_resamples(patients[test], seed=0, warn=False)

    def measured(network: str, arm: str, budget: int) -> Bootstrap:
        seeds = []
        for seed in range(first.seeds):
            rows = rows_of_budgets(train, target.values, patients, budgets, seed)[budget]
            kept = load_outputs(folders[network] / "outputs", arm, rows, seed)
            if kept is None or len(kept.test) != len(test):
                raise FewlabelError(
                    f"{folders[network]} does not hold what {arm} answered: run its job again."
                )
            seeds.append(kept.test)
        return bootstrap(suite.measures[suite.main], target.values[test], np.stack(seeds), resamples)

    asked = {pair for one in COMPARISONS for pair in (one.minuend, one.subtrahend)}
    answers = {pair: [measured(*pair, budget) for budget in budgets] for pair in asked}
    return {
        "data": name,
        "about": RECIPE_DATA[name][0],
        "groups": SOURCES[name].groups,
        "metric": suite.labels[suite.main],
        "seeds": first.seeds,
        "budgets": budgets,
        "rows": compare(answers, budgets),
    }


def main() -> int:
    """Print JSON. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work", help="where `main_job.py` keeps its runs"
    )
    work = parser.parse_args().work
    try:
        found = [one for one in (run_data(name, work) for name in RECIPE_DATA) if one]
        if not found:
            raise FewlabelError(
                f"No collection in {work} has runs of both networks: see --help for what makes them."
            )
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    networks = {"small": SMALL, "big": BIG, "student": RECIPE_NETWORKS[BIG]}
    print(json.dumps({"benchmark": "encoder_sizes", "networks": networks, "data": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
