"""The search of a training's values: its space, its trials, and that no test image is in them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.params import load_params
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from pipeline.paths import DatasetPaths
from pipeline.tracking.store import TrackingError, open_store
from pipeline.tracking.sync import sync_waiting
from pipeline.training import tuning
from pipeline.training.job import TrainingJob
from pipeline.training.trainings import training_data
from pipeline.training.tuning import LOSS_VALUES, trials_table, tune_student, varied
from stages.distill import distill
from stages.tune import tune
from tests.integration.workspace import set_params
from tests.made_params import PARAMS
from tests.made_study import STUDENT, make_finished_study

PATHS = DatasetPaths("emblems")
SPACE = {
    "tuning.trials": 3,
    "tuning.learning_rate_factor": [0.5, 2.0],
    "tuning.loss_factor": [0.8, 1.25],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_finished_study(tmp_path_factory.mktemp("finished") / "study")
    set_params(folder, SPACE)
    for stage in ("tune", "distill", "train_baseline"):
        code = folder / "data" / "code" / f"{stage}.txt"
        code.parent.mkdir(exist_ok=True)
        code.write_text("code\n")
    initial = folder / PATHS.initial(STUDENT)
    initial.parent.mkdir(parents=True)
    initial.write_text("random\n")
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study; the record, which takes seconds to set up, is one for all."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished}/mlflow.db")
    return folder


def found() -> dict[str, Any]:
    return dict(json.loads(PATHS.tuning(STUDENT).read_text()))


def test_without_trials_the_values_of_the_recipe_hold(study: Path) -> None:
    set_params(study, {"tuning.trials": 0})
    tune(STUDENT)
    assert found() == {}
    assert PATHS.tuning(STUDENT).with_suffix(".csv").read_text() == "trial,student,baseline\n"
    job = TrainingJob(load_params(), "student", STUDENT, 0)
    assert job.tuned().recipe == job.recipe
    assert job.tuned().inputs == (*job.inputs, PATHS.tuning(STUDENT))


def test_student_and_baseline_have_as_many_trials_and_train_with_the_best_values(
    study: Path,
) -> None:
    tune(STUDENT)
    searched = found()
    params = load_params()
    assert searched.keys() == {"student", "baseline"}
    for role, one in searched.items():
        scores = [trial["score"] for trial in one["trials"]]
        assert len(scores) == 3
        assert all(0 < score <= 1 for score in scores)
        rates, weights = (
            [trial["factors"][f"{name}_factor"] for trial in one["trials"]]
            for name in ("learning_rate", "loss")
        )
        assert rates == pytest.approx([1, 0.5 * 4**0.25, 0.5 * 4**0.75])
        assert weights == pytest.approx([1, 0.8 * 1.5625 ** (2 / 3), 0.8 * 1.5625 ** (1 / 9)])
        best = one["trials"][int(np.argmax(scores))]["factors"]
        job = TrainingJob(params, role, STUDENT, 0)
        rate = job.recipe.optimisation.learning_rate
        tuned = job.tuned()
        used = tuned.recipe.optimisation.learning_rate
        assert used == tuned.settings["optimisation"]["learning_rate"]
        assert used == pytest.approx(rate * best["learning_rate_factor"])
        assert tuned.recipe.optimisation.epochs == job.recipe.optimisation.epochs
        names = {"student": ("lambda_ts", "lambda_ss"), "baseline": ("margin",)}[role]
        for name in names:
            scaled = getattr(job.recipe.loss, name) * best["loss_factor"]
            assert getattr(tuned.recipe.loss, name) == pytest.approx(scaled)
    table = pd.read_csv(PATHS.tuning(STUDENT).with_suffix(".csv"))
    for role in searched:
        scores = pd.Series([trial["score"] for trial in searched[role]["trials"]])
        assert table[role].tolist() == scores.cummax().tolist()
    assert table["trial"].tolist() == [1, 2, 3]


def test_found_values_that_stand_in_the_file_train_on_all_classes(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/method.md says of a last training, which needs no validation any more."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{study}/mlflow.db")
    scores = (number / 10 for number in range(1, 7))  # so that later trials are better
    monkeypatch.setattr(tuning, "_trained", lambda *_: {"validation_map": next(scores)})
    tune(STUDENT)
    before = TrainingJob(load_params(), "student", STUDENT, 0).tuned()
    own = {f"students.{STUDENT}.distillation": found()["student"]["values"]}
    all_classes = {"tuning.trials": 0, "datasets.emblems.validation_share": 0.0}
    set_params(study, own | all_classes)
    tune(STUDENT)
    assert found() == {}
    job = TrainingJob(load_params(), "student", STUDENT, 0).tuned()
    assert job.recipe == before.recipe != TrainingJob(before.params, "student", STUDENT, 0).recipe
    with training_data(before) as earlier, training_data(job) as data:
        assert len(earlier.val) > len(data.val) == 0
        assert np.array_equal(data.train, data.pack.rows("train"))
    distill(STUDENT)
    history = pd.read_csv(PATHS.student(STUDENT).with_suffix(".csv"))
    assert "validation" not in history.columns
    assert len(history) == 1


def test_trials_are_child_runs_of_one_search(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{study}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tune(STUDENT)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("large-to-small")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["role"] == "search"]
    children = [run for run in runs if run is not parent]
    assert len(children) == 6
    scores = {role: [trial["score"] for trial in one["trials"]] for role, one in found().items()}
    for run in children:
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        score = scores[tags["role"]][int(tags["trial"]) - 1]
        assert run.data.metrics["validation_map"] == score
        assert run.info.status == "FINISHED"
    assert len({run.data.params["learning_rate"] for run in children}) == 6
    assert parent.data.metrics["best_student"] == max(scores["student"])
    assert parent.data.tags["mlflow.runName"] == f"tune {STUDENT} search"


def test_a_store_that_is_lost_stops_no_search(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost within the first trial: the others begin without it."""
    uri = f"sqlite:///{study}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def lost(*_: Any) -> dict[str, float]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
        return {"validation_map": 0.5}

    monkeypatch.setattr(tuning, "_trained", lost)
    tune(STUDENT)
    assert [len(one["trials"]) for one in found().values()] == [3, 3]
    assert "the work goes on" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = open_store()
    assert len(sync_waiting(store)) == 5
    (parent,) = store.runs("tags.role = 'search'")
    children = store.runs(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert [run.data.metrics["validation_map"] for run in children] == [0.5] * 6


def test_a_search_is_not_begun_without_the_store(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
    with pytest.raises(TrackingError):
        tune(STUDENT)


def test_a_killed_search_goes_on_and_ends_as_an_undisturbed_one(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(STUDENT)
    whole = PATHS.tuning(STUDENT).read_bytes()
    shutil.rmtree(study / ".work" / "tune")
    trained = tuning._trained
    runs: list[str] = []

    def killed(*arguments: Any) -> Any:
        runs.append("first")
        if len(runs) == 5:  # the baseline's second trial
            raise KeyboardInterrupt
        return trained(*arguments)

    monkeypatch.setattr(tuning, "_trained", killed)
    with pytest.raises(KeyboardInterrupt):
        tune_student(load_params(), STUDENT)
    rest: list[str] = []

    def counted(*arguments: Any) -> Any:
        rest.append("second")
        return trained(*arguments)

    monkeypatch.setattr(tuning, "_trained", counted)
    tune_student(load_params(), STUDENT)
    assert len(rest) == 2
    assert PATHS.tuning(STUDENT).read_bytes() == whole


def test_test_images_make_no_difference(study: Path) -> None:
    """Other pictures in the test classes: not one score changes."""
    tune(STUDENT)
    honest = PATHS.tuning(STUDENT).read_bytes()
    pack = open_pack(PATHS.pack)
    noise = pack.encoded(int(pack.rows("train")[0]))
    poisoned = [
        ImageRecord(
            pack.names[row],
            pack.class_names[pack.labels[row]],
            "train" if pack.is_train[row] else "test",
            pack.encoded(row) if pack.is_train[row] else noise,
            int(pack.widths[row]),
            int(pack.heights[row]),
        )
        for row in range(len(pack))
    ]
    assert sum(one.split == "test" for one in poisoned) == 30
    write_pack(PATHS.pack, poisoned)
    assert open_pack(PATHS.pack).encoded(int(pack.rows("test")[3])) == noise
    tune(STUDENT)
    assert PATHS.tuning(STUDENT).read_bytes() == honest


def test_a_loss_that_is_not_finite_is_a_trial_without_a_score(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(study, {"tuning.trials": 2})
    trained = tuning._trained
    calls: list[int] = []

    def diverges(*arguments: Any) -> Any:
        calls.append(1)
        return {} if len(calls) == 1 else trained(*arguments)

    monkeypatch.setattr(tuning, "_trained", diverges)
    tune(STUDENT)
    student = found()["student"]
    assert student["trials"][0]["score"] is None
    rate = load_params().student_distillation(STUDENT).optimisation.learning_rate
    best = student["trials"][1]["factors"]["learning_rate_factor"]
    assert student["values"]["optimisation"]["learning_rate"] == pytest.approx(rate * best)
    assert "trial 1 of 2" in capsys.readouterr().err
    monkeypatch.setattr(tuning, "_trained", lambda *_: {})
    shutil.rmtree(study / ".work" / "tune")
    with pytest.raises(ValueError, match=r"no trial of the student .* tuning.learning_rate_factor"):
        tune(STUDENT)


def test_a_trial_has_its_share_of_the_epochs(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"optimisation.epochs": 10, "optimisation.learning_rate": 0.01}
    changes = {f"datasets.emblems.distillation.{key}": value for key, value in recipe.items()}
    set_params(study, changes | {"tuning.trials": 1, "tuning.epochs_share": 0.3})
    epochs: list[int] = []

    def noted(tried: TrainingJob, *_: Any) -> dict[str, float]:
        epochs.append(tried.schedule.epochs)
        return {"validation_map": 0.5}

    monkeypatch.setattr(tuning, "_trained", noted)
    tune(STUDENT)
    assert epochs == [3, 1]


def test_the_factors_scale_the_rate_and_what_weighs_the_loss() -> None:
    recipe = load_params(PARAMS).datasets["emblems"].distillation
    factors = {"learning_rate_factor": 2.0, "loss_factor": 0.5}
    assert varied(recipe, factors) == {
        "optimisation": {"learning_rate": 0.02},
        "loss": {"student_temperature": 0.15},
    }


def test_every_loss_says_what_of_it_is_scaled() -> None:
    from typing import get_args

    from pipeline.config.losses import DistillationLoss, TeacherLoss

    checked = 0
    for union in (DistillationLoss, TeacherLoss):
        for model in get_args(get_args(union)[0]):
            for kind in get_args(model.model_fields["kind"].annotation):
                assert set(LOSS_VALUES[kind]) <= model.model_fields.keys() - {"kind"}
                checked += 1
    assert checked == len(LOSS_VALUES) == 12


def test_the_table_holds_the_best_so_far_of_each() -> None:
    trials = {
        "student": [0.2, None, 0.1, 0.4],
        "baseline": [None, 0.3, 0.2, 0.1],
    }
    given = {
        role: {"trials": [{"score": score} for score in scores]} for role, scores in trials.items()
    }
    lines = ["trial,student,baseline", "1,0.2,", "2,0.2,0.3", "3,0.2,0.3", "4,0.4,0.3", ""]
    assert trials_table(given) == "\n".join(lines)
    assert trials_table({"student": given["student"]}).splitlines()[1] == "1,0.2,"
