"""The index of cases over N: build, memory, recall, latency, beside bare FAISS and scikit-learn; prints JSON.

    python benchmarks/retrieval.py > benchmarks/results/retrieval.json
    python benchmarks/retrieval.py --quick

Vectors are made: 128 numbers that lie around centres of unequal weight, each within a few directions of its own, as
features of a trained network do; queries are further ones of the same kind, which the index does not hold. Also noise
without any structure, the worst case of a graph. Engines are asked in turns in one process; memory is that of a process
that holds one engine alone. While a process adds cases, another one searches.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import PeakMemory, machine_facts

from fewlabel.search import FolderIndex, Origin, unit
from fewlabel.search import vectors as search_vectors
from fewlabel.types import JSON

DIM, K, QUERIES, BATCH, STEP = 128, 10, 1000, 256, 50_000
WHERE = "view = 'PA' AND age > 60"
ADDED, STEPS_ADDED = 1000, 10
TURNS, BATCH_TURNS = 20, 3
SLOW_QUERIES = 200
"""Of scikit-learn, which takes about a second for one."""
Ask = Callable[[np.ndarray], np.ndarray]


def made(kind: str, count: int, seed: int) -> np.ndarray:
    """Unit vectors (count, DIM): "clustered" or "noise"; the clusters are the same for every seed."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return unit(rng.normal(size=(count, DIM)).astype(np.float32))
    fixed = np.random.default_rng(0)
    centres = fixed.normal(size=(500, DIM)).astype(np.float32)
    directions = fixed.normal(size=(500, 12, DIM)).astype(np.float32) / np.sqrt(12)
    weights = fixed.pareto(1.5, size=500) + 0.1
    whose = rng.choice(500, size=count, p=weights / weights.sum())
    found = np.empty((count, DIM), np.float32)
    for start in range(0, count, 10_000):
        part = whose[start : start + 10_000]
        within = np.einsum("nd,ndk->nk", rng.normal(size=(len(part), 12)), directions[part])
        found[start : start + 10_000] = centres[part] + within + 0.1 * rng.normal(size=within.shape)
    return unit(found)


def facts(start: int, stop: int) -> pa.Table:
    """Facts on made cases: three a patient."""
    rows = range(start, stop)
    return pa.table(
        {
            "case_id": [f"images/{i:08d}.png" for i in rows],
            "patient_id": [f"P{i // 3:07d}" for i in rows],
            "view": ["PA" if i % 2 else "AP" for i in rows],
            "age": [float(i * 7 % 90) for i in rows],
            "pixel_hash": [f"{i:064x}" for i in rows],
            "facts_hash": [f"{i:016x}" for i in rows],
        }
    )


def build(folder: Path, vectors: np.ndarray) -> FolderIndex:
    """As `fewlabel index` does it, in steps."""
    origin = Origin("made", "run", "none", "made", DIM, size_px=0, store_px=0, channels=1, max_side_px=0)
    index = FolderIndex.begin(folder, origin)
    for start in range(0, len(vectors), STEP):
        part = vectors[start : start + STEP]
        index.change(add=(part, facts(start, start + len(part))))
    return index


def in_turns(engines: dict[str, Ask], queries: np.ndarray, asked: dict[str, int]) -> dict[str, JSON]:
    """Latency of one query at a time, `asked` queries of each engine, and throughput in batches.

    Engines take turns, each with a share of its queries in a row and one before them that does not count: what the
    others have left in the caches, and their threads, would else be measured.
    """
    taken: dict[str, list[float]] = {name: [] for name in engines}
    batches: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(TURNS):
        for name, ask in engines.items():
            mine = queries[: asked[name]][turn::TURNS]
            ask(mine[:1])
            taken[name] += [1000 * _seconds(ask, mine[row : row + 1]) for row in range(len(mine))]
    for _ in range(BATCH_TURNS):
        for name, ask in engines.items():
            ask(queries[:BATCH])
            batches[name].append(_seconds(ask, queries[:BATCH]))
    return {
        name: {
            "median_ms": round(statistics.median(taken[name]), 3),
            "p99_ms": round(float(np.percentile(taken[name], 99)), 3),
            "queries": len(taken[name]),
            "queries_per_second": round(len(queries[:BATCH]) / statistics.median(batches[name]), 1),
        }
        for name in engines
    }


