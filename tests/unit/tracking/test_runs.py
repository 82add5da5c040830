"""The record in MLflow: checkpoints, resumed runs, lost contact, killed runs."""

import json
import multiprocessing
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.processes import is_dead, own_name, start_mark
from pipeline.tracking.audit import audit_record, record_lines
from pipeline.tracking.pages import NOTE_TAG, VIEW, VIEW_TAG
from pipeline.tracking.record import Record, kept_epochs, waiting_records
from pipeline.tracking.runs import TrackedRun, tracked_run
from pipeline.tracking.store import (
    EXPERIMENT,
    Store,
    TrackingError,
    close_dead_runs,
    open_store,
    require_store,
)
from pipeline.tracking.sync import FIRST_SEED, sync, sync_waiting
from tests.made_runs import training

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

ROOT = Path(__file__).resolve().parents[3]
DATA = {
    "name": "emblems",
    "path": "data/emblems/pack.arrow",
    "digest": "0123456789abcdef" * 2,
    "profile": {"images": 9},
}


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


def ranked(store: Store) -> list["LoggedModel"]:
    """The checkpoints of all trainings, the highest validation map first."""
    return list(
        store.client.search_logged_models(
            [store.experiment_id],
            "tags.dataset = 'emblems'",
            order_by=[{"field_name": "metrics.validation_map", "ascending": False}],
        )
    )


def files(store: Store) -> dict[str, str]:
    return {model.tags["epoch"]: model.tags["file"] for model in ranked(store)}


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
    models = ranked(store)
    assert [model.tags["epoch"] for model in models] == ["1", "3", "2"]
    assert files(store) == {"1": "kept", "2": "removed", "3": "kept"}
    best = Path(models[0].artifact_location.removeprefix("file://"))
    assert (best / "network.safetensors").read_text() == "epoch-1"
    assert len(list(Path("mlartifacts").rglob("network.safetensors"))) == 2
    for model, score in zip(models, (0.5, 0.4, 0.3), strict=True):
        found = {metric.key: metric for metric in model.metrics}
        assert found["validation_map"].value == score
        assert found["validation_map"].dataset_digest == DATA["digest"]
        assert found["loss"].step == int(model.tags["epoch"])
        assert model.params["learning_rate"] == "0.1"
        assert str(model.status) == "LoggedModelStatus.READY" or model.status == "READY"
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.info.status == "FINISHED"
    assert logged.inputs.dataset_inputs[0].dataset.name == "emblems"
    assert sorted(output.step for output in logged.outputs.model_outputs) == [1, 2, 3]
    assert not list(Path(".work/tracking").glob("*/"))


def test_epochs_without_a_ranking_keep_the_last_file(store: Store) -> None:
    with start() as run:
        for epoch, score in ((1, float("nan")), (2, 0.1), (3, float("nan")), (4, float("nan"))):
            run.log_epoch(row(epoch, score), save)
    assert files(store) == {"1": "removed", "2": "kept", "3": "removed", "4": "kept"}


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
    assert "waits in .work/tracking" in told
    assert [record.status for record in waiting_records()] == ["FINISHED"]

    shutil.copy(away, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/./mlflow.db")
    assert audit_record({}) == [completed_line(run.record)]
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


def completed_line(record: Record) -> str:
    return f"record: completed now, after a killed process or a lost contact: {record.name}"


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
        assert waiting_files(run.record) == {"epoch-1", "epoch-2"}
        assert waiting_records() == []  # it belongs to a living process
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
    assert audit_record({}) == [completed_line(run.record)]
    (logged,) = store.runs("tags.role = 'student'")
    assert (logged.info.status, logged.data.metrics["map"]) == ("FINISHED", 0.5)


def test_a_resumed_run_keeps_what_waits_while_the_store_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(1, 0.3), row(2, 0.9), row(3, 0.5)]
    with monkeypatch.context() as broken:
        broken.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
        killed = start(needs_store=False)
        run = killed.__enter__()
        for one in rows:
            run.log_epoch(one, save)
        waiting = {"epoch-2", "epoch-3"}
        assert waiting_files(run.record) == waiting
        record = json.loads((run.record.folder / "record.json").read_text())
        with start(needs_store=False) as again:
            for one in rows:
                again.log_epoch(one)
            assert waiting_files(again.record) == waiting
            assert again.record.rows == record["rows"]  # their times, too
            again.log_epoch(row(4, 0.6), save)
    assert audit_record({}) == [completed_line(run.record)]
    assert files(store) == {"1": "none", "2": "kept", "3": "none", "4": "kept"}


