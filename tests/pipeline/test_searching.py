"""`fewlabel index` and `fewlabel search` on made radiographs: files to a table, and a sentence for each mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import SIZE_PX, TINY, Fewlabel, MakeCollection, check_refused

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection, import_images
from fewlabel.evaluation.retrieval import cosines
from fewlabel.pipeline import pretrain
from fewlabel.pipeline.searching import index_collection, load_embedder, search_collection
from fewlabel.search import FolderIndex, open_index
from fewlabel.tasks import retrieval
from fewlabel.training.weights import ENCODER, load_encoder, save_encoder
from fewlabel.types import FewlabelError


@pytest.fixture(scope="module")
def chest(make_collection: MakeCollection) -> Collection:
    return make_collection("searched", 40, seed=5)


@pytest.fixture(scope="module")
def run(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    pretrain([chest], out, TINY)
    return out


@pytest.fixture(scope="module")
def place(chest: Collection, run: Path) -> Path:
    """The collection, indexed."""
    index_collection(chest.path, run)
    return chest.path


def file_of(chest: Path, case: str) -> Path:
    return chest.parent / "images" / case


def test_cases_are_ranked_by_the_cosines_of_the_features(place: Path, run: Path) -> None:
    collection, embedder = Collection.open(place), load_embedder(run)
    features = extract_features(embedder.encoder, collection.square(embedder.store_px), size_px=SIZE_PX)
    similarity = cosines(features, features)
    ids = collection.column("case:case_id")
    for row in (0, 7, 39):
        found = search_collection(place, case=ids[row], k=39)
        order = [int(np.flatnonzero(ids == hit.case)[0]) for hit in found.hits]
        assert sorted([*order, row]) == list(range(40))
        assert [hit.similarity for hit in found.hits] == pytest.approx(similarity[row, order], abs=2e-6)
        assert np.all(np.diff(similarity[row, order]) < 2e-6)


def test_a_file_is_seen_as_the_collection_sees_it(place: Path) -> None:
    for case in Collection.open(place).column("case:case_id")[[0, 1, 20]]:  # DICOM, DICOM, PNG
        found = search_collection(place, file_of(place, case), k=1)
        assert found.hits[0].case == case
        assert found.hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_the_table_the_page_and_json(place: Path, tmp_path: Path, fewlabel: Fewlabel) -> None:
    case = Collection.open(place).column("case:case_id")[0]
    page = tmp_path / "out" / "similar.html"
    asked = ["search", place, file_of(place, case), "--k", 4, "--where", "view = 'PA' and age > 30"]
    status, out, err = fewlabel(*asked, "--exclude-patient", "--report", page)
    assert (status, err) == (0, "")
    header, *lines, last = out.splitlines()
    assert header.split() == ["rank", "similarity", "case", "patient", "view", "labels"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert last == f"report: {page}"
    shown = page.read_text()
    assert shown.count('src="data:image/png') == 5
    assert "http" not in shown.replace("http-equiv", "")
    status, out, err = fewlabel(*asked, "--exclude-patient", "--json")
    said = json.loads(out)
    assert (status, err) == (0, "")
    assert [hit["case"] for hit in said["hits"]] == [line.split()[2] for line in lines]
    patients = Collection.open(place).column("case:patient_id")
    for hit in said["hits"]:
        assert hit["facts"]["view"] == "PA"
        assert hit["facts"]["age"] > 30
        assert hit["patient"] != patients[0]


def test_the_patient_is_left_out_by_dicom_and_by_name(place: Path) -> None:
    collection = Collection.open(place)
    ids, patients = collection.column("case:case_id"), collection.column("case:patient_id")
    dicom, png = ids[0], ids[20]
    found = search_collection(place, file_of(place, dicom), k=20, exclude_patient=True)
    assert found.query.patient == patients[0]
    assert patients[0] not in {hit.patient for hit in found.hits}
    with pytest.raises(FewlabelError, match=r"does not say whose it is.*--patient"):
        search_collection(place, file_of(place, png), k=3, exclude_patient=True)
    named = search_collection(place, file_of(place, png), k=20, patient=patients[20])
    assert patients[20] not in {hit.patient for hit in named.hits}


def test_again_adds_only_what_is_new(
    run: Path, make_collection: MakeCollection, monkeypatch: pytest.MonkeyPatch, fewlabel: Fewlabel
) -> None:
    chest = make_collection("growing", 20, seed=6)
    source, labels = chest.path.parent / "images", chest.path.parent / "images" / "labels.csv"
    late = sorted((source / "images").glob("*.png"))[-4:]
    aside = chest.path.parent / "aside"
    aside.mkdir()
    for path in late:
        shutil.move(path, aside)
    part = chest.path.parent / "part"
    options = {"labels": labels, "patient_column": "Patient ID", "workers": 1}
    import_images(source, part, **options)
    embedded: list[int] = []
    embed = retrieval.Embedder.embed_rows

    def counted(self, collection, rows, progress=None):
        embedded.append(len(rows))
        return embed(self, collection, rows, progress)

    monkeypatch.setattr(retrieval.Embedder, "embed_rows", counted)
    monkeypatch.setattr(retrieval, "BLOCK", 6)
    assert str(index_collection(part, run)).endswith("16 cases (16 added)")
    assert embedded == [6, 6, 4]
    for path in late:
        shutil.move(aside / path.name, path)
    import_images(source, part, **options)
    status, _, err = fewlabel(
        "search", part, "--case", Collection.open(part).column("case:case_id")[0], "--k", 2
    )
    assert status == 0
    assert err == (
        f"warning: 4 of 20 images of {part} are not in the index: bring it up to date with `fewlabel index {part} "
        f"--model {run}`.\n"
    )
    status, out, _ = fewlabel("index", part, "--model", run)
    assert (status, out) == (0, f"{part}/index: 20 cases (4 added)\n")
    assert embedded == [6, 6, 4, 4]
    labels.write_text(labels.read_text().replace(",PA,", ",LL,"))
    import_images(source, part, **options)
    told = index_collection(part, run)
    assert (told.new, told.changed, told.gone) == (0, 0, 0)
    assert told.facts > 0
    assert embedded == [6, 6, 4, 4]  # facts need no network
    hits = search_collection(part, case=Collection.open(part).column("case:case_id")[0], k=19).hits
    assert {hit.facts["View Position"] for hit in hits} == {"AP", "LL"}
    assert index_collection(part, run).facts == 0


def test_a_removed_patient_stays_out_until_the_index_is_made_anew(
    chest: Collection, run: Path, tmp_path: Path, fewlabel: Fewlabel
) -> None:
    to, patient = tmp_path / "elsewhere", chest.column("case:patient_id")[0]
    mine = int(np.count_nonzero(chest.column("case:patient_id") == patient))
    index_collection(chest.path, run, to=str(to))
    status, out, _ = fewlabel("index", chest.path, "--to", to, "--delete-patient", patient)
    assert (status, out) == (0, f"{mine} cases of patient {patient} removed\n")
    assert str(index_collection(chest.path, run, to=str(to))).endswith(f"{40 - mine} cases (nothing to do)")
    FolderIndex.open(to).change()  # so that the fingerprint does not say it
    assert len(open_index(to)) == 40 - mine
    assert index_collection(chest.path, run, to=str(to)).new == 0
    found = search_collection(chest.path, case=chest.column("case:case_id")[20], index=str(to), k=3)
    assert found.missing == ""
    status, _, err = fewlabel("index", chest.path, "--to", to, "--delete-patient", patient)
    assert status == 1
    assert f"has no case of patient '{patient}'" in err
    assert index_collection(chest.path, run, to=str(to), rebuild=True).new == 40


@pytest.fixture(scope="module")
def other_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with other weights."""
    out = tmp_path_factory.mktemp("other")
    shutil.copytree(run, out, dirs_exist_ok=True)
    encoder = load_encoder(out / ENCODER)
    next(encoder.parameters()).data.mul_(1.5)
    save_encoder(encoder, out / ENCODER)
    return out


