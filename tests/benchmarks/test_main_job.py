"""The jobs on real data: their settings fit together, and what is kept of a run names no file and no machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import main_job
import pytest

from fewlabel.types import FewlabelError


@pytest.mark.parametrize("name", main_job.JOBS)
def test_settings_fit_together(name: str) -> None:
    job = main_job.JOBS[name]
    assert job.data in main_job.SOURCES
    assert set(job.pretrain_on) <= set(main_job.SOURCES) - {job.data}
    assert set(job.followed_by) <= set(main_job.JOBS)
    assert (job.pretraining is None) == bool(job.encoder_of)
    owner = main_job.JOBS[job.encoder_of or name]
    assert owner.pretraining is not None
    assert owner.data == job.data
    assert job.evaluation.budgets == tuple(sorted(job.evaluation.budgets or ()))


@pytest.mark.parametrize("name", ["pneumoniamnist", "nih-chest-xray", "iq-oth-lung-ct"])
def test_the_main_jobs_can_tell_labels_saved(name: str) -> None:
    assert main_job.JOBS[name].evaluation.supervised


def test_jobs_that_follow_come_once() -> None:
    further = main_job.JOBS["nih-multi"].followed_by
    assert further
    assert main_job.chosen(["nih-multi", further[-1]]) == ["nih-multi", *further]
    assert main_job.chosen(["nih-sex", "nih-sex"]) == ["nih-sex"]
    assert set(main_job.chosen(["all"])) == set(main_job.JOBS)


def test_a_wrong_name_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_job.main(["pneumonia"]) == 1
    assert "There is no job 'pneumonia'" in capsys.readouterr().err


def test_missing_images_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWLABEL_REAL_DATA", str(tmp_path / "nowhere"))
    work = tmp_path / "work"
    assert main_job.main(["pneumoniamnist", "--work", str(work)]) == 1
    assert "set FEWLABEL_REAL_DATA" in capsys.readouterr().err
    assert not work.exists()
    with pytest.raises(FewlabelError, match=r"holds no pneumoniamnist/pneumoniamnist\.npz"):
        main_job.import_source("pneumoniamnist", tmp_path, work)


def test_another_pretraining_is_another_folder(tmp_path: Path) -> None:
    jobs = dict(main_job.JOBS)
    before = main_job.encoder_folder("nih-sex", jobs, tmp_path)
    assert before == main_job.encoder_folder("nih-chest-xray", jobs, tmp_path)
    jobs["nih-chest-xray"] = main_job.quick(jobs["nih-chest-xray"])
    assert main_job.encoder_folder("nih-sex", jobs, tmp_path) != before


def test_a_stopped_pretraining_with_another_evaluation_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_job, "import_source", lambda *args: None)
    monkeypatch.setattr(main_job, "data_folder", lambda: tmp_path)
    run = main_job.encoder_folder("nih-chest-xray", main_job.JOBS, tmp_path)
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"evaluation": {"seeds": 9}}')
    with pytest.raises(FewlabelError, match=r"was stopped while it pretrained.*: delete it"):
        main_job.run_job("nih-chest-xray", main_job.JOBS, tmp_path)


def test_kept_results_name_no_file_and_no_machine(tmp_path: Path) -> None:
    results = {
        "title": "x",
        "metrics": [{"arm": "simclr", "value": 0.123456789}],
        "mistakes": [{"case": "00001280_004.png"}],
        "embedding": {"x": [1.0]},
        "roc": [1],
        "data": {"test": 3, "quarantine": [{"file": "/home/somebody/a.png"}], "quarantine_total": 1},
        "warnings": ["/home/somebody/run is odd, see /home/somebody/run/x.csv"],
        "settings": {"collection": "/home/somebody/work/chest", "pretrain_on": ["/home/somebody/other"]},
    }
    job = main_job.JOBS["nih-sex"]
    content = main_job.compact(results, "nih-sex", job)
    path = main_job.write_result(content, tmp_path)
    text = path.read_text()
    assert "somebody" not in text
    assert ".png" not in text
    kept = json.loads(text)
    assert kept["metrics"][0]["value"] == 0.12346
    assert kept["settings"] == {"collection": "chest", "pretrain_on": ["other"]}
    assert kept["data"] == {"test": 3, "quarantine_total": 1}
    assert not {"mistakes", "embedding", "roc"} & set(kept)
    assert kept["groups"] == "patients"


@pytest.mark.real
@pytest.mark.slow
def test_a_job_runs_and_is_used_again(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shared_data / "nih-chest-xray"
    if not real.is_dir():
        pytest.skip("no nih-chest-xray among the real images")
    some = tmp_path / "data" / "nih-chest-xray"
    (some / "images").mkdir(parents=True)
    for file in sorted((real / "images").iterdir())[::5]:  # patients of all targets, some with several images
        shutil.copy(file, some / "images")
    shutil.copy(real / "labels.csv", some)
    monkeypatch.setenv("FEWLABEL_REAL_DATA", str(tmp_path / "data"))
    assert main_job.main(["nih-age", "--quick", "--work", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "quick" / "results" / "nih-age.json").read_text())
    assert kept["metric"] == "mae"
    assert kept["data"]["test_patients"] < kept["data"]["test"]
    assert {row["arm"] for row in kept["metrics"]} >= {"simclr", "random", "pixels", "statistics"}
    assert str(tmp_path) not in json.dumps(kept)
    runs = list((tmp_path / "quick" / "runs").glob("nih-chest-xray-*"))
    assert len(runs) == 1  # the encoder that the job needs was made on the way
    encoder = runs[0] / "pretrain" / "seed-0" / "encoder.safetensors"
    written = encoder.stat().st_mtime_ns
    assert main_job.main(["nih-age", "--quick", "--work", str(tmp_path)]) == 0
    assert encoder.stat().st_mtime_ns == written