def test_a_run_that_begins_without_the_store_is_sent_once_it_returns(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr("pipeline.tracking.runs.time.monotonic", lambda: clock[0])
    with monkeypatch.context() as broken:
        broken.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
        training = start(needs_store=False)
        run = training.__enter__()
    assert "the work goes on" in capsys.readouterr().err
    run.log_epoch(row(1, 0.5), save)  # too early for another try
    assert run.logged_epochs == 0
    clock[0] += 60
    run.log_epoch(row(2, 0.4), save)
    assert run.logged_epochs == 2
    assert "is reached again" in capsys.readouterr().err
    training.__exit__(None, None, None)
    assert waiting_records() == []
    assert files(store) == {"1": "kept", "2": "kept"}


def test_work_that_needs_no_store_is_seen_from_its_start(store: Store) -> None:
    with start(needs_store=False):
        (logged,) = store.runs("tags.role = 'student'")
        assert logged.info.status == "RUNNING"


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
    }


def test_the_record_of_a_killed_process_is_completed(store: Store) -> None:
    """Killed between the row of an epoch and its way to MLflow."""
    with start() as run:
        run.log_epoch(row(1, 0.5), save)
    run.record.status = "RUNNING"
    run.record.tags |= {"process_start": "another boot 1"}
    run.record.rows.append({**row(2, 0.6), "time_ms": 1})
    save(run.record.network_file(2))
    run.record.write()
    assert audit_record({}) == [completed_line(run.record)]
    assert audit_record({}) == []
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.info.status == "KILLED"
    assert files(store) == {"1": "removed", "2": "kept"}


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
    assert audit_record(locked) == []  # no result is here, as in a clone
    network = Path("models/e/students/b-64.safetensors")
    network.parent.mkdir(parents=True)
    network.touch()
    assert audit_record(locked) == []  # empty: nothing was trained
    network.write_text("weights")
    (line,) = audit_record(locked)
    assert line.startswith("record: results of which MLflow has no run")
    assert line.endswith(": distill@b-64")
    assert current(store) == {"f1"}
    # The cache gives the other result back, and no code runs: its run is the current one then.
    audit_record({"distill@a-64": {"models/e/students/a-64.safetensors": md5[1]}})
    assert current(store) == {"f2"}


def test_a_search_stays_current_where_the_record_is_put_in_order(store: Store) -> None:
    """Its values are a result in the lock; those of a student without trials are of no run."""
    search = {"stage": "tune", "key": "a-64", "role": "search", "facts": {"dataset": "e"}}
    with tracked_run(**search, fingerprint="f1", settings={}) as run:
        run.set_tags({"output_md5": "1" * 32})
    assert current(store) == {"f1"}
    found, none = (DatasetPaths("e").tuning(key) for key in ("a-64", "b-64"))
    write_json(found, {"student": {}})
    write_json(none, {})
    locked = {
        "tune@a-64": {str(found): "1" * 32, "results/e/tuning/a-64.csv": "x"},
        "tune@b-64": {str(none): "2" * 32, "results/e/tuning/b-64.csv": "y"},
    }
    assert audit_record(locked) == []
    assert current(store) == {"f1"}
    locked["tune@a-64"][str(found)] = "3" * 32
    (line,) = audit_record(locked)
    assert line.endswith("another record: tune@a-64")
    assert current(store) == set()


def current(store: Store) -> set[str]:
    return {run.data.tags["fingerprint"] for run in store.runs("tags.current = 'yes'")}


def test_a_further_seed_does_not_take_the_place_of_the_first(store: Store) -> None:
    for fingerprint, first in (("f1", "yes"), ("f2", "no")):
        with start(fingerprint) as run:
            run.set_tags({"output_md5": fingerprint, FIRST_SEED: first})
    assert current(store) == {"f1"}
    with start("f3") as run:
        run.set_tags({"output_md5": "f3", FIRST_SEED: "yes"})
    assert current(store) == {"f3"}


