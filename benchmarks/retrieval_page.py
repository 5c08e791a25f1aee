"""The tables of docs/search.md, from the result file of benchmarks/retrieval.py."""

from __future__ import annotations

from performance_page import machine_of, markdown_table

from fewlabel.report.words import count
from fewlabel.types import JSON

NAME = "retrieval"


def retrieval(content: JSON | None) -> str:
    """What the index takes and finds at each size, beside bare FAISS and scikit-learn."""
    if content is None:
        return "Not measured yet."
    parts = [
        f"Made vectors of {content['dim']} numbers; the {content['k']} nearest of {_queries(content)} queries that the "
        "index does not hold. Recall is the share of the true nearest that were found. Latency: one query at a time, "
        "median / 99th percentile.",
        markdown_table(
            [
                "Vectors",
                "",
                "Build",
                "Open",
                "Disk",
                "Recall@10",
                "With a filter, first / then",
                "Adding, a step",
            ],
            [_own(row) for row in content["rows"]],
        ),
        markdown_table(
            ["Vectors", "Engine", "Memory, MiB", "Latency, ms", "Queries/s in batches"],
            [_engine(row, name) for row in content["rows"] for name in row["engines"]],
        ),
        *_adding(content["rows"]),
        machine_of(content, NAME),
    ]
    return "\n\n".join(parts)


def _queries(content: JSON) -> str:
    return count(content["rows"][0]["engines"]["fewlabel"]["queries"])


def _size(row: JSON) -> str:
    return f"{count(row['count'])}, {row['kind']}"


def _own(row: JSON) -> list[str]:
    filtered, adding = row["filtered"], row["while_adding"]
    return [
        _size(row),
        row["by"],
        f"{row['build_seconds']:.1f} s, {count(row['build_memory_mib'])} MiB",
        f"{row['open_seconds']:.2f} s",
        f"{row['disk_mib']:,.0f} MiB",
        f"{row['recall_at_10']:.3f}",
        f"{filtered['first_ms']:,.0f} / {filtered['median_ms']:.1f} ms",
        f"{adding['seconds_a_step']:.2f} s",
    ]


def _engine(row: JSON, name: str) -> list[str]:
    found = row["engines"][name]
    return [
        _size(row),
        name,
        f"{found['memory_mib']:,.0f}",
        f"{found['median_ms']:.2f} / {found['p99_ms']:.2f}",
        f"{found['queries_per_second']:,.0f}",
    ]


def _adding(rows: list[JSON]) -> list[str]:
    """A sentence for each size on searching while another process adds."""
    return [
        f"{_size(row)}: while another process added {row['while_adding']['steps']} times "
        f"{count(row['while_adding']['added'])} cases, a search took {row['while_adding']['median_ms']:.1f} ms (99th "
        f"percentile {row['while_adding']['p99_ms']:.1f}); {row['while_adding']['states_seen']} states were seen."
        for row in rows
    ]
