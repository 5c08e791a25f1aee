from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from fewlabel.collection import Collection, import_images
from fewlabel.collection.labels import TypedColumn
from fewlabel.collection.store import part_path
from fewlabel.collection.tables import Facts, State, commit
from fewlabel.types import FewlabelError

LABELS = """file,ill,grade,Age,View Position,shape,sex
0.png,1,0,60,PA,4,f
1.png,0,3,40,AP,5,m
2.png,-1,1,,PA,6,f
3.png,,2,55.5,,7,m
4.png,1,10,56,PA,8,
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for n in range(5):
        Picture.fromarray(rng.integers(0, 256, (40, 30 + n), dtype=np.uint8)).save(folder / "in" / f"{n}.png")
    (folder / "labels.csv").write_text(LABELS)
    import_images(folder / "in", folder / "c", labels=folder / "labels.csv", workers=1)
    return Collection.open(folder / "c")


def test_columns_come_in_their_kinds(collection: Collection) -> None:
    assert collection.column("ill").tolist() == [1, 0, -1, -2, 1]
    assert collection.labels["grade"].classes == ("0", "1", "2", "3", "10")
    np.testing.assert_array_equal(collection.column("Age"), [60, 40, np.nan, 55.5, 56])
    assert collection.column("View Position").tolist() == ["PA", "AP", "PA", None, "PA"]


def test_a_label_column_hides_a_case_column_of_its_name(collection: Collection) -> None:
    assert collection.column("shape").tolist() == ["4", "5", "6", "7", "8"]
    assert collection.column("case:shape")[0] == [1, 40, 30]
    assert "label:shape" in collection.cases.column_names
    assert len(collection) == collection.cases.num_rows == 5


@pytest.mark.parametrize(
    ("spec", "kind", "classes", "values"),
    [
        ("ill", "binary", ("not ill", "ill"), [1, 0, -1, -1, 1]),
        ("grade", "category", ("0", "1", "2", "3", "10"), [0, 3, 1, 2, 4]),
        ("sex", "binary", ("f", "m"), [0, 1, 0, 1, -1]),
        ("sex=f", "binary", ("sex!=f", "sex=f"), [1, 0, 1, 0, -1]),
        ("View Position=PA", "binary", ("View Position!=PA", "View Position=PA"), [1, 0, 1, -1, 1]),
        ("View Position != PA", "binary", ("View Position=PA", "View Position!=PA"), [0, 1, 0, -1, 0]),
        ("Age>55.5", "binary", ("Age<=55.5", "Age>55.5"), [1, 0, -1, 0, 1]),
        ("Age >= 55.5", "binary", ("Age<55.5", "Age>=55.5"), [1, 0, -1, 1, 1]),
        ("grade>=2", "binary", ("grade<2", "grade>=2"), [0, 1, 0, 1, 1]),
    ],
)
def test_targets(collection: Collection, spec: str, kind: str, classes: tuple, values: list) -> None:
    target = collection.target(spec)
    assert (target.kind, target.classes, target.values.tolist()) == (kind, classes, values)
    assert target.values.dtype == np.int64
    assert target.usable.tolist() == [v >= 0 for v in values]


def test_uncertain_and_not_mentioned_are_counted_apart(collection: Collection) -> None:
    for spec in ("ill", "ill=1"):
        target = collection.target(spec)
        assert (target.uncertain, target.not_mentioned) == (1, 1)
    assert collection.target("ill").counts == {"not ill": 1, "ill": 2}


def test_number_targets_are_float(collection: Collection) -> None:
    target = collection.target("Age")
    assert (target.kind, target.classes, target.not_mentioned) == ("number", (), 1)
    assert target.values.dtype == np.float64
    assert target.usable.sum() == 4


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("il", 'did you mean "ill"'),
        ("ages>5", 'did you mean "Age"'),
        ("View Position=PO", 'did you mean "PA"'),
        ("Age>old", '"old" in the target'),
        ("sex>1", "holds names, not numbers"),
        ("pixel_hash", "5 different values in 5 images"),
        ("case:shape", "has no"),
        ("ill < ", "is no number"),
    ],
)
def test_mistakes_in_targets(collection: Collection, spec: str, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        collection.target(spec)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("\"View Position\" = 'PA' and Age > 40", [0, 4]),
        ("ill = 1 OR ill = -1", [0, 2, 4]),
        ("Age IS NULL", [2]),
        ("case_id LIKE '%3.png'", [3]),
        ("1 = 1", [0, 1, 2, 3, 4]),
        ("ill = 7", []),
        ("sex = 'm' -- a comment", [1, 3]),
    ],
)
def test_where(collection: Collection, expression: str, rows: list[int]) -> None:
    assert collection.where(expression).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("Agee > 3", 'did you mean "Age"'),
        ('"Agee" > 3', 'did you mean "Age"'),
        ("Age >", "cannot be used"),
        ("1); DROP TABLE cases; --", "cannot be used"),
        ("", "cannot be used"),
    ],
)
def test_mistakes_in_where(collection: Collection, expression: str, said: str) -> None:
    with pytest.raises(FewlabelError, match=said) as error:
        collection.where(expression)
    assert "\n" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.floats(-100, 200), st.sampled_from(["<", "<=", ">", ">=", "=", "!="]))
def test_where_and_target_agree(collection: Collection, limit: float, sign: str) -> None:
    positive = collection.target(f"Age{sign}{limit!r}").values == 1
    assert collection.where(f"Age {sign} {limit!r}").tolist() == np.flatnonzero(positive).tolist()


def test_patients_without_an_id_are_their_own(collection: Collection) -> None:
    assert collection.patients().tolist() == [0, 1, 2, 3, 4]
    assert any("5 of 5 images have no patient id" in fact for fact in collection.facts)


def test_rows_outside_are_refused(collection: Collection) -> None:
    assert collection.pixels(-1).shape == (1, 40, 34)
    with pytest.raises(FewlabelError, match="row 5 was asked for"):
        collection.pixels(5)


def test_squares_of_the_same_size_are_the_pixels_themselves(tmp_path: Path, make_images) -> None:
    pixels = make_images(tmp_path / "in", ["a.png", "b.png"], shape=(32, 32))
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    squares = Collection.open(tmp_path / "c").square(32)
    assert squares.dtype == np.uint8
    np.testing.assert_array_equal(squares[:, 0], pixels)
    assert isinstance(squares, np.memmap)


def test_squares_are_padded_with_black_and_centred(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Picture.fromarray(np.full((40, 20), 200, np.uint8)).save(tmp_path / "in" / "a.png")
    Picture.fromarray(np.full((20, 40), 200, np.uint8)).save(tmp_path / "in" / "b.png")
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    square = Collection.open(tmp_path / "c").square(8, channels=3)
    expected = np.zeros((3, 8, 8), np.uint8)
    expected[:, :, 2:6] = 200
    np.testing.assert_array_equal(square[0], expected)
    np.testing.assert_array_equal(square[1], expected.transpose(0, 2, 1))


def test_squares_of_16_bits_use_the_display_range_or_a_window(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ramp = np.linspace(1000, 3000, 64).reshape(8, 8).astype(np.uint16)
    Picture.fromarray(ramp).save(tmp_path / "in" / "a.png")
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    collection = Collection.open(tmp_path / "c")
    low, high = collection.image(0).display_range
    shown = collection.square(8)[0, 0]
    assert shown.dtype == np.uint16
    np.testing.assert_allclose(shown, np.clip((ramp - low) / (high - low), 0, 1) * 65535, atol=1)
    windowed = collection.square(8, window=(1500, 2500))[0, 0]
    np.testing.assert_allclose(windowed, np.clip((ramp - 1500.0) / 1000, 0, 1) * 65535, atol=1)
    with pytest.raises(FewlabelError, match="the second number must be above"):
        collection.square(8, window=(5, 5))


def test_colour_becomes_luminance_and_stays_colour(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Picture.fromarray(np.full((8, 8, 3), (250, 100, 50), np.uint8)).save(tmp_path / "in" / "a.png")
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    collection = Collection.open(tmp_path / "c")
    assert collection.square(4, channels=3)[0, :, 0, 0].tolist() == [250, 100, 50]
    assert collection.square(4)[0, 0, 0, 0] == round(0.299 * 250 + 0.587 * 100 + 0.114 * 50)


def test_squares_are_kept_and_stale_ones_removed(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png"])
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    Collection.open(tmp_path / "c").square(8)
    (first,) = (tmp_path / "c" / "cache").iterdir()
    time_made = first.stat().st_mtime_ns
    Collection.open(tmp_path / "c").square(8)
    assert first.stat().st_mtime_ns == time_made
    make_images(tmp_path / "in", ["c.png"], seed=4)
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    assert Collection.open(tmp_path / "c").square(8).shape == (3, 1, 8, 8)
    assert not first.exists()


def test_folders_that_are_no_collection(tmp_path: Path, collection: Collection) -> None:
    with pytest.raises(FewlabelError, match="there is no collection at"):
        Collection.open(tmp_path / "nowhere")
    with pytest.raises(FewlabelError, match="is no collection: make one"):
        Collection.open(tmp_path)
    for content in (b"", b"PAR1 but then nothing of the kind PAR1"):
        (tmp_path / "cases.parquet").write_bytes(content)
        with pytest.raises(FewlabelError, match="is broken"):
            Collection.open(tmp_path)


def test_missing_or_short_parts_are_told(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png"])
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    part_path(tmp_path / "c", 0).write_bytes(b"short")
    with pytest.raises(FewlabelError, match="is shorter than"):
        Collection.open(tmp_path / "c").pixels(0)
    part_path(tmp_path / "c", 0).unlink()
    with pytest.raises(FewlabelError, match="is missing"):
        Collection.open(tmp_path / "c").pixels(0)


def test_a_hundred_thousand_images_open_at_once(tmp_path: Path) -> None:
    """Opening reads the footer only; it takes milliseconds, and the bound is loose for busy machines."""
    count = 100_000
    names = [f"folder/{n:08d}.png" for n in range(count)]
    row = {
        "root": "r",
        "shape": [1, 64, 64],
        "dtype": "uint8",
        "part": 0,
        "attributes": {},
        "provenance": "x" * 40,
    }
    rows = [{**row, "case_id": n, "source": n, "patient_id": n[-7:-4]} for n in names]
    state = State(Facts(), rows, {"ill": TypedColumn("ill", "binary", [n % 2 for n in range(count)])})
    commit(tmp_path, state, state.to_table())
    started = time.perf_counter()
    collection = Collection.open(tmp_path)
    assert len(collection) == count
    assert time.perf_counter() - started < 1
    assert collection.target("ill").counts["ill"] == count // 2
    assert len(np.unique(collection.patients())) == 1000