def test_mistakes_are_one_sentence(
    place: Path, run: Path, other_run: Path, tmp_path: Path, fewlabel: Fewlabel
) -> None:
    case = Collection.open(place).column("case:case_id")[0]
    file = file_of(place, case)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    wrong: list[tuple[list[object], str]] = [
        (["search", place, file, "--k", 41], "41 similar cases were asked for and .* holds 40"),
        (["search", place, file, "--k", 0], "0 similar cases"),
        (["search", place, file, "--where", "view = 'XX'"], "holds no case where view = 'XX'"),
        (["search", place, file, "--where", "veiw = 'PA'"], 'no "veiw": did you mean "view"'),
        (["search", place, tmp_path / "notes.txt"], "notes.txt|no image|not"),
        (["search", place, tmp_path / "none.png"], "There is no file"),
        (["search", place], "needs one query"),
        (["search", place, file, "--case", case], "needs one query"),
        (["search", place, "--case", "nobody"], "has no case 'nobody'"),
        (["search", place, file, "--model", other_run], "made by model .* and .* holds model"),
        (["search", place, file, "--model", tmp_path / "gone"], "is gone: say with --model"),
        (["search", place, file, "--index", tmp_path / "none"], "There is no index at"),
        (["search", place, file, "--index", "postgresql://me@localhost:1/x"], "cannot be reached"),
        (["search", tmp_path, file], "is no collection"),
        (["index", place, "--model", other_run], "made by model .*--rebuild"),
        (["index", place], "No model was given"),
        (["index", place, "--model", tmp_path], "is no finished run"),
        (["index", place, "--model", run, "--to", tmp_path / "full"], "is not empty and holds no index"),
        (["index", place, "--delete-patient", "x", "--rebuild"], "--delete-patient came with --rebuild"),
    ]
    check_refused(fewlabel, wrong)
    assert len(open_index(place / "index")) == 40


def test_a_damaged_index_is_made_again_by_the_command_it_names(
    place: Path, run: Path, fewlabel: Fewlabel
) -> None:
    [vectors] = (place / "index").glob("*.npy")
    vectors.write_bytes(vectors.read_bytes()[:-1])
    case = Collection.open(place).column("case:case_id")[0]
    for command in (["search", place, "--case", case], ["index", place, "--model", run]):
        status, _, err = fewlabel(*command)
        assert status == 1
        assert f"`fewlabel index {place} --model {run} --rebuild`" in err
    status, out, _ = fewlabel("index", place, "--model", run, "--rebuild")
    assert (status, out) == (0, f"{place}/index: 40 cases (40 added)\n")
    assert fewlabel("search", place, "--case", case)[0] == 0


def test_another_preprocessing_is_refused(place: Path, run: Path, tmp_path: Path, fewlabel: Fewlabel) -> None:
    shutil.copytree(run, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    said["store_px"] = 40
    (tmp_path / "run" / "pretrain.json").write_text(json.dumps(said))
    case = Collection.open(place).column("case:case_id")[0]
    status, _, err = fewlabel("search", place, file_of(place, case), "--model", tmp_path / "run")
    assert status == 1
    assert "other preprocessing (store_px" in err
    assert "and not 40" in err
