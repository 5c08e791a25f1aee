"""The command line of benchmarks whose jobs have names: each job gives the content of one result file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from machine import machine_facts
from main_job import RESULTS, ROOT, data_folder

from fewlabel.files import write_text
from fewlabel.types import JSON, FewlabelError

Job = TypeVar("Job")


def run_named(
    arguments: list[str] | None,
    description: str | None,
    prefix: str,
    jobs: Mapping[str, Job],
    quick: Callable[[Job], Job],
    run: Callable[[str, Job, Path], JSON],
) -> int:
    """Run the jobs named on the command line and write `prefix`-NAME.json each. Returns the exit status.

    quick: the same job, small. run(name, job, work folder): the content. Small ones' results stay in the work folder.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=jobs)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work", help="collections and runs are kept here"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    work: Path = given.work / "quick" if given.quick else given.work
    results = work / "results" if given.quick else given.results
    try:
        data_folder()
        work.mkdir(parents=True, exist_ok=True)
        (given.work / ".gitignore").write_text("*\n")
        for name in given.names:
            facts = machine_facts()
            content = {**run(name, quick(jobs[name]) if given.quick else jobs[name], work), **facts}
            write_text(results / f"{prefix}-{name}.json", json.dumps(content, indent=1) + "\n")
            print(results / f"{prefix}-{name}.json")
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
