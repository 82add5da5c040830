"""The record of every run in MLflow. Only this room imports mlflow."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.processes import own_name
from pipeline.tracking.record import Record
from pipeline.tracking.store import Store, TrackingError, open_store, tracking_errors
from pipeline.tracking.sync import sending, sync, sync_waiting

RETRY_S = 15.0  # after contact was lost, at least; and ten times as long as the last try took


class TrackedRun:
    """One open run. Losing contact with MLflow stops no training: the record waits on disk.

    What waits is sent first. Work that `needs_store`, the first of a stage, is not begun without
    it: a TrackingError is raised. Other work goes on, and its run is sent when the store is back.
    """

    def __init__(self, record: Record, *, needs_store: bool) -> None:
        self.record = record
        self.run_id = ""  # of MLflow; empty where the store was not reached
        self.logged_epochs = 0  # the last epoch that the store has
        self._store: Store | None = None
        self._trouble = ""
        self._retry_at_s = 0.0
        since_s = time.monotonic()
        record.go_on()
        try:
            with tracking_errors():
                self._store = open_store()
                sync_waiting(self._store)
                self.run_id, self.logged_epochs = sync(record, self._store)
        except TrackingError as error:
            if needs_store:
                raise
            self._lose(error, since_s)

    def log_epoch(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """Log the row of one epoch as a checkpoint, unless store or record has that epoch already.

        `save` writes the network as it is after the epoch to a path; without it the checkpoint has
        metrics only. The file stays as long as the epoch is the last or among the best.
        """
        known = max((row["epoch"] for row in self.record.rows), default=0)
        if metrics["epoch"] <= max(self.logged_epochs, known):
            return
        self.record.rows.append({**metrics, "time_ms": time.time_ns() // 1_000_000})
        if save is not None:
            save(self.record.network_file(metrics["epoch"]))
        self._send()

    def log_results(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of the whole run, which are sent with its end."""
        self.record.results |= {name: float(value) for name, value in metrics.items()}

    def log_training(self, network_md5: str, metrics: Mapping[str, float]) -> None:
        """What this evaluation found of a network; the run that trained it gets what is compared
        by, with the end of this one.
        """
        self.record.trainings[network_md5] = dict(metrics)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run, which are sent with its end."""
        self.record.tags |= tags

    def end(self, status: str) -> None:
        """Close the run; what could not be sent is named, and waits for a later contact."""
        self.record.status = status
        self._retry_at_s = 0.0
        with sending():  # a record that has ended is sent by whoever finds it
            self._send()
        if self._trouble:
            sys.stderr.write(
                f"MLflow could not be reached ({self._trouble}): the record of this run waits in "
                f"{self.record.folder} and is sent when a later stage or study reaches it\n"
            )

    def _send(self) -> None:
        """Leave the record on disk and send what the store lacks; where it is lost, try later."""
        self.record.write()
        since_s = time.monotonic()
        if since_s < self._retry_at_s:
            return
        try:
            with tracking_errors():
                self._store = self._store or open_store()
                self.run_id, self.logged_epochs = sync(self.record, self._store)
        except TrackingError as error:
            self._lose(error, since_s)
            return
        if self._trouble:
            sys.stderr.write("MLflow is reached again: its record is complete\n")
        self._trouble = ""

    def _lose(self, error: TrackingError, since_s: float) -> None:
        """Say once that the store is lost; the next try waits, the longer the slower this one."""
        if not self._trouble:
            sys.stderr.write(f"MLflow cannot be reached, the work goes on: {error}\n")
        self._trouble, now_s = str(error), time.monotonic()
        self._retry_at_s = now_s + max(RETRY_S, 10 * (now_s - since_s))


@contextmanager
def tracked_run(
    *,
    stage: str,
    key: str,
    role: str,
    fingerprint: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    dataset: Mapping[str, Any] | None = None,
    keep_best: int = 0,
    needs_store: bool = True,
    parent: TrackedRun | None = None,
) -> Iterator[TrackedRun]:
    """A run, found again by its stage, role and fingerprint.

    `facts` (data set, query_px, network, backbone ...) become tags and parameters, `settings` are
    flattened into parameters. A run that ends in an error is marked FAILED, an interrupted one
    KILLED. Of its checkpoints the `keep_best` best and the last keep their files. Raises
    TrackingError when the store cannot be reached at the start, unless not `needs_store`: work of
    this stage is done then. There, and later, that is a message, and the record waits on disk.
    parent: the run that this one, a `trial` among its facts, stands under.
    """
    texts = {name: str(value) for name, value in facts.items()}
    experiment = os.environ.get("DVC_EXP_NAME")
    name = f"{stage} {key}" if role in stage else f"{stage} {key} {role}"
    name += f" trial {texts['trial']}" if "trial" in texts else ""
    tags = {
        "mlflow.runName": f"{name} ({experiment})" if experiment else name,
        "dvc_stage": f"{stage}@{key}",
        "role": role,
        "fingerprint": fingerprint,
        "git_commit": git_commit(),
        "experiment": experiment or "none",
        **({"mlflow.parentRunId": parent.run_id} if parent and parent.run_id else {}),
        **own_name(),
        **texts,
    }
    parameters = {"role": role, **texts, **_flattened(settings)}
    run = TrackedRun(Record(tags, parameters, dataset, keep_best), needs_store=needs_store)
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.end(status)


def _flattened(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings by the names of their leaves, which are the same in every stage."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        flat |= _flattened(value) if isinstance(value, Mapping) else {name: str(value)}
    return flat


def git_commit() -> str:
    """The commit of the working copy, marked when it has changes; "none" outside of git, or where
    git is not installed.
    """
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return "none"
    return done.stdout.strip() or "none"
