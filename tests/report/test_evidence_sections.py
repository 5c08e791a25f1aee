"""The sections about single images: cases, a few examples, a second look; numbers, signs, pictures, foreign text."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from evidence_example import evidence, few_shot, single_images, worth_a_look, write_case_pictures
from example import JSON
from parsed_page import Page

from fewlabel.report import write_report
from fewlabel.report.evidence import FINDINGS_AT_MOST
from fewlabel.types import FewlabelError

BARE: JSON = {
    "format": 1, "target": {"name": "Opacity"}, "metric": "auroc", "metrics": [],
    "arms": [{"key": "simclr", "label": "SimCLR, linear probe", "role": "method"}],
}  # fmt: skip
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)> 5 < 6 & more'


def _html(run: Path, blocks: JSON, pictures: bool = True) -> str:
    if pictures:
        write_case_pictures(run)
    run.mkdir(exist_ok=True)
    (run / "results.json").write_text(json.dumps(BARE | blocks))
    return write_report(run).read_text(encoding="utf-8")


def _section(html: str, name: str) -> Page:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', html, re.DOTALL)
    assert found is not None, name
    return Page(found[0])


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _html(tmp_path_factory.mktemp("run"), single_images())


def test_the_three_sections_are_in_the_table_of_contents(html: str) -> None:
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', contents)[:3] == ["few-shot", "evidence", "worth-a-look"]
    page = Page(html)
    assert {"few-shot", "evidence", "worth-a-look"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_nearest_cases_tell_who_agrees(html: str) -> None:
    section = _section(html, "evidence")
    text = section.text
    for shown in (
        "the 3 most similar of the 4,708 labelled training images",
        "agree 580 4.1 % 2.0 to 6.5 %",
        "disagree 44 43 % 28 to 59 %",
        "✓ right Called opacity , 83 % truth: opacity 1 of 3 nearest cases agree The neighbours speak for another",
        "✗ wrong Called not opacity , 78 % truth: opacity 2 of 3 nearest cases agree",
        "1 opacity 0.970 train/P0.png",
        "colours: similarity 0.120 to 0.870",
        "a map is a hint, no segmentation, and no reason for the class",
    ):
        assert shown in text, shown
    assert text.count("The neighbours speak for another class.") == 1
    items = [attributes.get("class") for tag, attributes in section.elements if tag == "li"]
    assert items[:6] == [None, "wrong", "wrong", "wrong", None, None]
    images = [attributes for tag, attributes in section.elements if tag == "img"]
    assert len(images) == 6 * 4 + 1
    assert all(str(image["src"]).startswith("data:image/") and image["alt"] for image in images)


def test_no_maps_say_why(tmp_path: Path) -> None:
    given = evidence() | {"note": "At 32 px the encoder has 1 x 1 places, too few."}
    given["cases"] = given["cases"][1:3]
    text = _section(_html(tmp_path, {"evidence": given}), "evidence").text
    assert "At 32 px the encoder has 1 x 1 places, too few." in text
    assert "Maps of matches" not in text


def test_a_few_examples_are_a_table(html: str) -> None:
    text = _section(html, "few-shot").text
    assert "Features 1 example a class 5 examples a class" in text
    assert "SimCLR 0.730 0.680 to 0.770 single draws 0.530 to 0.880 0.850 0.800 to 0.890" in text
    assert "random init 0.630 0.580 to 0.670" in text
    assert "10 examples a class: left out, since opacity has 7 training patients." in text
    assert "chance is 0.500" in text
    assert "624 test images of 601 patients" in text


def test_where_no_class_has_enough_patients_the_reason_is_there(tmp_path: Path) -> None:
    given = few_shot() | {"rows": [], "shots": []}
    text = _section(_html(tmp_path, {"few_shot": given}), "few-shot").text
    assert "since opacity has 7 training patients" in text
    assert "chance" not in text


def test_what_is_worth_a_look_is_suspected_not_wrong(html: str) -> None:
    section = _section(html, "worth-a-look")
    text = section.text
    for shown in (
        "among 5,856 images and 5,800 labels: suspected, not shown to be wrong.",
        "Test labels were looked at with what training and validation labels say, after everything was chosen.",
        "All of it stands in worth_a_look.csv",
        "Volumes were left out.",
        "Copy with another label 2 images",
        "Suspected label 31 images",
        "Outlier 1 image",
        "label, training opacity label of the copy not opacity score 1.00",
        "label, test opacity suggested not opacity score 0.87",
        "label, training – score 7.25 Far.",
    ):
        assert shown in text, shown
    assert "Copy in another part" not in text
    assert sum(tag == "img" for tag, _ in section.elements) == 3
    assert text.count("no picture stored") == 2


def test_nothing_suspicious_is_said(tmp_path: Path) -> None:
    given = worth_a_look() | {"findings": [], "counts": {}}
    assert (
        "Nothing suspicious was found."
        in _section(_html(tmp_path, {"worth_a_look": given}), "worth-a-look").text
    )


def test_at_most_a_dozen_of_a_kind_are_shown(tmp_path: Path) -> None:
    given = worth_a_look()
    given["findings"] = [given["findings"][3] | {"case": f"image-{i}.png"} for i in range(40)]
    text = _section(_html(tmp_path, {"worth_a_look": given}), "worth-a-look").text
    assert f"image-{FINDINGS_AT_MOST - 1}.png" in text
    assert f"image-{FINDINGS_AT_MOST}.png" not in text


def _everywhere(content: Any, text: str) -> Any:
    if isinstance(content, dict):
        return {key: _everywhere(value, text) for key, value in content.items()}
    if isinstance(content, list):
        return [_everywhere(value, text) for value in content]
    return text if isinstance(content, str) and not content.startswith("figures/") else content


def test_no_html_from_outside_gets_in(tmp_path: Path) -> None:
    page = Page(_html(tmp_path, _everywhere(copy.deepcopy(single_images()), EVIL)))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script"})
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(str(a["src"]).startswith("data:") for tag, a in page.elements if tag == "img")
    assert "<script>alert(1)</script>" in page.text


def test_gaps_and_earlier_versions(tmp_path: Path) -> None:
    html = _html(tmp_path, {"evidence": None, "few_shot": {}, "worth_a_look": None}, pictures=False)
    assert not {"evidence", "few-shot", "worth-a-look"} & set(Page(html).ids)
    html = _html(tmp_path, single_images(), pictures=False)
    assert "no picture stored" in _section(html, "evidence").text
    assert not re.search(r"\bnan\b|\bNone\b", Page(html).text)
    with pytest.raises(FewlabelError, match='"evidence" that is no dict'):
        _html(tmp_path, {"evidence": [1]})
    with pytest.raises(FewlabelError, match="cannot be shown in the part 'worth_a_look'"):
        _html(tmp_path, {"worth_a_look": {"findings": [{"case": "a"}]}})