def test_figures_of_an_evaluation_stand_beside_the_settings_of_the_training(store: Store) -> None:
    md5 = "1" * 32
    with start() as run:
        run.set_tags({"output_md5": md5})
        run.log_results({"seconds": 1.5})
    for network, score in ((md5, 0.5), ("2" * 32, 0.9)):  # the second is of no known training
        with tracked_run(
            stage="evaluate",
            key="a-64",
            role="asymmetric",
            fingerprint=network,
            facts={"dataset": "emblems"},
            settings={},
        ) as run:
            run.log_training(network, {"map": score, "gmacs": 0.1, "queries": 9})
    (logged,) = store.runs("tags.role = 'student'")
    assert logged.data.metrics == {"map": 0.5, "gmacs": 0.1, "seconds": 1.5}
    assert logged.data.params["learning_rate"] == "0.1"
    assert len(store.runs("tags.role = 'asymmetric'")) == 2


def test_an_ending_run_is_not_sent_by_another_process_as_well(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    other = Thread(target=lambda: sent.extend(sync_waiting(store)))

    def slow_sync(record: Record, own: Store) -> tuple[str, int]:
        other.start()
        other.join(2)
        return sync(record, own)

    with start() as run:
        run.log_results({"map": 0.5})
        monkeypatch.setattr("pipeline.tracking.runs.sync", slow_sync)
    other.join()
    assert sent == waiting_records() == []
    assert len(store.runs("")) == 1


def test_the_experiment_is_described_by_the_tables_of_the_present_study(store: Store) -> None:
    for name, verdict in (("birds", "a-64 is better"), ("gone", "of another study")):
        Path("results", name).mkdir(parents=True)
        Path("results", name, "tradeoff.md").write_text(f"| a |\n\n{verdict}\n", encoding="utf-8")
    locked = {"stages": {"evaluate@a-64": {"outs": [{"path": "results/birds/cells/a-64.json"}]}}}
    Path("dvc.lock").write_text(json.dumps(locked), encoding="utf-8")
    assert record_lines() == []
    note = store.client.get_experiment(store.experiment_id).tags[NOTE_TAG]
    assert note.startswith("**birds**: a-64 is better\n\n")  # all that MLflow shows at first
    assert note.endswith("## birds\n| a |\n\na-64 is better")
    assert f"[current results](./#/experiments/{store.experiment_id}/runs?" in note
    assert json.loads(VIEW)["name"] == "current results"
    assert "of another study" not in note


def test_of_many_studies_the_description_holds_what_there_is_room_for(store: Store) -> None:
    locked = {}
    for name in (f"study-{number}" for number in range(7)):
        Path("results", name).mkdir(parents=True)
        table = f"{'|' * (17000 if name == 'study-1' else 4000)}\n\n{name} is good\n"
        Path("results", name, "tradeoff.md").write_text(table, encoding="utf-8")
        locked[f"evaluate@{name}"] = {"outs": [{"path": f"results/{name}/cells/a.json"}]}
    Path("dvc.lock").write_text(json.dumps({"stages": locked}), encoding="utf-8")
    assert record_lines() == []
    note = store.client.get_experiment(store.experiment_id).tags[NOTE_TAG]
    assert all(f"**study-{number}**: study-{number} is good\n" in note for number in range(7))
    shown = [number for number in range(7) if f"## study-{number}\n" in note]
    assert shown == [0, 2, 3, 4]
    assert note.endswith("no room for 3 more tables: they stand in `results/`.")


def test_the_record_is_looked_at_when_the_lock_changes_or_something_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(md5: str) -> None:
        out = f"[{{path: models/e/students/a-64.safetensors, md5: '{md5}'}}]"
        Path("dvc.lock").write_text(f"stages:\n  distill@a-64:\n    outs: {out}\n")

    for fingerprint, md5 in (("f1", "1" * 32), ("f2", "2" * 32)):
        with start(fingerprint) as run:
            run.set_tags({"output_md5": md5})
    network = Path("models/e/students/a-64.safetensors")
    lock("3" * 32)
    assert record_lines() == []  # the network is not here, as in a clone
    network.parent.mkdir(parents=True)
    network.write_text("weights")  # as `dvc pull` brings it
    assert "no run" in record_lines()[0]
    assert "no run" in record_lines()[0]  # until it is put right
    lock("1" * 32)
    assert record_lines() == []
    assert current(store) == {"f1"}
    with monkeypatch.context() as unchanged:
        unchanged.setattr("pipeline.tracking.audit.audit_record", unreachable)
        assert record_lines() == []
    lock("2" * 32)  # as `git checkout` changes it
    assert record_lines() == []
    assert current(store) == {"f2"}
    run.record.write()
    assert record_lines() == [completed_line(run.record)]
    assert record_lines() == []
    Path("mlflow.db").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/./mlflow.db")
    assert "no run" in record_lines()[0]  # the record is another now, and empty


def test_a_run_that_was_deleted_is_missed_by_the_next_look(store: Store) -> None:
    """With dvc.lock as it was, as in a study that has nothing to do."""
    with start() as run:
        run.set_tags({"output_md5": "1" * 32})
    out = f"[{{path: models/e/students/a-64.safetensors, md5: '{'1' * 32}'}}]"
    Path("dvc.lock").write_text(f"stages:\n  distill@a-64:\n    outs: {out}\n")
    network = Path("models/e/students/a-64.safetensors")
    network.parent.mkdir(parents=True)
    network.write_text("weights")
    assert record_lines() == []
    store.client.delete_run(run.run_id)
    assert record_lines()[0].endswith("another record: distill@a-64")
    store.client.restore_run(run.run_id)
    assert record_lines() == []


def test_a_finished_run_is_current_at_once_and_takes_the_place_of_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a plain `dvc repro`, which looks at no record."""
    for fingerprint in ("f1", "f2"):
        with start(fingerprint) as run:
            run.set_tags({"output_md5": fingerprint})
    assert current(store) == {"f2"}
    with suppress(ArithmeticError), start("f3") as run:
        run.set_tags({"output_md5": "f3"})
        raise ArithmeticError
    monkeypatch.setattr("pipeline.tracking.sync.STUDY", Path.cwd())  # as where DVC runs experiments
    with start("f4") as run:
        run.set_tags({"output_md5": "f4"})
    assert current(store) == {"f2"}


@pytest.mark.parametrize(("started_ms", "runs"), [(1, 1), (2**42, 2)])
def test_of_two_processes_that_create_one_run_at_once_the_later_gives_way(
    store: Store, monkeypatch: pytest.MonkeyPatch, started_ms: int, runs: int
) -> None:
    """The other one creates its run between our look and our own creation."""
    create = store.client.__class__.create_run
    tags = {"dvc_stage": "distill@a-64", "role": "student", "fingerprint": "f1"}
    other = {**tags, **own_name(), "host": "another"}

    def with_another(client: "MlflowClient", *given: str, **named: dict[str, str]) -> "Run":
        create(client, *given, tags=other, start_time=started_ms)
        return create(client, *given, **named)

    monkeypatch.setattr(store.client.__class__, "create_run", with_another)
    with start() as run:
        run.log_epoch(row(1, 0.5), save)
    found = store.runs("tags.fingerprint = 'f1'")
    assert len(found) == runs  # a process deletes no run but its own
    assert found[-1].info.run_id == run.run_id  # the earliest
    assert found[-1].data.metrics["epoch"] == 1


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
    import mlflow  # noqa: F401  (once here, not in each of the processes)

    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(8, mp_context=forked) as writers:  # tells what a writer raises
        list(writers.map(write_run, [f"w{number}" for number in range(8)]))
    store = open_store()
    runs = store.runs("tags.role = 'student'")
    assert sorted(run.data.tags["fingerprint"] for run in runs) == [f"w{n}" for n in range(8)]
    assert len(store.client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")) == 1
    for run in runs:
        assert run.info.status == "FINISHED"
        history = store.client.get_metric_history(run.info.run_id, "loss")
        assert [metric.step for metric in history] == [1, 2, 3]
    assert len(ranked(store)) == 24
    assert not list(Path(".work/tracking").glob("*/"))


def test_a_run_is_told_by_its_name_where_it_waits() -> None:
    record = Record({"dvc_stage": "distill@a-64", "role": "student", "fingerprint": "f1"}, {})
    assert record.folder == Path(".work/tracking/distill-a-64-student-f1")


def test_the_runs_of_experiments_are_told_apart_by_name_and_old_views_are_renewed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.client.set_experiment_tag(store.experiment_id, VIEW_TAG, "older")
    for name in ("px-36", "px-28"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        with training(name):
            pass
        (run,) = store.runs(f"tags.experiment = '{name}'")
        assert run.info.run_name.endswith(f" ({name})")
    assert store.client.get_experiment(store.experiment_id).tags[VIEW_TAG] == VIEW
