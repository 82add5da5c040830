"""The MLflow store: opened safely by many processes at once, with the study all runs hang under."""

import os
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from filelock import FileLock

from pipeline.paths import WORK
from pipeline.processes import is_dead

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "large-to-small"
STUDY_RUN = "study"
DEFAULT_URI = "sqlite:///mlflow.db"
ANSWER_PATIENCE_S = 10


class TrackingError(OSError):
    """The tracking store cannot be used."""


@dataclass(frozen=True)
class Store:
    """An open store: its client, the experiment, and the study's parent run."""

    client: "MlflowClient"
    experiment_id: str
    study_id: str

    def runs(self, condition: str) -> list["Run"]:
        """The runs of the experiment that meet a condition in MLflow's words, all of them."""
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found


def tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def require_store() -> None:
    """Raise TrackingError, in words, when the store plainly cannot be used; cheap, no import."""
    uri = tracking_uri()
    try:
        if uri.startswith(("http://", "https://")):
            _call(uri)
        elif path := _database(uri):
            _use_write_ahead_log(path)
    except (OSError, sqlite3.Error, ValueError) as error:
        raise _refusal(error) from error


def has_store() -> bool:
    """Whether there may be a record to read: False for a database file that is not there yet."""
    path = _database(tracking_uri())
    return path is None or path.exists()


def open_store() -> Store:
    """Open the store; database, experiment and study are created once, under a lock.

    Several processes that meet an empty database would break it for good. Raises TrackingError.
    """
    require_store()
    _be_quiet()
    from mlflow import MlflowClient

    uri = tracking_uri()
    with _refusing(), FileLock(WORK / "tracking.lock"):
        client = MlflowClient(tracking_uri=uri)
        experiment_id = _find_or_create_experiment(client, uri)
        return Store(client, experiment_id, _find_or_create_study(client, experiment_id))


def contact_errors() -> tuple[type[Exception], ...]:
    """What calls of the store raise when it is out of reach or refuses."""
    from mlflow.exceptions import MlflowException

    return MlflowException, OSError, sqlite3.Error


def close_dead_runs(store: Store) -> list[str]:
    """Mark as KILLED the runs whose process on this machine has ended; their names."""
    names = []
    for run in store.runs("attributes.status = 'RUNNING'"):
        if is_dead(run.data.tags):
            store.client.set_terminated(run.info.run_id, "KILLED")
            names.append(run.info.run_name)
    return names


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except contact_errors() as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> TrackingError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TrackingError(
        f"MLFLOW_TRACKING_URI = {tracking_uri()!r}: the tracking store cannot be used: {reason}"
    )


def _be_quiet() -> None:
    """Offline, and not for minutes without an answer. Values that are set stay."""
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _call(uri: str) -> None:
    """Any answer will do: one that refuses tells in MLflow's own words."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_PATIENCE_S):  # noqa: S310
            pass
    except HTTPError:
        pass


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _use_write_ahead_log(database: Path) -> None:
    """Let readers and a writer of the SQLite file work side by side."""
    WORK.mkdir(exist_ok=True)
    with FileLock(WORK / "tracking.lock"):
        connection = sqlite3.connect(database, timeout=60)
        try:
            connection.execute("PRAGMA journal_mode=wal")
        finally:
            connection.close()


def _find_or_create_experiment(client: "MlflowClient", uri: str) -> str:
    experiment: Any = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = Path("mlartifacts").resolve().as_uri() if _database(uri) else None
    return client.create_experiment(EXPERIMENT, artifact_location=location)


def _find_or_create_study(client: "MlflowClient", experiment_id: str) -> str:
    studies = client.search_runs(
        [experiment_id],
        "tags.role = 'study'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    if studies:
        return studies[0].info.run_id
    run = client.create_run(experiment_id, tags={"role": "study"}, run_name=STUDY_RUN)
    client.set_terminated(run.info.run_id, "FINISHED")
    return run.info.run_id
