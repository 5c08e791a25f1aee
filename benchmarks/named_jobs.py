"""The command line of benchmarks whose jobs have names, a small version and one result file each."""

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
    about: str | None,
    prefix: str,
    jobs: Mapping[str, Job],
    quick: Callable[[Job], Job],
    run_job: Callable[[str, Job, Path], JSON],
    arguments: list[str] | None,
) -> int:
    """Run the jobs named on the command line, each to <prefix>-<name>.json. Returns the exit status.

    about: the script's docstring. quick: the small version of a job. run_job(name, job, work): the file's content; work
    is a folder.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=jobs)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--work", type=Path, default=ROOT / ".work", help="what is trained is kept here")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    work: Path = given.work / "quick" if given.quick else given.work
    results = work / "results" if given.quick else given.results
    try:
        data_folder()
        work.mkdir(parents=True, exist_ok=True)
        (given.work / ".gitignore").write_text("*\n")
        for name in given.names:
            job, facts = quick(jobs[name]) if given.quick else jobs[name], machine_facts()
            path = results / f"{prefix}-{name}.json"
            write_text(path, json.dumps({**run_job(name, job, work), **facts}, indent=1) + "\n")
            print(path)
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
