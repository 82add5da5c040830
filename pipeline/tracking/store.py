"""The MLflow store, opened safely by many processes at once."""

import json
import os
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from filelock import FileLock

from pipeline.paths import WORK
from pipeline.processes import is_dead, prepare_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "large-to-small"
MAX_RUNS = 50_000  # that MLflow gives in one answer
OPENING = WORK / "tracking.lock"
CHECKED = WORK / "tracking.checked"  # for which dvc.lock the record was last found in order


class TrackingError(OSError):
    """The tracking store cannot be used."""


@dataclass(frozen=True)
class Store:
    """An open store: its client, and the experiment of all runs."""

    client: "MlflowClient"
    experiment_id: str

    def runs(self, condition: str) -> list["Run"]:
        """The runs that meet a condition in MLflow's words, the latest first."""
        return list(self.client.search_runs([self.experiment_id], condition, max_results=MAX_RUNS))


def tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def contact_errors() -> tuple[type[Exception], ...]:
    """What calls of the store raise when it is out of reach or refuses."""
    mlflow = sys.modules.get("mlflow.exceptions")  # never imported for this: it takes seconds
    return OSError, sqlite3.Error, *((mlflow.MlflowException,) if mlflow else ())


@contextmanager
def tracking_errors(trouble: str = "the tracking store cannot be used") -> Iterator[None]:
    """Turn what calls of the store raise into a TrackingError, which names store and trouble."""
    try:
        yield
    except TrackingError:
        raise
    except contact_errors() as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        named = f"MLFLOW_TRACKING_URI = {tracking_uri()!r}"
        raise TrackingError(f"{named}: {trouble}: {reason}") from error


@tracking_errors()
def require_store() -> None:
    """Raise TrackingError, in words, when the store plainly cannot be used; cheap, no import.

    Its experiment may have been deleted: MLflow would refuse new runs, after the work.
    """
    uri, experiment = tracking_uri(), {}
    if uri.startswith(("http://", "https://")):
        experiment = _ask_server(uri)
    elif path := _database(uri):
        experiment = _open_database(path)
    if experiment.get("lifecycle_stage") == "deleted":
        raise OSError(
            f"its experiment {EXPERIMENT!r} was deleted; `MLFLOW_TRACKING_URI={uri} mlflow "
            f"experiments restore --experiment-id {experiment['experiment_id']}` brings it back"
        )


def has_store() -> bool:
    """Whether there may be a record to read: False for a database file that is not there yet."""
    path = _database(tracking_uri())
    return path is None or path.exists()


@tracking_errors()
def open_store() -> Store:
    """Open the store; database and experiment are created once, under a lock.

    Several processes that meet an empty database would break it for good. Raises TrackingError.
    """
    require_store()
    silence_mlflow()
    from mlflow import MlflowClient

    uri = tracking_uri()
    with FileLock(OPENING):
        client = MlflowClient(tracking_uri=uri)
        if found := client.get_experiment_by_name(EXPERIMENT):
            return Store(client, found.experiment_id)
        location = Path("mlartifacts").resolve().as_uri() if _database(uri) else None
        return Store(client, client.create_experiment(EXPERIMENT, artifact_location=location))


def close_dead_runs(store: Store) -> list[str]:
    """Mark as KILLED the runs whose process on this machine has ended; their names."""
    dead = [run for run in store.runs("attributes.status = 'RUNNING'") if is_dead(run.data.tags)]
    for run in dead:
        store.client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_name for run in dead]


def silence_mlflow() -> None:
    """No telemetry, no addresses among our own lines, and not for minutes without an answer.

    Values that are set stay.
    """
    prepare_process()
    settings = {
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _ask_server(uri: str) -> dict[str, Any]:
    """The experiment on a server; empty where there is none yet, or the server refuses to say: a
    refusal comes again, in MLflow's own words.
    """
    question = "api/2.0/mlflow/experiments/get-by-name?experiment_name="
    address = f"{uri.rstrip('/')}/{question}{EXPERIMENT}"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["experiment"]
    except (HTTPError, ValueError):
        return {}


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _open_database(path: Path) -> dict[str, Any]:
    """The experiment in an SQLite file, empty where there is none yet.

    From now on readers and a writer of the file work side by side.
    """
    if not path.exists():
        CHECKED.unlink(missing_ok=True)
    with FileLock(OPENING), closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=wal")
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
        if not tables.fetchone():
            return {}
        query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
        return dict(connection.execute(query, (EXPERIMENT,)).fetchone() or {})
