"""What was deleted in MLflow is deleted for good, with its files; nothing else is."""

from pathlib import Path

import pytest

from pipeline.tracking.cleanup import free_deleted
from pipeline.tracking.store import open_store, tracking_uri
from tests.made_runs import training

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


def train(fingerprint: str) -> str:
    """The id of the run of a training whose file of weights has a megabyte."""
    with training(fingerprint) as run:
        run.log_epoch({"epoch": 1}, save)
    return run.run_id


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(1_000_000))


def files() -> list[Path]:
    return list(Path("mlartifacts").rglob("*.safetensors"))


def test_the_files_of_a_deleted_run_are_freed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    kept, deleted = train("f1"), train("f2")
    store = open_store()
    store.client.delete_run(deleted)
    assert len(files()) == 2
    text = free_deleted(store, tracking_uri())
    assert f"Run with ID {deleted} has been permanently deleted" in text
    assert text.endswith(f"freed 1.0 MB of {tmp_path}/mlartifacts")
    assert len(files()) == 1
    (run,) = store.runs("")
    assert run.info.run_id == kept
    assert free_deleted(store, tracking_uri()) == f"freed 0.0 MB of {tmp_path}/mlartifacts"
