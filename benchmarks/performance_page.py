"""The page on speed and memory: docs/performance.md and its figure, from the result files of the benchmarks."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from fewlabel.report.style import LIGHT
from fewlabel.report.words import count
from fewlabel.types import JSON


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def side_of_zero(low: float, high: float, above: str, below: str, neither: str) -> str:
    """What to say of an interval above 0, below 0, or about 0."""
    return above if low > 0 else below if high < 0 else neither


def sides_with(labels: dict[int, str]) -> dict[str, str]:
    """By side: the numbers of labels with which it is told; labels: the side at each number of labels."""
    numbers: dict[str, list[str]] = {}
    for budget, side in labels.items():
        numbers.setdefault(side, []).append(count(budget))
    return {side: f"{side} with {' / '.join(at)}" for side, at in numbers.items()}


def pyplot_for_svg() -> Any:
    """matplotlib's pyplot, set to draw the same bytes every time."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "fewlabel", "svg.fonttype": "path", "font.size": 11})
    from matplotlib import pyplot

    return pyplot


def as_svg(canvas: Any, description: str) -> str:
    """A figure as SVG; the description, such as a digest of what it shows, stands in its metadata. Closes it."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Description": description})
    pyplot_for_svg().close(canvas)
    return stream.getvalue()


def performance(found: dict[str, JSON]) -> str:
    """docs/performance.md, from the result files that are there."""
    parts = [
        "# Performance",
        "Made by `make results` from `benchmarks/results`; not to be edited by hand. Ratios are against something that "
        "was measured in the same run, in turns, and mean more than the absolute figures. No GPU was at hand: nothing "
        "here was measured on one; the same scripts run there unchanged.",
    ]
    for name, words in PARTS.items():
        if name in found:
            parts += words(found[name])
            parts += (
                [f"![{words(found[name])[0].strip('# ')}](figures/{name}.svg)"] if name in FIGURES else []
            )
            parts.append(machine_of(found[name], name))
    if "pretrain-throughput" in found and "import-throughput" in found:
        parts += million(found["pretrain-throughput"], found["import-throughput"])
    return "\n\n".join(parts) + "\n"


def machine_of(content: JSON, name: str) -> str:
    """One line on where and how a result file was measured."""
    versions = f"torch {content['torch']}, Python {content['python']}"
    disturbed = " Something else was running; measure again." if content["disturbed"] else ""
    return (
        f"`{name}.json`: {content['usable_cores']} cores, {content['memory_gib']} GiB, {versions}.{disturbed}"
    )


def pretrain_part(content: JSON) -> list[str]:
    """How close `fit` comes to the bare network."""
    given = content["settings"]
    shares = ", ".join(
        f"{name}: {seconds:.3f} s" for name, seconds in content.get("seconds_a_step", {}).items()
    )
    return [
        "## Pretraining",
        f"{given['encoder']}, {given['size']} px, batch {given['batch']}: "
        f"{content['images_per_second']:.0f} images/s (two "
        f"views each), {content['ratio']:.3f} of forward, backward and optimizer alone on views that "
        f"lie ready "
        f"({content['bare_images_per_second']:.0f}). Waiting for data: "
        f"{100 * content['waiting_seconds'] / content['seconds']:.1f} % of the time. Peak memory "
        f"{content['peak_memory_mib']} MiB."
        + (f" A step of each setting on a small batch: {shares}." if shares else ""),
    ]


def peers_part(content: JSON) -> list[str]:
    """Beside lightly."""
    lines = [
        [
            f"{row['file_px']} px", f"{row['images_per_second']:.0f}",
            f"{row['lightly_images_per_second']:.0f}",
            f"{row['ratio']:.2f}", f"{100 * row['waiting']:.1f} %", f"{100 * row['lightly_waiting']:.1f} %",
            f"{row['import_images_per_second']:.0f}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    header = [
        "Files", "Fewlabel, images/s", "lightly, images/s", "Ratio", "Waiting", "lightly waiting",
        "Import once, images/s",
    ]  # fmt: skip
    about = (
        f"SimCLR, ResNet-18, views of {content['size_px']} px, batch {content['batch']}; lightly as its "
        f"README does it, with "
        f"{content['lightly_workers']} loader processes; {content['rounds']} rounds of "
        f"{content['steps']} steps in turns."
    )
    return [
        f"## Beside lightly, {content['lightly_workers']} loader processes",
        about,
        markdown_table(header, lines),
    ]


def contrast_part(content: JSON) -> list[str]:
    """Losses over N."""
    by_place = {(row["loss"], row["pairs"]): row for row in content["rows"]}
    names = list(dict.fromkeys(row["loss"] for row in content["rows"]))
    lines = []
    for pairs in sorted({row["pairs"] for row in content["rows"]}):
        cells = [by_place.get((name, pairs)) for name in names]
        lines.append(
            [
                count(pairs),
                *(f"{c['milliseconds']:,.1f} / {c['memory_mib']:,.0f}" if c else "-" for c in cells),
            ]
        )
    about = (
        f"Forward and backward of N pairs of {content['width']} numbers: milliseconds / MiB of memory "
        f"beyond what was there "
        "before. A dash: not run, since (2N)^2 numbers would not fit or were not of interest."
    )
    return ["## Contrastive losses over N", about, markdown_table(["N", *names], lines)]


def micro_part(content: JSON) -> list[str]:
    """Large batches in pieces."""
    lines = [
        [
            count(row["batch"]), count(row["micro_batch"]) if row["micro_batch"] else "-", str(row["peak_memory_mib"]),
            f"{ratio:.2f}", f"{row['images_per_second']:.0f}",
        ]
        for row, ratio in zip(content["rows"], content["memory_ratios"], strict=True)
    ]  # fmt: skip
    header = ["Batch", "Micro-batch", "Peak memory, MiB", "Ratio", "Images/s"]
    return ["## Large batches in micro-batches", "SimCLR, ResNet-18, 64 px.", markdown_table(header, lines)]


def features_part(content: JSON) -> list[str]:
    """Feature extraction."""
    (few, many), (small, large) = content["images"], content["peak_memory_mib"]
    return [
        "## Features",
        f"{content['encoder']}, {content['size_px']} px: {content['images_per_second']:.0f} images/s, "
        f"{content['ratio']:.3f} of the bare forward pass ({content['bare_images_per_second']:.0f}). Peak memory, the "
        f"map of the file aside, with {count(few)} images: {small} MiB; with {count(many)}: {large} MiB.",
    ]


def import_part(content: JSON) -> list[str]:
    """Import."""
    return [
        "## Import",
        f"{content['images_per_second']:.0f} images/s ({content['images']}), {content['ratio']:.2f} of "
        f"a plain loop that "
        "decodes and does nothing else: hashes, thumbnails, table and store are the rest.",
    ]


def scaling_part(content: JSON) -> list[str]:
    """How speed and memory change with the size of views, the batch and the number of images."""
    words = {"size_px": "Size of views, px", "batch": "Batch", "images": "Images"}
    parts = [
        "## How pretraining grows",
        f"SimCLR, ResNet-18; one thing is changed at a time, from {count(content['base']['images'])} images, "
        f"{content['base']['size_px']} px, batch {content['base']['batch']}.",
    ]
    for what, title in words.items():
        lines = [
            [
                count(row[what]), f"{row['images_per_second']:.0f}", f"{100 * row['waiting']:.1f} %",
                str(row["peak_memory_mib"]), row["compute"],
            ]
            for row in content["rows"]
            if row["changed"] == what
        ]  # fmt: skip
        parts.append(markdown_table([title, "Images/s", "Waiting", "Peak memory, MiB", "Setting"], lines))
    return parts


def quality_part(content: JSON) -> list[str]:
    """Who is how good after how many seconds: means over seeds, at the first look, at best, and at the end."""
    title = {"pneumoniamnist": "PneumoniaMNIST", "nih-chest-xray": "NIH chest X-rays"}[content["data"]]
    how = "side by side with one core each" if content["side_by_side"] else "in turns, on all cores"
    names = list(dict.fromkeys(row["who"] for row in content["curves"]))
    lines = []
    for who in names:
        rows = [row for row in content["curves"] if row["who"] == who]
        cells = [who, str(len({row["seed"] for row in rows}))]
        for key in ("knn", "probe"):
            mean = mean_curve(rows, key)
            best = max(mean, key=lambda point: point[1])
            cells += [f"{mean[0][1]:.3f}", f"{best[1]:.3f} after {best[0]:.0f} s", f"{mean[-1][1]:.3f}"]
        lines.append(cells)
    header = ["", "Seeds"]
    for what in ("kNN", "probe"):
        header += [f"{what}, first look", f"{what}, best mean", f"{what}, end"]
    return [
        f"## Quality over time, {title}, {content['size']} px",
        f"Test AUROC of nearest neighbours and of a linear probe with all training labels, while SimCLR with ResNet-18 "
        f"trains; {how}; the clock stands still during evaluation; means over seeds.",
        markdown_table(header, lines),
    ]


def mean_curve(rows: list[JSON], key: str) -> list[tuple[float, float]]:
    """(seconds, value), both means over the seeds, look by look."""
    by_seed: dict[int, list[JSON]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row)
    looks = min(len(found) for found in by_seed.values())
    return [
        (
            sum(found[i]["seconds"] for found in by_seed.values()) / len(by_seed),
            sum(found[i][key] for found in by_seed.values()) / len(by_seed),
        )
        for i in range(looks)
    ]


def million(pretrain: JSON, imports: JSON) -> list[str]:
    """What a million images would take: computed, not measured."""
    speed, side = pretrain["images_per_second"], 2 * pretrain["settings"]["size"]
    hours, epoch = 1e6 / imports["images_per_second"] / 3600, 1e6 / speed / 3600
    return [
        "## A million images",
        f"Computed from the figures above, not measured: import {hours:.1f} h; the store of {side} px, "
        f"one channel, 8 bits, "
        f"{1e6 * side * side / 2**30:.0f} GiB on disk, mapped and not loaded; once through all images "
        f"{epoch:.1f} h on "
        f"{pretrain['usable_cores']} cores at {pretrain['settings']['size']} px; memory does not grow "
        f"with their number.",
    ]


def big_part(content: JSON) -> list[str]:
    """A big encoder with and without computing activations twice."""
    lines = []
    for row in content["rows"]:
        name = {"plain": "all activations kept"}.get(row["setting"], "activations computed twice")
        ended = row.get("ended", "")
        memory = ended or f"{count(row['peak_memory_mib'])} MiB"
        lines.append([name, memory, f"{row['seconds_a_step']:.0f} s" if not ended else "–"])
    return [
        "## A big encoder",
        f"SimCLR with {content['encoder']} and a head of 3 layers at {content['size']} px, batches of "
        f"{content['batch']} images, {content['steps']} steps: the highest resident memory of the process, and the "
        "time of a step.",
        markdown_table(["Setting", "Memory", "A step"], lines),
    ]


def cost_part(content: JSON) -> list[str]:
    """What each objective costs beside supervised training of the same network."""
    given = content["settings"]
    lines = [
        [
            f"`{row['objective']}`",
            str(row["size_px"]),
            f"{row['images_per_second']:.0f}",
            f"{row['ratio']:.2f}",
            count(row["peak_memory_mib"]),
            count(int(1200 * row["images_per_second"] / given["batch"])),
        ]
        for row in content["rows"]
    ]
    return [
        "## What an objective costs",
        f"{given['encoder']} (a ViT-Tiny for `mae`), batches of {given['batch']}, {given['steps']} steps in a process "
        f"of its own (rounds: {given['rounds']}); the ratio is of images a second to supervised training in the "
        "same round.",
        markdown_table(
            ["Objective", "Size, px", "Images/s", "Ratio", "Peak memory, MiB", "Steps in 20 minutes"], lines
        ),
    ]


PARTS: dict[str, Callable[[JSON], list[str]]] = {
    "pretrain-throughput": pretrain_part,
    "peers-speed": peers_part,
    "peers-speed-workers": peers_part,
    "contrast": contrast_part,
    "micro-batch": micro_part,
    "feature-throughput": features_part,
    "scaling": scaling_part,
    "big-encoder": big_part,
    "objective-cost": cost_part,
    "quality-pneumoniamnist": quality_part,
    "quality-settings": quality_part,
    "quality-nih": quality_part,
    "import-throughput": import_part,
}
"""Result files of speed and memory, in the order of the page."""


def contrast_figure(content: JSON) -> str:
    """SVG of time and memory over the number of pairs, both axes logarithmic."""
    pyplot = pyplot_for_svg()
    canvas, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    names = [name for name in dict.fromkeys(row["loss"] for row in content["rows"]) if "InfoNCE" not in name]
    for axes, key, label in zip(panels, ("milliseconds", "memory_mib"), ("milliseconds", "MiB"), strict=True):
        for name, marker in zip(names, "osD", strict=False):
            rows = [row for row in content["rows"] if row["loss"] == name and row[key] >= 1]
            axes.plot(
                [row["pairs"] for row in rows], [row[key] for row in rows], marker=marker, ms=4, label=name
            )
        axes.set(xscale="log", yscale="log", xlabel="pairs", ylabel=label)
        axes.grid(color=LIGHT["line"], linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return as_svg(canvas, json_digest(content))


def quality_figure(content: JSON) -> str:
    """SVG of AUROC over seconds: a thin line a seed, a thick one for the mean."""
    pyplot = pyplot_for_svg()
    canvas, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    names = list(dict.fromkeys(row["who"] for row in content["curves"]))
    for axes, key, label in zip(
        panels, ("knn", "probe"), ("nearest neighbours", "linear probe"), strict=True
    ):
        for colour, who in zip(("C0", "C1", "C2", "C3", "C4"), names, strict=False):
            mine = [row for row in content["curves"] if row["who"] == who]
            for seed in sorted({row["seed"] for row in mine}):
                rows = [row for row in mine if row["seed"] == seed]
                axes.plot(
                    [row["seconds"] for row in rows],
                    [row[key] for row in rows],
                    color=colour,
                    lw=0.7,
                    alpha=0.5,
                )
            mean = mean_curve(mine, key)
            axes.plot(*zip(*mean, strict=True), color=colour, lw=2, marker="o", ms=3, label=who)
        axes.set(xlabel="seconds of training", title=label)
        axes.grid(color=LIGHT["line"], linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test AUROC")
    panels[0].legend(frameon=False)
    return as_svg(canvas, json_digest(content))


def json_digest(content: JSON) -> str:
    """A short hash of what a figure is drawn from."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


FIGURES: dict[str, Callable[[JSON], str]] = {
    "contrast": contrast_figure,
    "quality-pneumoniamnist": quality_figure,
    "quality-settings": quality_figure,
    "quality-nih": quality_figure,
}
"""Result files that are drawn, too: docs/figures/NAME.svg."""
