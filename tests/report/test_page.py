"""The page as a whole: it needs nothing else, hides nothing, survives gaps, and lets no HTML in."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from example import JSON, binary, cannot_be_told, category, regression, slim, write_run
from image_text_example import image_text, write_pictures
from parsed_page import Page

from fewlabel.pipeline.settings import OBJECTIVE_TITLES
from fewlabel.report import pretraining, write_report
from fewlabel.types import FewlabelError

CASES = {
    "binary": binary,
    "category": category,
    "regression": regression,
    "cannot be told": cannot_be_told,
    "images and text": lambda: slim(binary()) | image_text(),
}
SECTIONS = (
    "warnings efficiency savings differences decisions abstention embedding mistakes views health data method "
    "settings"
)


def _write(tmp_path: Path, results: JSON) -> str:
    path = write_report(write_run(tmp_path / "run", results))
    assert path == tmp_path / "run" / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=CASES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    write_pictures(folder / "run")
    return _write(folder, CASES[request.param]())


def test_page_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            if name in attributes:
                assert str(attributes[name]).startswith(("data:", "#")), (tag, attributes[name])
    assert not re.search(r"https?://|//cdn|@import|file:", page)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_links_and_clips_lead_somewhere(page: str) -> None:
    ids = Page(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_page_can_be_read_aloud(page: str) -> None:
    parsed = Page(page)
    assert ("html", {"lang": "en"}) in parsed.elements
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for tag, attributes in parsed.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_page_is_light_and_says_what_it_is_not(page: str) -> None:
    assert len(page) < 4_000_000
    text = Page(page).text
    assert text.count("Not a medical device.") == 2
    assert "are not counted in the budget" in text
    assert not re.search(r"\bnan\b|\bNone\b|undefined", text)


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    drawn = re.sub(r"data:[^\"]*", "", " ".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)))
    assert "var(--m0)" in drawn
    assert not re.search(r'style="[^"]*#0066a6', drawn)
    assert "NaN" not in drawn
    assert "<text" in drawn


def test_every_section_is_there(tmp_path: Path) -> None:
    parsed = Page(_write(tmp_path, binary()))
    assert set(SECTIONS.split()) <= set(parsed.ids)
    for fact in (
        "With 50 labels, SimCLR is as good",
        "0.887 to 0.955",
        "more than 4,708",
        "Random-init features come within 0.02",
        "27",
        "scans/broken-07.dcm",
        "2 more are in quarantine.csv",
        "524 validation labels",
        "learning_rate",
        "2.13.0",
        "70 min",
    ):
        assert fact in parsed.text, fact
    assert "These images are made." not in parsed.text
    assert "Not in this report" not in parsed.text


def test_made_images_and_trial_runs_are_named(tmp_path: Path) -> None:
    assert "These images are made." in Page(_write(tmp_path / "a", BARE | {"made_images": True})).text
    assert "This is a short trial run." in Page(_write(tmp_path / "b", BARE | {"smoke": True})).text


def test_calibration_is_shown_before_and_after(tmp_path: Path) -> None:
    results = slim(binary())
    text = Page(_write(tmp_path / "new", results)).text
    assert text.index("Before calibration : does") < text.index("After calibration : does")
    for shown in ("Log loss", "0.512 0.410 to 0.666", "0.377 0.302 to 0.490", "Calibration error"):
        assert shown in text, shown
    earlier = [
        {k: v for k, v in row.items() if k not in ("before", "scores")} for row in results["calibration"]
    ]
    text = Page(_write(tmp_path / "old", results | {"calibration": earlier})).text
    assert "Before calibration" not in text
    assert "Log loss" not in text
    assert "Calibration : does 30 % mean 30 %?" in text


def _diagram(html: str, side: str) -> str:
    found = re.search(
        rf'aria-label="[^"]*{side} calibration with 50 labels[^"]*">(.*?)</svg>', html, re.DOTALL
    )
    assert found is not None
    return found[1].replace(f"calibration-{side}", "")


def test_the_two_diagrams_show_their_own_side(tmp_path: Path) -> None:
    results = slim(binary())
    html = _write(tmp_path / "differ", results)
    assert _diagram(html, "before") != _diagram(html, "after")
    for row in results["calibration"]:
        row["before"] = {key: row[key] for key in ("predicted", "observed", "count")}
    html = _write(tmp_path / "alike", results)
    assert _diagram(html, "before") == _diagram(html, "after")


def test_several_classes_have_calibration_without_roc(tmp_path: Path) -> None:
    parsed = Page(_write(tmp_path, slim(category())))
    assert "share that is called right" in parsed.text
    assert "Calibration Calibration: points on the dotted line" in parsed.text
    assert "ROC : how many" not in parsed.text


def test_risk_and_coverage_in_words(tmp_path: Path) -> None:
    text = Page(_write(tmp_path, slim(binary()) | CHEAP)).text
    assert "Keeping the most confident 80 %, the error falls from 12 % to 7.1 % (4.3 to 11 %)." in text
    assert "1 % no threshold can promise it with 311 validation patients" in text
    assert "5 % 0.8731 4.6 % 61 % 57 to 65 % 3.8 % 2.1 to 5.6 %" in text
    assert "10 % everything is answered 9.6 % 100 % 100 to 100 % 12 %" in text
    assert "AURC" in text


@pytest.mark.parametrize(
    ("risk", "words"), [(0.2, "the error rises from 12 % to 20 %"), (0.1204, "leaves the error at 12 %")]
)
def test_a_curve_that_does_not_fall_is_told_as_it_is(tmp_path: Path, risk: float, words: str) -> None:
    results = slim(binary()) | CHEAP
    results["abstention"]["curve"]["risk"] = [risk] * 96
    assert words in Page(_write(tmp_path, results)).text


def test_regression_has_a_scatter_and_no_roc(tmp_path: Path) -> None:
    parsed = Page(_write(tmp_path, regression()))
    assert "scatter" in parsed.ids
    assert "decisions" not in parsed.ids
    assert "abstention" not in parsed.ids
    assert "ROC" not in parsed.text
    assert "Risk and coverage" not in parsed.text
    assert "Mean absolute error (years): lower is better" in parsed.text
    assert "better lies to the left" in parsed.text


CHEAP: JSON = {"roc": [], "calibration": []}
BARE: JSON = {"format": 1, "target": {"name": "Effusion"}, "metric": "auroc", "arms": [], "metrics": []}
OPTIONAL = {
    "headline": "Headline",
    "labels_saved": "Labels saved",
    "differences": "Paired differences",
    "abstention": "Risk and coverage",
    "embedding": "Map of the features",
    "views_figure": "Views",
    "mistakes": "Mistakes",
    "health": "Pretraining's health",
    "data": "Data",
    "warnings": None,
    "settings": None,
    "versions": None,
    "seconds": None,
    "seeds": None,
    "budgets": None,
    "metric_labels": None,
    "title": None,
}


@pytest.mark.parametrize("key", OPTIONAL)
def test_an_empty_block_is_left_out_with_a_word(tmp_path: Path, key: str) -> None:
    text = Page(_write(tmp_path, slim(binary()) | CHEAP | {key: None})).text
    word = OPTIONAL[key]
    if word is not None:
        assert word in text[text.index("Not in this report") :]


def test_nothing_but_what_is_required(tmp_path: Path) -> None:
    text = Page(_write(tmp_path, BARE)).text
    assert "Effusion" in text
    assert "Label-efficiency curves" in text


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (None, ("Contrastive loss", "pulls the views of one image together")),
        ("byol", ("come to agree", "pulls the views of one image together")),
        ("vae", ("give back what it saw", "asks the network to give the view back")),
        ("mae", ("fill in what was hidden", "hides most patches")),
        ("convirt", ("which sentence belongs to which image", "a sentence of its report together")),
    ],
)
def test_pretraining_is_told_in_the_words_of_its_objective(
    tmp_path: Path, objective: str | None, said: tuple[str, ...]
) -> None:
    results = slim(binary()) | CHEAP | {"settings": {"pretraining": {"objective": objective, "steps": 3}}}
    text = Page(_write(tmp_path, results)).text
    for words in said:
        assert words in text
    assert ("pulls the views" in text) == (objective in (None, "byol"))


def test_every_objective_has_its_words() -> None:
    assert set(pretraining._WORDING) == set(OBJECTIVE_TITLES)


def test_settings_come_from_run_json_where_results_hold_none(tmp_path: Path) -> None:
    assert "from run.json" in Page(_write(tmp_path, slim(binary()) | {"settings": {}})).text


def test_no_html_from_outside_gets_in(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }} $\\frac{1}{2}$ &lt;b'
    results = _with_text(binary(), evil)
    parsed = Page(_write(tmp_path, results))
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script"})
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert all(str(a["src"]).startswith("data:") for tag, a in parsed.elements if tag == "img")
    assert "<script>alert(1)</script>" in parsed.text
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|\b49\b", parsed.text)


def _with_text(results: JSON, text: str) -> JSON:
    changed = copy.deepcopy(results)
    changed["title"] = changed["headline"]["sentence"] = changed["data"]["split"] = text
    changed["target"] |= {"name": text, "classes": ["0", text], "where": text}
    changed["metric_labels"]["auroc"] = changed["embedding"]["method"] = text
    changed["embedding"]["label"] = [text] * len(changed["embedding"]["x"])
    changed["arms"][0]["label"] = changed["arms"][3]["label"] = text
    changed["warnings"] = [text]
    changed["health"]["warnings"] = [text]
    changed["mistakes"][0] |= {"case": text, "truth": text, "prediction": text}
    changed["data"]["quarantine"][0] = {"file": text, "reason": text}
    changed["data"]["modalities"] = {text: 3}
    changed["settings"][text] = {text: text}
    changed["versions"] = {text: text}
    changed["headline"]["equivalent"]["text"] = "230 " + text
    return changed


def test_many_mistakes_and_long_names(tmp_path: Path) -> None:
    results = slim(binary())
    long = "a_very_long_folder_name_without_any_space/" * 12 + "image.png"
    results["mistakes"] = [results["mistakes"][i % 16] | {"case": f"{i}/{long}"} for i in range(200)]
    results["arms"][1]["label"] = "a method whose name goes on and on " * 6
    results["data"]["quarantine"] = [{"file": f"{long}{i}", "reason": "why " * 60} for i in range(300)]
    parsed = Page(_write(tmp_path, results))
    assert "152 further mistakes are listed in results.json." in parsed.text
    assert sum(tag == "img" for tag, _ in parsed.elements) == 48 + 1


def test_one_budget_one_method(tmp_path: Path) -> None:
    results = binary()
    for key in ("metrics", "differences", "roc", "calibration", "labels_saved"):
        results[key] = [row for row in results[key] if row["budget"] == 50 and row["arm"] == "simclr"]
    results |= {"budgets": [50], "arms": results["arms"][:1], "seeds": [0]}
    assert "With 50 labels" in Page(_write(tmp_path, results)).text


def test_values_that_are_not_numbers_are_dashes(tmp_path: Path) -> None:
    results = slim(binary())
    results["metrics"][0] |= {"value": float("nan"), "low": float("nan"), "high": None}
    results["metrics"][1] |= {"low": None, "high": None}
    results["differences"][0] |= {"value": None, "p": None}
    text = Page(_write(tmp_path, results)).text
    assert "nan" not in text.replace("quarantine", "")


def test_best_value_follows_the_metric(tmp_path: Path) -> None:
    html = _write(tmp_path, regression())
    best = re.findall(r'<td class="best">([\d.]+)', html[: html.index("The other measures")])
    row = re.search(r"SimCLR, linear probe</th>(.*?)</tr>", html, re.DOTALL)
    assert row is not None
    assert best == re.findall(r"<td[^>]*>([\d.]+)", row[1])


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", slim(binary()))
    start = time.perf_counter()
    first = write_report(run).read_bytes()
    assert time.perf_counter() - start < 10
    assert write_report(run).read_bytes() == first
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_failed_write_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", slim(binary()))
    (run / "report.html").write_text("the old one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FewlabelError, match="No space left on device"):
        write_report(run)
    assert (run / "report.html").read_text() == "the old one"
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_block_of_the_wrong_shape_is_one_sentence(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", slim(binary()) | {"roc": [{"arm": "simclr", "budget": 50, "fpr": [0, 1]}]}
    )
    with pytest.raises(
        FewlabelError, match=r"results\.json cannot be shown in the part 'decisions'"
    ) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_the_report_needs_no_torch() -> None:
    code = (
        "import sys, fewlabel.report; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
