"""Times of trainings: those of networks that were trained."""

import time
from pathlib import Path

import pytest

from pipeline.files import file_md5, write_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.tracking.durations import FILE, with_training_seconds
from tests.made_runs import training

PATHS = DatasetPaths("made")


def test_a_teacher_that_is_taken_as_it_is_has_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = (PATHS.teacher, PATHS.student("made-32"))
    for number, file in enumerate(files):
        write_text(file, f"network {number}")
    write_json(PATHS.results / FILE, {file_md5(file): 7.5 for file in files})
    taken = {"role": "teacher", "network": "teacher", "train_gmacs": None}
    student = {"role": "asymmetric", "network": "made-32", "train_gmacs": 1.0}
    seconds = [row["training_s"] for row in with_training_seconds(PATHS, [taken, student])]
    assert seconds == [None, 7.5]
    (trained,) = with_training_seconds(PATHS, [{**taken, "train_gmacs": 1.0}])
    assert trained["training_s"] == 7.5


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_training_that_runs_again_later_took_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    network = PATHS.student("made-32")
    write_text(network, "network")
    for again in (False, True):
        with training("f1") as run:
            time.sleep(0.3)
            run.log_epoch({"epoch": 1})
            run.set_tags({"output_md5": file_md5(network)})
        time.sleep(0 if again else 2)
    student = {"role": "asymmetric", "network": "made-32", "train_gmacs": 1.0}
    (row,) = with_training_seconds(PATHS, [student])
    assert 0.3 <= row["training_s"] < 2
