"""The sections about retrieval, zero-shot and similarity maps: numbers, signs, pictures, gaps, foreign text."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from example import JSON
from image_text_example import (
    LONG_SENTENCE,
    SENTENCES,
    image_text,
    query,
    retrieval,
    similarity,
    write_pictures,
    zero_shot,
)
from parsed_page import Page

from fewlabel.report import write_report
from fewlabel.report.contract import picture
from fewlabel.report.image_text import HIT_PX, MAPS_AT_MOST, QUERIES_AT_MOST
from fewlabel.report.style import LIGHT
from fewlabel.types import FewlabelError

BARE: JSON = {"format": 1, "target": {"name": "Opacity"}, "metric": "auroc", "arms": [], "metrics": []}
EVIL = '"><script>alert(1)</script> PaO2 < 60 & falling'


def _html(run: Path, blocks: JSON, pictures: bool = True) -> str:
    if pictures:
        write_pictures(run)
    run.mkdir(exist_ok=True)
    (run / "results.json").write_text(json.dumps(BARE | blocks))
    return write_report(run).read_text(encoding="utf-8")


def _section(html: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', html, re.DOTALL)
    assert found is not None, name
    return found[0]


def _text(html: str, name: str) -> str:
    return Page(_section(html, name)).text


def _images(html: str, name: str) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in Page(_section(html, name)).elements if tag == "img"]


def _queries(*queries: JSON) -> JSON:
    return {"retrieval": {"modes": [], "queries": list(queries), "note": ""}}


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _html(tmp_path_factory.mktemp("run"), image_text())


def test_the_three_sections_are_in_the_table_of_contents(html: str) -> None:
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', contents)[:3] == ["retrieval", "zero-shot", "similarity"]
    assert {"retrieval", "zero-shot", "similarity"} <= set(Page(html).ids)


def test_precision_has_one_line_for_each_search_and_encoder(html: str) -> None:
    text = _text(html, "retrieval")
    assert "Search Encoder Precision@5 Precision@10 Precision@50 Chance Queries Candidates" in text
    for line in (
        "Image to image ConVIRT 0.607 0.537 to 0.667 0.602 0.532 to 0.662 0.562 0.492 to 0.622 0.204 120",
        "Image to image random init 0.226 0.156 to 0.286",
        "Sentence to image ConVIRT 0.569 0.499 to 0.629",
        "Image to sentence ConVIRT 0.543 0.473 to 0.603",
    ):
        assert line in text, line
    assert text.count("0.204 120 90 patients 1,300") == 4
    assert "The sentences were made from labels, so they say no more" in text


def test_whole_rankings_have_a_line_for_each_encoder_and_one_of_chance(html: str, tmp_path: Path) -> None:
    text = _text(html, "retrieval")
    table = text[text.index("Search Encoder Recall@1 R-precision MAP@R Queries") :]
    lines = (
        "Image to image ConVIRT 0.612 0.562 to 0.652 0.512 0.462 to 0.552 0.412 0.362 to 0.452 118",
        "Image to image random init 0.231",
        "Image to image a random order 0.210 0.160 0.110",
    )
    assert [table.index(line) for line in lines] == sorted(table.index(line) for line in lines)
    assert table.count("a random order") == 1
    earlier = retrieval()
    for mode in earlier["modes"]:
        mode.pop("ranking", None)
    text = _text(_html(tmp_path, {"retrieval": earlier}), "retrieval")
    assert "Precision@5" in text
    assert "MAP@R" not in text


def test_ranks_that_were_not_measured_are_dashes(tmp_path: Path) -> None:
    given = retrieval() | {"queries": []}
    given["modes"] = given["modes"][:2]
    given["modes"][1]["rows"] = given["modes"][1]["rows"][1:2]
    given["modes"][0]["rows"][0] |= {"low": None, "chance": 0.3}
    text = _text(_html(tmp_path, {"retrieval": given}), "retrieval")
    assert "ConVIRT 0.607 – 0.602 0.532 to 0.662" in text
    assert "0.300, 0.204 120" in text
    assert "random init – 0.221 0.151 to 0.281 – 0.204" in text
    assert "Below are examples" not in text


def test_hits_are_marked_by_sign_and_word_and_colour(html: str) -> None:
    section = _section(html, "retrieval")
    first = section[section.index('<ol class="hits">') : section.index("</ol>")]
    items = [Page(item).text for item in re.findall(r"<li.*?</li>", first, re.DOTALL)]
    assert items[0] == "1 ✓ right 0.869 opacity"
    assert items[2] == "3 ✗ wrong 0.807 another class"
    assert items[9] == "10 ✓ right 0.590 opacity"
    classes = re.findall(r'<li( class="wrong")?>', first)
    assert [bool(marked) for marked in classes] == [place % 3 == 0 for place in range(1, 11)]
    assert first.count('<span class="verdict wrong">') == 3
    assert first.count('<span aria-hidden="true">✗</span> wrong') == 3
    assert "Query: opacity 7 of 10 right" in Page(section).text
    for colour in ("m0", "r0"):
        assert f"color: var(--{colour})" in html
        assert colour in LIGHT


def test_queries_stand_by_search_and_most_are_folded(html: str) -> None:
    section = _section(html, "retrieval")
    assert re.findall(r"<h3>(.*?)</h3>", section) == [
        "Image to image",
        "Sentence to image",
        "Image to sentence",
    ]
    assert section.count('<div class="strip">') == 9
    assert section.count("<summary>1 more</summary>") == 3
    assert section.index("Image to image, query 2") < section.index("<details>")
    assert section.index("<details>") < section.index("Image to image, query 3")


def test_every_picture_is_named_for_those_who_do_not_see_it(html: str) -> None:
    names = [str(image["alt"]) for image in _images(html, "retrieval")]
    assert names[0] == "Image to image, query 1: opacity"
    assert names[1] == "Image to image, query 1, hit 1"
    assert len(set(names)) == len(names) == 3 * 11 + 3 * 10 + 3
    assert 'aria-label="Sentence to image, query 2: the nearest, in order"' in html


def test_a_query_may_be_a_sentence(tmp_path: Path) -> None:
    run = _html(tmp_path, _queries(query("text-image", 0)))
    assert "“There is an opacity.” Query: opacity 7 of 10 right" in _text(run, "retrieval")
    assert len(_images(run, "retrieval")) == 10
    assert "Text to image" in _text(run, "retrieval")


def test_hits_may_be_sentences(tmp_path: Path) -> None:
    run = _html(tmp_path, _queries(query("image-text", 0)))
    assert '<ol class="hits sentences">' in run
    text = _text(run, "retrieval")
    assert "1 ✓ right 0.869 The lungs are clear. opacity" in text
    assert f"3 ✗ wrong 0.807 {LONG_SENTENCE} another class" in text
    assert len(_images(run, "retrieval")) == 1


@pytest.mark.parametrize(("hits", "words"), [(4, "3 of 4 right"), (1, "1 of 1 right"), (0, "no hits stored")])
def test_fewer_than_ten_hits(tmp_path: Path, hits: int, words: str) -> None:
    run = _html(tmp_path, _queries(query("image-image", 0, hits)))
    assert words in _text(run, "retrieval")
    assert _section(run, "retrieval").count("<li") == hits
    assert ("<ol" in _section(run, "retrieval")) == bool(hits)


def test_hits_beyond_ten_are_not_shown(tmp_path: Path) -> None:
    run = _html(tmp_path, _queries(query("image-image", 0, 25)))
    assert _section(run, "retrieval").count("<li") == 10
    assert "7 of 10 right" in _text(run, "retrieval")


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    run = _html(tmp_path, image_text(), pictures=False)
    assert _images(run, "retrieval") == _images(run, "similarity") == []
    assert _text(run, "retrieval").count("no picture stored") == 3 * 11 + 3 * 10 + 3
    assert _text(run, "similarity").count("no picture stored no map stored") == 6
    nothing = query("image-text", 0)
    nothing["query"] |= {"figure": None}
    nothing["hits"][0] |= {"text": None}
    text = _text(_html(tmp_path, _queries(nothing)), "retrieval")
    assert "no picture stored Query: opacity" in text
    assert "1 ✓ right 0.869 no sentence stored" in text


def test_many_queries_and_large_pictures_stay_light(tmp_path: Path) -> None:
    write_pictures(tmp_path, side_px=64)
    noise = np.random.default_rng(0).integers(0, 255, (700, 700), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "figures" / "retrieval-0-1.png")
    many = [query("image-image", 0) for _ in range(40)]
    run = _html(tmp_path, _queries(*many), pictures=False)
    assert len(run) < 1_500_000
    assert _section(run, "retrieval").count('<div class="strip">') == QUERIES_AT_MOST
    assert "34 further queries are listed in results.json." in _text(run, "retrieval")
    content = str(_images(run, "retrieval")[1]["src"]).partition(",")[2]
    with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as small:
        assert small.size == (HIT_PX, HIT_PX)


def test_a_light_picture_is_made_smaller_only_on_request(tmp_path: Path) -> None:
    PIL.Image.new("L", (400, 200), 7).save(tmp_path / "a.png")
    as_it_is = picture(tmp_path, "a.png", 400)
    assert as_it_is == picture(tmp_path, "a.png")
    assert as_it_is is not None
    assert as_it_is.startswith("data:image/png")
    smaller = picture(tmp_path, "a.png", 100)
    assert smaller is not None
    with PIL.Image.open(io.BytesIO(base64.b64decode(smaller.partition(",")[2]))) as image:
        assert image.size == (100, 50)


def test_zero_shot_stands_beside_probes(html: str) -> None:
    text = _text(html, "zero-shot")
    assert "Classifier AUROC higher is better Balanced accuracy higher is better" in text
    assert "zero-shot, no labels 0.781 0.742 to 0.818 0.702 0.664 to 0.739" in text
    assert "linear probe, 10 labels 0.733 0.673 to 0.783 – linear" in text
    assert "linear probe, 4708 labels 0.871 0.811 to 0.921 – Each" in text
    assert "zero-shot from 624 test images of 501 patients" in text
    assert "Below it, to compare with, are classifiers that were." in text


def test_the_sentences_of_each_class_are_folded(html: str) -> None:
    section = _section(html, "zero-shot")
    folded = Page(section[section.index("<details>") : section.index("</details>") + len("</details>")]).text
    assert (
        "The sentences of each class opacity 2 There is opacity. An opacity is seen in the left lung."
        in folded
    )
    assert "not opacity 2 There is no opacity." in folded
    assert "There is opacity." not in section[: section.index("<details>")]


def test_zero_shot_without_probes_or_prompts(tmp_path: Path) -> None:
    given = zero_shot() | {"compared": [], "prompts": [], "note": "Weak texts."}
    given["rows"] = [{"name": "brier", "value": 0.2}]
    text = _text(_html(tmp_path, {"zero_shot": given}), "zero-shot")
    assert "Brier score lower is better zero-shot, no labels 0.200 –" in text
    assert "Weak texts." in text
    assert "to compare with" not in text
    assert "The sentences of each class" not in text


def test_maps_stand_beside_their_images_with_a_caution(html: str) -> None:
    text = _text(html, "similarity")
    assert (
        "A map shows where the network's features match the sentence; nobody has validated it as a localisation."
    ) in text
    assert "Each map is scaled to its own range" in text
    assert (
        "“There is an opacity.” Truth: opacity. Colours: similarity −0.112 to 0.634. images/person-0000.png"
        in text
    )
    assert "“The lungs are clear.” Truth: not opacity. images/person-0001.png" in text
    assert LONG_SENTENCE in text
    names = [image["alt"] for image in _images(html, "similarity")]
    assert names[:2] == [
        "Image images/person-0000.png: opacity",
        "The same image under the map of where it matches the sentence",
    ]
    assert len(names) == 12
    assert "<summary>2 more</summary>" in _section(html, "similarity")
    assert "linear-gradient(to right, #440154, " in html


def test_many_maps_are_cut_with_a_word(tmp_path: Path) -> None:
    given = similarity()
    given["cases"] = [given["cases"][0]] * (MAPS_AT_MOST + 1)
    run = _html(tmp_path, {"similarity": given})
    assert len(_images(run, "similarity")) == 2 * MAPS_AT_MOST
    assert "1 further map is listed in results.json." in _text(run, "similarity")


def test_without_maps_the_section_says_why(tmp_path: Path) -> None:
    run = _html(tmp_path, {"similarity": {"cases": [], "note": "too few places for a map"}})
    assert "too few places for a map" in _text(run, "similarity")
    assert "least alike" not in _text(run, "similarity")


def test_texts_from_outside_stay_text(tmp_path: Path) -> None:
    blocks = _with_text(image_text(), EVIL)
    page = Page(_html(tmp_path, blocks))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(EVIL) >= 20
    assert all(str(a["src"]).startswith("data:") for tag, a in page.elements if tag == "img")


def _with_text(value: JSON, text: str) -> JSON:
    """The blocks with every text replaced, but for what names a file, a measure or a kind of search."""
    kept = ("figure", "map_figure", "name", "key", "mode")

    def changed(key: str, old: object) -> object:
        if isinstance(old, dict):
            return {k: changed(k, v) for k, v in old.items()}
        if isinstance(old, list):
            return [changed(key, v) for v in old]
        return text if isinstance(old, str) and key not in kept else old

    return {key: changed(key, old) for key, old in value.items()}


def test_classes_of_a_finding_are_yes_and_no(tmp_path: Path) -> None:
    given = zero_shot()
    given["prompts"] = [{"class": "1", "sentences": SENTENCES[:1]}]
    target = {"name": "Opacity", "kind": "binary", "classes": ["0", "1"]}
    text = _text(_html(tmp_path, {"zero_shot": given, "target": target}), "zero-shot")
    assert "yes 1 There is an opacity." in text


@pytest.mark.parametrize("blocks", [{}, {"retrieval": None, "zero_shot": {}, "similarity": {}}])
def test_runs_without_texts_do_not_miss_them(tmp_path: Path, blocks: JSON) -> None:
    page = Page(_html(tmp_path, blocks))
    assert {"retrieval", "zero-shot", "similarity"}.isdisjoint(page.ids)
    for title in ("Retrieval", "Zero-shot", "Similarity maps"):
        assert title not in page.text


def test_retrieval_of_images_alone_does_not_miss_texts(tmp_path: Path) -> None:
    given = {"modes": retrieval()["modes"][:2], "queries": [query("image-image", 0)], "note": ""}
    text = Page(_html(tmp_path, {"retrieval": given})).text
    assert "Zero-shot" not in text
    assert "Similarity maps" not in text


def test_runs_with_texts_say_what_they_lack(tmp_path: Path) -> None:
    text = Page(_html(tmp_path / "a", {"zero_shot": zero_shot()})).text
    assert "Retrieval : it was not measured in this run." in text
    assert "Similarity maps : none were made in this run." in text
    text = Page(_html(tmp_path / "b", {"retrieval": retrieval()})).text
    assert "Zero-shot : no sentences were tried as classes." in text
    text = Page(_html(tmp_path / "c", {"similarity": {"cases": []}})).text
    assert "Similarity maps : none were made in this run." in text


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"retrieval": [1]}, '"retrieval" that is no dict'),
        ({"zero_shot": "none"}, '"zero_shot" that is no dict'),
        ({"similarity": [1]}, '"similarity" that is no dict'),
        ({"retrieval": {"modes": [{"key": "image-image"}]}}, "in the part 'retrieval'"),
        ({"retrieval": {"queries": [{"mode": "image-image"}]}}, "in the part 'retrieval'"),
        (
            {"retrieval": {"queries": [{"mode": "x", "query": {}, "hits": [{"right": None}]}]}},
            "a hit is right or wrong, not None",
        ),
        ({"similarity": {"cases": [{"figure": "../secret.png"}]}}, "lies outside"),
    ],
)
def test_blocks_of_the_wrong_shape_are_one_sentence(tmp_path: Path, blocks: JSON, words: str) -> None:
    with pytest.raises(FewlabelError, match=words) as caught:
        _html(tmp_path, blocks)
    assert "\n" not in str(caught.value)