def _seconds(ask: Ask, queries: np.ndarray) -> float:
    started = time.perf_counter()
    ask(queries)
    return time.perf_counter() - started


def engines_of(folder: Path, vectors: np.ndarray) -> tuple[FolderIndex, dict[str, Ask]]:
    """Ours, FAISS's flat index and scikit-learn's brute force, each from queries (Q, DIM) to rows (Q, K)."""
    from sklearn.neighbors import NearestNeighbors

    index = FolderIndex.open(folder)
    flat = search_vectors.scan_of(DIM, vectors)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(vectors)
    return index, {
        "fewlabel": lambda queries: index.search(queries, K)[1],
        "FAISS flat": lambda queries: flat.search(queries, K)[1],
        "scikit-learn": lambda queries: brute.kneighbors(queries, return_distance=False),
    }


def memory_of(engine: str, folder: Path, vectors: Path, exact: int) -> float:
    """MiB by which resident memory of a process grows that opens one engine and asks it once."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import retrieval, numpy as np; from pathlib import Path; from machine import PeakMemory\n"
        "retrieval.search_vectors.EXACT = int(sys.argv[5])\n"
        "print(retrieval.memory_here(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))"
    )
    here = str(Path(__file__).parent)
    told = subprocess.check_output(
        [sys.executable, "-c", code, here, engine, str(folder), str(vectors), str(exact)], text=True
    )
    return round(float(told), 1)


def memory_here(engine: str, folder: Path, vectors: Path) -> float:
    """What `memory_of` measures, in this process."""
    from sklearn.neighbors import NearestNeighbors

    asked = np.load(vectors, mmap_mode="r", allow_pickle=False)[:1]
    with PeakMemory() as memory:
        if engine == "fewlabel":
            FolderIndex.open(folder).search(np.array(asked), K)
        else:
            loaded = np.load(vectors, allow_pickle=False)
            if engine == "FAISS flat":
                flat = search_vectors.scan_of(DIM, loaded)
                del loaded
                flat.search(np.array(asked), K)
            else:
                brute = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(loaded)
                brute.kneighbors(asked)
    return memory.peak_mib - memory.start_mib


def filtered(index: FolderIndex, queries: np.ndarray) -> JSON:
    """Searches with a filter, and with a patient left out: the first one, which hands columns to SQLite, and others."""
    times = []
    for query in queries[:50]:
        started = time.perf_counter()
        hits = index.nearest(query, K, where=WHERE, without_patient="P0000001")
        times.append(1000 * (time.perf_counter() - started))
        assert all(hit.facts["view"] == "PA" and hit.facts["age"] > 60 for hit in hits)
    others = statistics.median(times[1:])
    return {"where": WHERE, "first_ms": round(times[0], 1), "median_ms": round(others, 2)}


def while_adding(folder: Path, kind: str, count: int, queries: np.ndarray, exact: int) -> JSON:
    """A process adds `STEPS_ADDED` times `ADDED` cases; this one searches and follows."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import retrieval; from pathlib import Path\n"
        "retrieval.search_vectors.EXACT = int(sys.argv[5])\n"
        "retrieval.add(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
    )
    here = str(Path(__file__).parent)
    index = FolderIndex.open(folder)
    writer = subprocess.Popen(
        [sys.executable, "-c", code, here, str(folder), kind, str(count), str(exact)],
        stdout=subprocess.PIPE,
        text=True,
    )
    asked, refreshed, sizes = [], [], {len(index)}
    while writer.poll() is None:
        for query in queries[:20]:
            started = time.perf_counter()
            index.nearest(query, K)
            asked.append(1000 * (time.perf_counter() - started))
        started = time.perf_counter()
        index.refresh()
        refreshed.append(1000 * (time.perf_counter() - started))
        sizes.add(len(index))
    assert writer.stdout is not None
    seconds = json.loads(writer.stdout.read())
    return {
        "added": ADDED,
        "steps": STEPS_ADDED,
        "seconds_a_step": round(statistics.median(seconds), 3),
        "longest_step_seconds": round(max(seconds), 3),
        "states_seen": len(sizes),
        "median_ms": round(statistics.median(asked), 3),
        "p99_ms": round(float(np.percentile(asked, 99)), 3),
        "longest_refresh_ms": round(max(refreshed), 1),
    }


