"""The MLflow store, opened safely by many processes at once."""

import json
import logging
import os
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import url2pathname

from filelock import FileLock

from pipeline.paths import STUDY, WORK
from pipeline.processes import is_dead, prepare_process
from pipeline.tracking.pages import VIEW, VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "large-to-small"
MAX_RUNS = 50_000  # that MLflow gives in one answer
OPENING = STUDY / WORK / "tracking.lock"
# Where MLflow keeps full addresses of files, which a database takes along when it is copied.
ADDRESSES = (
    "experiments.artifact_location runs.artifact_uri logged_models.artifact_location "
    "model_versions.source model_versions.storage_location"
)


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
    """The address of the record; that of a file is the same for experiments in other folders."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = database_path(uri)
    return f"sqlite:///{STUDY / path}" if path and not path.is_absolute() else uri


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

    Its experiment may have been deleted: MLflow would refuse new runs, after the work. A database
    that was moved or copied is corrected: it names the files beside it.
    """
    set_up_mlflow()
    uri, experiment = tracking_uri(), {}
    if uri.startswith(("http://", "https://")):
        experiment = _ask_server(uri)
    elif path := database_path(uri):
        experiment = _open_database(path)
    if experiment.get("lifecycle_stage") == "deleted":
        raise OSError(
            f"its experiment {EXPERIMENT!r} was deleted; `MLFLOW_TRACKING_URI={uri} mlflow "
            f"experiments restore --experiment-id {experiment['experiment_id']}` brings it back"
        )


def has_store() -> bool:
    """Whether there may be a record to read: False for a database file that is not there yet."""
    path = database_path(tracking_uri())
    return path is None or path.exists()


@tracking_errors()
def database_mark() -> str:
    """What changes with the content of a database; empty for a server, which must be asked."""
    if (path := database_path(tracking_uri())) is None:
        return ""
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        connection.execute("PRAGMA wal_checkpoint(truncate)")  # what is new is in the file now
    return str(path.stat().st_mtime_ns)


@tracking_errors()
def open_store() -> Store:
    """Open the store; database and experiment are created once, under a lock.

    Several processes that meet an empty database would break it for good. Raises TrackingError.
    """
    require_store()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    with FileLock(OPENING):
        client = MlflowClient(tracking_uri=uri)
        path = database_path(uri)
        location = files_folder(path).as_uri() if path else None
        while not (found := client.get_experiment_by_name(EXPERIMENT)):
            try:
                client.create_experiment(EXPERIMENT, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another checkout
                    raise
        if found.tags.get(VIEW_TAG) != VIEW:
            with suppress(MlflowException):  # another checkout gives it at the same moment
                client.set_experiment_tag(found.experiment_id, VIEW_TAG, VIEW)
    return Store(client, found.experiment_id)


def close_dead_runs(store: Store) -> list[str]:
    """Mark as KILLED the runs whose process on this machine has ended; their names."""
    dead = [run for run in store.runs("attributes.status = 'RUNNING'") if is_dead(run.data.tags)]
    for run in dead:
        store.client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_name for run in dead]


def set_up_mlflow() -> None:
    """No telemetry, no addresses or tracebacks among our own lines, and not for minutes without an
    answer.

    Values that are set stay. A server of this machine is asked without a proxy.
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
    if not os.environ.get("L2S_DEBUG"):  # what it raises, too, and we tell in words
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def import_mlflow() -> None:
    """Import MLflow: more than a second, which a thread can spend before a store is opened."""
    set_up_mlflow()
    import mlflow  # noqa: F401


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


def database_path(uri: str) -> Path | None:
    """The file of an SQLite store; None for a store of another kind."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def files_folder(database: Path) -> Path:
    """Where the files of the runs in a database lie: beside it."""
    return database.parent.resolve() / "mlartifacts"


def _open_database(path: Path) -> dict[str, Any]:
    """The experiment in an SQLite file, empty where there is none yet.

    From now on readers and a writer of the file work side by side, and its addresses are right.
    """
    with FileLock(OPENING), closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=wal")
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
        if not tables.fetchone():
            return {}
        columns = "experiment_id, lifecycle_stage, artifact_location"
        query = f"SELECT {columns} FROM experiments WHERE name = ?"  # noqa: S608
        experiment = dict(connection.execute(query, (EXPERIMENT,)).fetchone() or {})
        if experiment:
            _correct_addresses(connection, experiment["artifact_location"], files_folder(path))
        return experiment


def _correct_addresses(connection: sqlite3.Connection, recorded: str, here: Path) -> None:
    """Let a database that was moved or copied name the files beside it, not those of its origin.

    Addresses that do not end as ours do were chosen by the user, and stay. Raises OSError where
    the files did not come along: nothing is written to, or deleted from, the place of origin.
    """
    there = Path(url2pathname(recorded.removeprefix("file://")))
    is_ours = recorded.startswith("file://") and there.name == here.name
    if not is_ours or there.resolve() == here.resolve():
        return
    if there.exists() and not here.exists():
        raise OSError(
            f"it was copied or moved without the files of its runs, which lie in {there}: copy "
            f"that folder to {here}, or make an empty folder there to go on without them"
        )
    with connection:  # one transaction
        for table, _, column in (name.partition(".") for name in ADDRESSES.split()):
            statement = f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
            statement += f"WHERE substr({column} || '/', 1, ?) = ? || '/'"
            length = len(recorded) + 1
            connection.execute(statement, (here.as_uri(), length, length, recorded))
    sys.stderr.write(f"MLflow's record was made in {there.parent}: it names the files here now\n")
