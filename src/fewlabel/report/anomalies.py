"""One page on a detector of what is not normal: how well its scores tell, and ten cases with their maps."""

from __future__ import annotations

from pathlib import Path

from fewlabel.files import write_text
from fewlabel.report.contract import picture
from fewlabel.report.image_text import colour_key
from fewlabel.report.page import render
from fewlabel.report.words import count, interval, number, p_value, percent, percent_interval, signed
from fewlabel.types import JSON

PAGE = "anomalies.html"
PICTURE_PX = 256


def write_anomalies(run: Path, results: JSON) -> Path:
    """Write run/anomalies.html from the content of anomalies.json and the pictures that it names; return its path.

    Raises FewlabelError where it cannot be written, or a picture cannot be shown.
    """
    labels = {row["key"]: row["label"] for row in results["scores"]}
    groups = [
        (title, [_case(run, results, case) for case in results["cases"] if case["chosen"] == chosen])
        for chosen, title in (("highest", "The highest scores"), ("drawn", "Drawn by chance from all others"))
    ]
    context = {
        "title": f"What is not normal in {results['collection']}",
        "headline": results["headline"],
        "made_images": results["made_images"],
        "warnings": results["warnings"],
        "scores": [_score_line(row, results["main"]) for row in results["scores"]],
        "specificity": percent(results["specificity"]),
        "tested": results["images"]["test"],
        "localisation": _localisation(results["localisation"]),
        "maps": [_scale(one) for one in results["maps"].values()],
        "colours": colour_key(),
        "groups": groups,
        "main": labels[results["main"]],
        "seed": results["settings"]["pretraining"]["seed"],
        "facts": _facts(results),
        "marked": any(case["marked"] for case in results["cases"]),
    }
    write_text(run / PAGE, render(PAGE, context))
    return run / PAGE


def _score_line(row: JSON, main: str) -> JSON:
    area, gap = row["auroc"], row["from_pixels"]
    return {
        "label": row["label"],
        "main": row["key"] == main,
        "auroc": number(area["value"]),
        "auroc_interval": interval(area["low"], area["high"]),
        "gap": signed(gap["value"]) if gap else "",
        "gap_interval": f"{signed(gap['low'])} to {signed(gap['high'])}, p {p_value(gap['p'])}"
        if gap
        else "",
        "sensitivity": percent(row["sensitivity"]["value"]),
        "sensitivity_interval": percent_interval(row["sensitivity"]),
        "specificity": percent(row["specificity"]["value"]),
        "specificity_interval": percent_interval(row["specificity"]),
    }


def _localisation(given: JSON | None) -> JSON | None:
    if given is None:
        return None
    lines = [
        {
            "label": row["label"],
            "auroc": number(row["pixel_auroc"]["value"]),
            "auroc_interval": interval(row["pixel_auroc"]["low"], row["pixel_auroc"]["high"]),
            "hits": percent(row["hits"]["value"]),
            "hits_interval": percent_interval(row["hits"]),
        }
        for row in given["rows"]
    ]
    patients = given["rows"][0]["hits"]["patients"]
    return {
        "lines": lines,
        "chance": percent(given["chance"]),
        "images": given["images"],
        "patients": patients,
    }


def _scale(one: JSON) -> JSON:
    """The ends of a map's colours; small numbers in the usual notation of powers."""
    low, high = (f"{one[end]:.3g}".replace("-", "−") for end in ("low", "high"))
    return {"label": one["label"], "unit": one["unit"], "low": low, "high": high}


def _case(run: Path, results: JSON, case: JSON) -> JSON:
    row = next(row for row in results["scores"] if row["key"] == results["main"])
    score = case["scores"][results["main"]]
    return {
        "name": case["case"],
        "truth": "normal" if case["normal"] else "not normal",
        "normal": case["normal"],
        "score": number(score),
        "called": "above the threshold" if score > row["threshold"] else "below the threshold",
        "picture": picture(run, case["figure"], PICTURE_PX),
        "maps": [
            {"label": results["maps"][name]["label"], "picture": picture(run, path, PICTURE_PX)}
            for name, path in case["maps"].items()
        ],
    }


def _facts(results: JSON) -> list[tuple[str, str]]:
    parts, chosen = results["images"], results["settings"]["pretraining"]
    train = parts["train"]

    def tested(part: JSON) -> str:
        return f"{count(part['normal'])} normal, {count(part['not_normal'])} not, {count(part['patients'])} patients"

    return [
        ("Normal", str(results["normal"])),
        ("Only images where", str(results["where"] or "every image")),
        ("Learned from", f"{count(train['normal'])} normal images of {count(train['patients'])} patients"),
        ("Validation", tested(parts["val"])),
        ("Test", tested(parts["test"])),
        ("Neither normal nor not", f"{count(results['neither'])} images, which took no part"),
        ("Split", str(results["split"])),
        (
            "Objective",
            f"{results['objective']}, {chosen['steps']:,} steps of {chosen['batch_size']:,} images",
        ),
        ("Network", f"{chosen['encoder']}, {chosen['size_px']} px, seed {chosen['seed']}"),
        ("Normal places kept", count(results["settings"]["settings"]["patches"])),
    ]