def add(folder: Path, kind: str, count: int) -> None:
    """The writer of `while_adding`; prints how long each step took."""
    vectors, seconds = made(kind, ADDED * STEPS_ADDED, seed=2), []
    index = FolderIndex.open(folder)
    for step in range(STEPS_ADDED):
        start = step * ADDED
        started = time.perf_counter()
        index.change(add=(vectors[start : start + ADDED], facts(count + start, count + start + ADDED)))
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


def measure(kind: str, count: int, exact: int) -> JSON:
    """All figures at one size."""
    search_vectors.EXACT = exact
    scratch = Path(tempfile.mkdtemp(prefix="retrieval-"))
    try:
        return _measured(scratch, kind, count, exact)
    finally:
        shutil.rmtree(scratch)


def _measured(scratch: Path, kind: str, count: int, exact: int) -> JSON:
    folder, stored = scratch / "index", scratch / "vectors.npy"
    vectors, queries = made(kind, count, seed=1), made(kind, QUERIES, seed=3)
    np.save(stored, vectors, allow_pickle=False)
    with PeakMemory() as memory:
        started = time.perf_counter()
        build(folder, vectors)
        build_seconds = time.perf_counter() - started
    started = time.perf_counter()
    FolderIndex.open(folder)
    open_seconds = time.perf_counter() - started
    index, engines = engines_of(folder, vectors)
    asked = {name: min(QUERIES, SLOW_QUERIES) if name == "scikit-learn" else QUERIES for name in engines}
    timed = in_turns(engines, queries, asked)
    right, ours = engines["FAISS flat"](queries), engines["fewlabel"](queries)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, right, strict=True)])
    for name in engines:
        timed[name]["memory_mib"] = memory_of(name, folder, stored, exact)
    return {
        "kind": kind,
        "count": count,
        "by": "graph" if count > exact else "scan",
        "build_seconds": round(build_seconds, 1),
        "build_memory_mib": round(memory.peak_mib - memory.start_mib),
        "open_seconds": round(open_seconds, 2),
        "disk_mib": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
        "recall_at_10": round(float(recall), 4),
        "engines": timed,
        "filtered": filtered(index, queries),
        "while_adding": while_adding(folder, kind, count, queries, exact),
    }


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["clustered", "noise"], choices=["clustered", "noise"])
    parser.add_argument("--exact", type=int, default=search_vectors.EXACT, help="scan up to so many vectors")
    parser.add_argument("--quick", action="store_true", help="few vectors: to see that it runs")
    given = parser.parse_args()
    counts, exact = ([4000, 12_000], 8000) if given.quick else (given.counts, given.exact)
    started = machine_facts()
    rows = []
    for kind in given.kinds:
        for count in counts:
            rows.append(measure(kind, count, exact))
            print(f"{kind}, {count}: done", file=sys.stderr)
    setting = {
        "links": search_vectors.LINKS,
        "build_breadth": search_vectors.BUILD_BREADTH,
        "search_breadth": search_vectors.SEARCH_BREADTH,
    }
    print(
        json.dumps(
            {"benchmark": "retrieval", "dim": DIM, "k": K, **setting, "rows": rows, **started}, indent=1
        )
    )


if __name__ == "__main__":
    main()
