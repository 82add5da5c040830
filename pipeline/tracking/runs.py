"""The record of every run in MLflow. Only this room imports mlflow."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.files import file_md5
from pipeline.processes import own_name
from pipeline.tracking.delivery import Delivery, deliver_waiting
from pipeline.tracking.outbox import DatasetFacts, Record
from pipeline.tracking.store import (
    Store,
    TrackingError,
    close_dead_runs,
    contact_errors,
    open_store,
    require_store,
)

__all__ = [
    "DatasetFacts",
    "TrackedRun",
    "TrackingError",
    "add_to_trainings",
    "require_store",
    "tracked_run",
]

RETRY_S = (15.0, 300.0)  # after contact was lost: the first try, and the longest pause


class TrackedRun:
    """One open run. Losing contact with MLflow stops no training: the record waits on disk."""

    def __init__(self, record: Record, store: Store | None, trouble: str = "") -> None:
        self.record = record
        self._delivery = None if store is None else Delivery(record, store)
        self._trouble = trouble
        self._pause_s = RETRY_S[0]
        self._retry_at_s = 0.0

    @property
    def run_id(self) -> str:
        """Of MLflow; empty where the store was not reached."""
        return self._delivery.run_id if self._delivery else ""

    @property
    def logged_epochs(self) -> int:
        """The last epoch that the store has."""
        return self._delivery.logged_epochs if self._delivery else 0

    def log_epoch(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """Log the row of one epoch as a checkpoint, unless the record has that epoch already.

        `save` writes the network as it is after the epoch to a path; without it, or where the
        epoch is neither the last nor among the best, the checkpoint has metrics only.
        """
        epoch = int(metrics["epoch"])
        self.record.add_row(metrics)
        if epoch <= self.logged_epochs:
            return
        if save is not None and epoch in self.record.epochs_with_files():
            save(self.record.network_file(epoch))
        self._send()

    def log_results(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of the whole run."""
        self.record.results |= {name: float(value) for name, value in metrics.items()}
        self._send()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.record.tags |= tags
        self._send()

    def begin(self) -> None:
        """Create the run, or take it up. Raises what contact_errors() names."""
        assert self._delivery is not None
        self._delivery.send()

    def end(self, status: str) -> None:
        """Close the run; what could not be sent is told, and waits for a later contact."""
        self.record.status = status
        self._retry_at_s = 0.0
        self._send()
        if self._trouble:
            sys.stderr.write(
                f"MLflow could not be reached ({self._trouble}): the record of this run waits in "
                f"{self.record.folder} and is sent when a later stage or study reaches it\n"
            )

    def _send(self) -> None:
        """Send what the store lacks; where it cannot be reached, keep it on disk, try later."""
        if self._delivery is None or time.monotonic() < self._retry_at_s:
            self.record.write()
            return
        try:
            self._delivery.send()
        except contact_errors() as error:
            if not self._trouble:
                sys.stderr.write(f"MLflow cannot be reached, the work goes on: {_first(error)}\n")
            else:
                self._pause_s = min(2 * self._pause_s, RETRY_S[1])
            self._trouble = _first(error)
            self._retry_at_s = time.monotonic() + self._pause_s
            self.record.write()
        else:
            if self._trouble:
                sys.stderr.write("MLflow is reached again: its record is complete\n")
            self._trouble, self._pause_s = "", RETRY_S[0]


@contextmanager
def tracked_run(
    *,
    stage: str,
    key: str,
    role: str,
    fingerprint: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    dataset: DatasetFacts | None = None,
    keep_best: int = 0,
    needs_store: bool = True,
) -> Iterator[TrackedRun]:
    """A run under the study's parent run, found again by its stage, role and fingerprint.

    `facts` (data set, query_px, network, backbone ...) become tags and parameters, `settings` are
    flattened into parameters. A run that ends in an error is marked FAILED, an interrupted one
    KILLED. Of its checkpoints the `keep_best` best and the last keep their files. Raises
    TrackingError when the store cannot be reached at the start, unless not `needs_store`: the work
    is done then, and its record waits on disk. Later that is told, and no error.
    """
    store, trouble = _open(needs_store=needs_store)
    texts = {name: str(value) for name, value in facts.items()}
    record = Record(
        stage=stage,
        key=key,
        role=role,
        fingerprint=fingerprint,
        tags={
            "mlflow.parentRunId": store.study_id if store else "",
            "mlflow.runName": f"{stage} {key}" if role in stage else f"{stage} {key} {role}",
            "dvc_stage": f"{stage}@{key}",
            "role": role,
            "fingerprint": fingerprint,
            "git_commit": git_commit(),
            **own_name(),
            **texts,
        },
        parameters={"role": role, **texts, **_flattened(settings)},
        dataset=dataset,
        keep_best=keep_best,
    )
    run = TrackedRun(record, store, trouble)
    try:
        if store is not None:
            close_dead_runs(store)
            deliver_waiting(store)
            run.begin()
    except contact_errors() as error:
        raise TrackingError(f"the tracking store refused a run: {_first(error)}") from error
    try:
        yield run
    except Exception:
        run.end("FAILED")
        raise
    except BaseException:
        run.end("KILLED")
        raise
    run.end("FINISHED")


def _open(*, needs_store: bool) -> tuple[Store | None, str]:
    """The store, or why it is not reached."""
    try:
        return open_store(), ""
    except TrackingError as error:
        if needs_store:
            raise
        return None, str(error)


def add_to_trainings(networks: Mapping[Path, Mapping[str, float]]) -> None:
    """Log metrics on the runs that trained the given networks, to compare trainings by them.

    A network that no run of this store has trained is passed over: `l2s study` names such ones.
    """
    try:
        store = open_store()
        for network, metrics in networks.items():
            for run in store.runs(f"tags.output_md5 = '{file_md5(network)}'"):
                known = run.data.metrics
                for name, value in metrics.items():
                    if known.get(name) != value:
                        store.client.log_metric(run.info.run_id, name, value)
    except contact_errors() as error:
        sys.stderr.write(f"MLflow cannot be reached, the work goes on: {_first(error)}\n")


def _flattened(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings by the names of their leaves, which are the same in every stage."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        flat |= _flattened(value) if isinstance(value, Mapping) else {name: str(value)}
    return flat


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def git_commit() -> str:
    """The commit of the working copy, marked when it has changes, or "none" outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or "none"
