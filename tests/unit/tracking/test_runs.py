"""The record in MLflow: checkpoints, resumed runs, lost contact, killed runs."""

import hashlib
import json
import multiprocessing
import shutil
import sqlite3
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline.processes import is_dead, own_name, start_mark
from pipeline.tracking.audit import audit_record
from pipeline.tracking.checkpoints import network_path, ranked_checkpoints
from pipeline.tracking.outbox import DatasetFacts, Record, kept_epochs, waiting_records
from pipeline.tracking.runs import TrackedRun, TrackingError, add_to_trainings, tracked_run
from pipeline.tracking.store import (
    Store,
    close_dead_runs,
    contact_errors,
    open_store,
    require_store,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

ROOT = Path(__file__).resolve().parents[3]
DATA = DatasetFacts("emblems", "data/emblems/pack.arrow", "0123456789abcdef" * 2, {"images": 9})


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, which take MLflow seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        open_store()
    return folder


@pytest.fixture
def store(made_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own, in a folder of its own, which is the working folder."""
    with sqlite3.connect(made_store / "mlflow.db") as source:
        with sqlite3.connect(tmp_path / "mlflow.db") as target:
            source.backup(target)
            location = (tmp_path / "mlartifacts").as_uri()
            target.execute("update experiments set artifact_location = ?", (location,))
        target.close()
    source.close()
    monkeypatch.chdir(tmp_path)
    # MLflow keeps one connection an address: each test has an address of its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return open_store()


def row(epoch: int, validation_map: float) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1 / epoch, "validation_map": validation_map}


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.parent.name)


def start(
    fingerprint: str = "f1", keep_best: int = 1, needs_store: bool = True
) -> AbstractContextManager[TrackedRun]:
    return tracked_run(
        stage="distill",
        key="a-64",
        role="student",
        fingerprint=fingerprint,
        facts={"dataset": "emblems", "query_px": 64},
        settings={"seed": 0, "optimisation": {"learning_rate": 0.1}},
        dataset=DATA,
        keep_best=keep_best,
        needs_store=needs_store,
    )


def files(store: Store) -> dict[str, str]:
    return {
        model.tags["epoch"]: model.tags["file"]
        for model in ranked_checkpoints(store, "emblems", 100)
    }


def test_files_are_kept_for_the_best_and_the_last() -> None:
    rows = [row(1, 0.3), row(2, 0.5), row(3, 0.5), row(4, 0.2)]
    assert kept_epochs(rows, 1) == {2, 4}  # of equals the earlier
    assert kept_epochs(rows, 2) == {2, 3, 4}
    assert kept_epochs(rows, 0) == {4}
    assert kept_epochs(rows, 9) == {1, 2, 3, 4}
    assert kept_epochs([], 2) == set()
    assert kept_epochs([{"epoch": 1}, {"epoch": 2}], 2) == {2}  # nothing was held out
    assert kept_epochs([row(1, float("nan")), row(2, 0.1), row(3, float("nan"))], 2) == {2, 3}


def test_every_checkpoint_is_a_model_linked_to_epoch_data_and_metrics(store: Store) -> None:
    with start() as run:
        for epoch, score in ((1, 0.5), (2, 0.3), (3, 0.4)):
            run.log_epoch(row(epoch, score), save)
    ranked = ranked_checkpoints(store, "emblems")
    assert [model.tags["epoch"] for model in ranked] == ["1", "3", "2"]
    assert files(store) == {"1": "kept", "2": "removed", "3": "kept"}
    assert network_path(store, ranked[0], Path("fetched")).read_text() == "epoch-1"
    assert len(list(Path("mlartifacts").rglob("network.safetensors"))) == 2
    for model, score in zip(ranked, (0.5, 0.4, 0.3), strict=True):
        found = {metric.key: metric for metric in model.metrics}
        assert found["validation_map"].value == score
        assert found["validation_map"].dataset_digest == DATA.digest
        assert found["loss"].step == int(model.tags["epoch"])
        assert model.params["learning_rate"] == "0.1"
        assert str(model.status) == "LoggedModelStatus.READY" or model.status == "READY"
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.info.status == "FINISHED"
    assert logged.inputs.dataset_inputs[0].dataset.name == "emblems"
    assert sorted(output.step for output in logged.outputs.model_outputs) == [1, 2, 3]
    assert logged.data.tags["mlflow.parentRunId"] == store.study_id
    assert not list(Path(".work/outbox").iterdir())


def test_an_interrupted_run_is_continued_and_nothing_is_logged_twice(store: Store) -> None:
    def interrupted() -> None:
        with start() as run:
            run.log_epoch(row(1, 0.5), save)
            run.log_epoch(row(2, 0.1), save)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.info.status == "KILLED"
    # Killed between the model of an epoch and its metrics: the model is not whole.
    store.client.create_logged_model(
        store.experiment_id,
        source_run_id=logged.info.run_id,
        tags={"epoch": "3", "file": "none", "dataset": "emblems"},
    )
    with start() as run:
        assert run.logged_epochs == 2
        for epoch, score in ((1, 0.5), (2, 0.1), (3, 0.2)):
            run.log_epoch(row(epoch, score), save)
    (again,) = store.runs("tags.role = 'student'")
    assert again.info.run_id == logged.info.run_id
    assert again.info.status == "FINISHED"
    assert files(store) == {"1": "kept", "2": "removed", "3": "kept"}
    history = store.client.get_metric_history(again.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_another_fingerprint_is_another_run_and_an_error_is_a_failure(store: Store) -> None:
    with start("f1"):
        pass
    with pytest.raises(ArithmeticError), start("f2"):
        raise ArithmeticError
    found = store.runs("tags.role = 'student'")
    assert {run.data.tags["fingerprint"]: run.info.status for run in found} == {
        "f1": "FINISHED",
        "f2": "FAILED",
    }


def test_training_goes_on_without_mlflow_and_its_record_follows(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = Path("away.db")
    with start() as run:
        run.log_epoch(row(1, 0.5), save)
        lose(away)
        for epoch, score in ((2, 0.1), (3, 0.6), (4, 0.2)):
            run.log_epoch(row(epoch, score), save)
        assert waiting_files(run.record) == {"epoch-3", "epoch-4"}
    told = capsys.readouterr().err
    assert "the work goes on" in told
    assert "waits in .work/outbox" in told
    assert [record.status for record in waiting_records()] == ["FINISHED"]

    shutil.copy(away, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/./mlflow.db")
    audit = audit_record({})
    assert audit.delivered == [run.record.name]
    assert audit.waiting == []
    store = open_store()
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.info.status == "FINISHED"
    history = store.client.get_metric_history(logged.info.run_id, "validation_map")
    assert [(metric.step, metric.value) for metric in history] == [
        (1, 0.5),
        (2, 0.1),
        (3, 0.6),
        (4, 0.2),
    ]
    assert files(store) == {"1": "removed", "2": "none", "3": "kept", "4": "kept"}


def lose(away: Path) -> None:
    """Put a file that is no database in the place of the database."""
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(truncate)")
    connection.close()
    shutil.copy("mlflow.db", away)
    Path("mlflow.db").write_text("no database " * 1000)


def waiting_files(record: Record) -> set[str]:
    return {folder.name for folder in record.folder.glob("epoch-*")}


def test_contact_that_returns_completes_the_record(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr("pipeline.tracking.runs.time.monotonic", lambda: clock[0])
    with start() as run:
        with monkeypatch.context() as broken:
            broken.setattr(store.client.__class__, "log_batch", unreachable)
            run.log_epoch(row(1, 0.5), save)
        run.log_epoch(row(2, 0.4), save)  # too early for another try
        assert run.logged_epochs == 0
        assert len(list(waiting_records(of_dead_only=False))) == 1
        assert list(waiting_records()) == []  # it belongs to a living process
        clock[0] += 60
        run.log_epoch(row(3, 0.3), save)
        assert run.logged_epochs == 3
    assert "is reached again" in capsys.readouterr().err
    assert files(store) == {"1": "kept", "2": "none", "3": "kept"}


def test_figures_of_finished_work_wait_where_the_store_is_gone_at_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
        with start(needs_store=False) as run:
            run.log_results({"map": 0.5})
    assert audit_record({}).delivered == [run.record.name]
    (logged,) = store.runs("tags.role = 'student'")
    assert (logged.info.status, logged.data.metrics["map"]) == ("FINISHED", 0.5)
    assert logged.data.tags["mlflow.parentRunId"] == store.study_id


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("no route")


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9/", "sqlite:////proc/none/mlflow.db", "sqlite:///text.db"]
)
def test_an_unusable_store_is_refused_in_words(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("no database " * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=r"MLFLOW_TRACKING_URI = '.*cannot be used: ."):
        require_store()
    with pytest.raises(TrackingError), start():
        raise AssertionError("the work has begun")


def test_runs_of_killed_processes_do_not_stay_running(store: Store) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from pipeline.processes import own_name; print(own_name())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    dead = json.loads(ended.stdout.replace("'", '"'))
    names = {"dead": dead, "alive": own_name(), "elsewhere": {**dead, "host": "another"}}
    for name, tags in names.items():
        store.client.create_run(store.experiment_id, tags=tags, run_name=name)
    assert close_dead_runs(store) == ["dead"]
    found = {run.info.run_name: run.info.status for run in store.runs("")}
    assert found == {
        "dead": "KILLED",
        "alive": "RUNNING",
        "elsewhere": "RUNNING",
        "study": "FINISHED",
    }


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    name = own_name()
    assert not is_dead(name)
    assert is_dead({**name, "process_start": "another boot 1"})
    assert not is_dead({**name, "host": "another"})
    assert not is_dead({})
    assert start_mark(2**22 + 1) is None


def test_results_in_the_lock_find_their_runs_or_are_named(store: Store) -> None:
    md5 = ("1" * 32, "2" * 32, "3" * 32)
    for fingerprint, result in (("f1", md5[0]), ("f2", md5[1])):
        with start(fingerprint) as run:
            run.set_tags({"output_md5": result})
    locked = {
        "distill@a-64": {"models/e/students/a-64.safetensors": md5[0], "models/e/a.csv": "x"},
        "distill@b-64": {"models/e/students/b-64.safetensors": md5[2]},
        "prepare@e": {"data/e/pack.arrow": "y"},
        "tradeoff@e": {"results/e/metrics.json": "z"},
    }
    audit = audit_record(locked)
    assert audit.missing == ["distill@b-64"]
    assert audit.linked == 1
    assert "distill@b-64" in audit.lines()[0]
    assert current(store) == {"f1"}
    # The cache gives the other result back, and no code runs: its run is the current one then.
    audit_record({"distill@a-64": {"models/e/students/a-64.safetensors": md5[1]}})
    assert current(store) == {"f2"}


def current(store: Store) -> set[str]:
    return {run.data.tags["fingerprint"] for run in store.runs("tags.current = 'yes'")}


def test_figures_of_an_evaluation_stand_beside_the_settings_of_the_training(store: Store) -> None:
    network = Path("network.safetensors")
    network.write_bytes(b"weights")
    with start() as run:
        run.set_tags({"output_md5": "09f05cf0bbd18c4d9e1ab2bbd4d52b4c"})
        run.log_results({"seconds": 1.5})
    other = Path("other.safetensors")
    other.write_bytes(b"unknown")
    run_md5 = hashlib.md5(b"weights").hexdigest()  # noqa: S324
    (logged,) = store.runs("tags.role = 'student'")
    store.client.set_tag(logged.info.run_id, "output_md5", run_md5)
    add_to_trainings({network: {"map": 0.5, "gmacs": 0.1}, other: {"map": 0.9}})
    (logged,) = store.runs("tags.role = 'student'")
    assert {"map": 0.5, "gmacs": 0.1, "seconds": 1.5}.items() <= logged.data.metrics.items()
    assert logged.data.params["learning_rate"] == "0.1"


def write_run(name: str) -> None:
    with tracked_run(
        stage="distill",
        key=name,
        role="student",
        fingerprint=name,
        facts={"dataset": "emblems"},
        settings={"seed": 0},
        keep_best=1,
    ) as run:
        for epoch in range(1, 4):
            run.log_epoch(row(epoch, epoch / 10), save)


def test_eight_writers_to_a_fresh_database_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    contact_errors()  # imports MLflow: once here, not in each of the processes
    forked = multiprocessing.get_context("fork")
    writers = [forked.Process(target=write_run, args=(f"w{number}",)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 8
    store = open_store()
    runs = store.runs("tags.role = 'student'")
    assert sorted(run.data.tags["fingerprint"] for run in runs) == [f"w{n}" for n in range(8)]
    assert len(store.runs("tags.role = 'study'")) == 1
    for run in runs:
        assert run.info.status == "FINISHED"
        history = store.client.get_metric_history(run.info.run_id, "loss")
        assert [metric.step for metric in history] == [1, 2, 3]
    assert len(ranked_checkpoints(store, "emblems", 100)) == 24
    assert not list(Path(".work/outbox").iterdir())


def test_a_run_is_told_by_its_name_where_it_waits() -> None:
    record = Record("distill", "a-64", "student", "f1", {}, {})
    assert record.folder == Path(".work/outbox/distill-a-64-student-f1")
