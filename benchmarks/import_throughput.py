"""How fast `import_images` reads, beside a plain decode of the same files one after the other; prints JSON.

    python benchmarks/import_throughput.py
    python benchmarks/import_throughput.py --data ../shared/data/nih-chest-xray/images

`ratio` is how many times the speed of that plain decode by Pillow the import reaches, with decoding in several
processes, hashing, thumbnails, the search for duplicates and everything written to disk. Files come from the page
cache, since both read them several times.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
from machine import PeakMemory, machine_facts

from fewlabel.collection import import_images
from fewlabel.phantoms import write_radiographs
from fewlabel.types import JSON, FewlabelError


def decodable(folder: Path) -> list[Path]:
    """The files that Pillow can decode: both sides are measured on these. Raises FewlabelError for none."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            with PIL.Image.open(path) as image:
                image.load()
        except OSError:
            continue
        found.append(path)
    if not found:
        raise FewlabelError(
            f"{folder} holds no file that Pillow decodes: give a folder of PNG or JPEG files."
        )
    return found


def plain_decode(files: list[Path]) -> float:
    """Seconds to decode all files, one after the other."""
    started = time.perf_counter()
    for path in files:
        with PIL.Image.open(path) as image:
            np.asarray(image)
    return time.perf_counter() - started


def cpu_seconds() -> float:
    """CPU seconds of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def one_import(source: Path, to: Path, workers: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a fresh import, which is thrown away."""
    started, used = time.perf_counter(), cpu_seconds()
    import_images(source, to, workers=workers)
    seconds, used = time.perf_counter() - started, cpu_seconds() - used
    shutil.rmtree(to)
    return seconds, used


def measure(given: argparse.Namespace, scratch: Path) -> JSON:
    """All rounds; which of the two goes first changes from round to round."""
    facts = machine_facts()
    source = scratch / "source"
    if given.data:
        source.mkdir()
        for number, path in enumerate(decodable(given.data)):
            shutil.copyfile(path, source / f"{number:06d}{path.suffix}")
    else:
        write_radiographs(source, given.count, size_px=given.size, dicom_files=0)
        (source / "labels.csv").unlink()
    files = decodable(source)
    plain_decode(files)
    workers = given.workers or facts["usable_cores"]
    imports, decodes = [], []
    with PeakMemory() as memory:
        for number in range(given.rounds):
            for which in ("import", "decode") if number % 2 == 0 else ("decode", "import"):
                if which == "import":
                    imports.append(one_import(source, scratch / "collection", workers))
                else:
                    decodes.append(plain_decode(files))
    speeds = [len(files) / seconds for seconds, _ in imports]
    seconds, used = sum(one[0] for one in imports), sum(one[1] for one in imports)
    return {
        "benchmark": "import_throughput",
        "settings": {"count": len(files), "rounds": given.rounds, "workers": workers},
        "images": "a folder" if given.data else f"made, {given.size} px",
        "images_per_second": round(statistics.median(speeds), 1),
        "images_per_second_rounds": [round(speed, 1) for speed in speeds],
        "seconds": round(seconds, 3),
        "computing_seconds": round(used, 3),
        "waiting_seconds": round(max(0.0, seconds - used / workers), 3),
        "meaning": "computing: CPU seconds of all processes; waiting: time in which the workers did not compute",
        "plain_images_per_second": round(len(files) / statistics.median(decodes), 1),
        "plain_images_per_second_rounds": [round(len(files) / one, 1) for one in decodes],
        "ratio": round(statistics.median(d / i for d, (i, _) in zip(decodes, imports, strict=True)), 3),
        **memory.facts(),
        **facts,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure as the command line says and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a folder of PNG or JPEG files; made images by default")
    parser.add_argument("--count", type=int, default=1000, help="how many made images")
    parser.add_argument("--size", type=int, default=256, help="side of the made images in pixels")
    parser.add_argument("--workers", type=int, help="processes; all usable cores by default")
    parser.add_argument("--rounds", type=int, default=4)
    with tempfile.TemporaryDirectory(prefix="fewlabel-") as scratch:
        print(json.dumps(measure(parser.parse_args(arguments), Path(scratch)), indent=1))


if __name__ == "__main__":
    main()
