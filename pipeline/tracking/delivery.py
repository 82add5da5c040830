"""Sending a record to MLflow: only what it lacks, in an order that a kill cannot spoil."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.paths import WORK
from pipeline.tracking.checkpoints import CheckpointLog
from pipeline.tracking.outbox import Record, now_ms, waiting_records
from pipeline.tracking.store import Store, contact_errors

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

FINAL = ("FINISHED", "FAILED", "KILLED")


class Delivery:
    """The way of one record into the store. Every `send` brings the store up to date."""

    def __init__(self, record: Record, store: Store) -> None:
        self.record = record
        self.store = store
        self.run_id = ""
        self.logged_epochs = 0
        self._checkpoints: CheckpointLog | None = None
        self._sent_tags: dict[str, str] = {}
        self._sent_results: dict[str, float] = {}

    def send(self) -> None:
        """Create or find the run and send what it lacks; a failure may be followed by a retry."""
        record, client = self.record, self.store.client
        checkpoints = self._checkpoints or self._take_up()
        self._checkpoints = None  # unless all goes well, the next try looks again
        for row in record.rows:
            if row.epoch > self.logged_epochs:
                checkpoints.log(record, row)
                self.logged_epochs = row.epoch
        if len(record.rows) >= self.logged_epochs:  # else a run was taken up, its rows are to come
            checkpoints.prune(record)
        self._send_results(checkpoints.run_id)
        self._send_tags(checkpoints.run_id)
        if record.status in FINAL:
            client.set_terminated(checkpoints.run_id, record.status)
        record.remove()
        self._checkpoints = checkpoints

    def _take_up(self) -> CheckpointLog:
        run = find_run(self.store, self.record) or self._create()
        self.run_id = run.info.run_id
        self._complete(run)
        self.logged_epochs = int(run.data.metrics.get("epoch", 0))
        checkpoints = CheckpointLog(self.store, run.info.run_id)
        checkpoints.take_up(self.logged_epochs)
        return checkpoints

    def _create(self) -> "Run":
        with FileLock(WORK / "tracking.lock"):
            found = find_run(self.store, self.record)
            return found or self.store.client.create_run(
                self.store.experiment_id, tags=self.record.tags
            )

    def _complete(self, run: "Run") -> None:
        """Give a run what it may lack since its start was cut short, and its new process."""
        from mlflow.entities import Param, RunTag

        client, run_id = self.store.client, run.info.run_id
        missing = self.record.parameters.items() - run.data.params.items()
        self._sent_tags = dict(self.record.tags)
        client.log_batch(
            run_id,
            params=[Param(name, value) for name, value in missing if name not in run.data.params],
            tags=[RunTag(name, value) for name, value in self.record.tags.items()],
        )
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        if self.record.dataset and not (run.inputs and run.inputs.dataset_inputs):
            client.log_inputs(run_id, datasets=[_dataset_input(self.record)])

    def _send_results(self, run_id: str) -> None:
        from mlflow.entities import Metric

        new = _difference(self.record.results, self._sent_results)
        if new:
            now = now_ms()
            metrics = [Metric(name, value, now, 0) for name, value in new.items()]
            self.store.client.log_batch(run_id, metrics=metrics)
            self._sent_results |= new

    def _send_tags(self, run_id: str) -> None:
        from mlflow.entities import RunTag

        new = _difference(self.record.tags, self._sent_tags)
        if new:
            tags = [RunTag(name, value) for name, value in new.items()]
            self.store.client.log_batch(run_id, tags=tags)
            self._sent_tags |= new


def find_run(store: Store, record: Record) -> "Run | None":
    """The run of the record's stage, role and fingerprint."""
    found = store.runs(
        f"tags.fingerprint = '{record.fingerprint}' and tags.role = '{record.role}' "
        f"and tags.dvc_stage = '{record.stage}@{record.key}'"
    )
    return found[-1] if found else None


def deliver_waiting(store: Store) -> list[str]:
    """Send the records that dead or finished processes left on disk; the names of the runs.

    One that the store refuses stays, and is told: it must not stand in the way of others.
    """
    delivered = []
    WORK.mkdir(exist_ok=True)
    with FileLock(WORK / "outbox.lock"):
        for record in waiting_records():
            if record.status not in FINAL:
                record.status = "KILLED"
            # Of another database, perhaps, than the one where its study was.
            record.tags["mlflow.parentRunId"] = store.study_id
            try:
                Delivery(record, store).send()
            except contact_errors() as error:
                sys.stderr.write(f"{record.folder}: not sent to MLflow: {error}\n")
            else:
                delivered.append(record.name)
    return delivered


def _dataset_input(record: Record) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = record.dataset
    assert data is not None
    dataset = Dataset(
        name=data.name,
        digest=data.digest,
        source_type="local",
        source=json.dumps({"uri": data.path}),
        profile=json.dumps(dict(data.profile)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _difference(wanted: Mapping[str, object], known: Mapping[str, object]) -> dict:
    return {name: value for name, value in wanted.items() if known.get(name) != value}
