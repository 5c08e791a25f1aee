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
        f"Made vectors of {content['dim']} numbers; the {content['k']} nearest of queries that the index does not "
        "hold. Recall is the share of the true nearest that were found. Latency: one query at a time, median / 99th "
        "percentile.",
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
            ["Vectors", "Engine", "Memory, MiB", "Queries", "Latency, ms", "Queries/s in batches"],
            [_engine(row, name) for row in content["rows"] for name in row["engines"]],
        ),
        *(_adding(row) for row in content["rows"]),
        machine_of(content, NAME),
    ]
    return "\n\n".join(parts)


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
        count(found["queries"]),
        f"{found['median_ms']:.2f} / {found['p99_ms']:.2f}",
        f"{found['queries_per_second']:,.0f}",
    ]


def _adding(row: JSON) -> str:
    """A sentence on searching while another process adds."""
    found = row["while_adding"]
    return (
        f"{_size(row)}: while another process added {found['steps']} times {count(found['added'])} cases, a search "
        f"took {found['median_ms']:.1f} ms (99th percentile {found['p99_ms']:.1f}), and the longest of these steps "
        f"{found['longest_step_seconds']:.1f} s; {found['states_seen']} states were seen."
    )
