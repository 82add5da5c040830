"""Bringing MLflow to the state of a record: it is sent what it lacks, as often as one likes."""

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.tracking.checkpoints import log_checkpoint, prune_checkpoints
from pipeline.tracking.record import (
    KNOWN_BY,
    RECORDS,
    RUNNING,
    DatasetFacts,
    Record,
    waiting_records,
)
from pipeline.tracking.store import Store, contact_errors

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run


EVALUATED = "network_md5"  # tag of an evaluation: the network, whose training gets its figures, too
COMPARED = ("map", "recall_at_1", "gmacs", "latency_ms")


def sync(record: Record, store: Store) -> tuple[str, int]:
    """Find or create the run of a record and send what it lacks; its id, and its last epoch there.

    May be repeated after a failure anywhere in it. What was sent does not wait on disk any more.
    """
    from mlflow.entities import Param, RunTag

    client, tags = store.client, record.tags
    found = store.runs(" and ".join(f"tags.{tag} = '{tags[tag]}'" for tag in KNOWN_BY))
    run = found[-1] if found else client.create_run(store.experiment_id, tags=tags)
    run_id, known = run.info.run_id, run.data
    metrics = _new_metrics(record.results, run)
    params = record.parameters.items()
    new_params = [Param(name, value) for name, value in params if name not in known.params]
    new_tags = [RunTag(name, value) for name, value in tags.items() - known.tags.items()]
    if metrics or new_params or new_tags:
        client.log_batch(run_id, metrics, new_params, new_tags)
    if record.dataset and not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run_id, datasets=[_dataset_input(record.dataset)])
    logged_epochs = int(known.metrics.get("epoch", 0))
    for row in record.rows:
        if row["epoch"] > logged_epochs:
            log_checkpoint(record, row, store, run_id)
            logged_epochs = int(row["epoch"])
    if record.rows:
        prune_checkpoints(store, run_id, record.keep_best)
    if EVALUATED in tags:
        figures = {name: record.results[name] for name in COMPARED if name in record.results}
        for training in store.runs(f"tags.output_md5 = '{tags[EVALUATED]}'"):
            client.log_batch(training.info.run_id, metrics=_new_metrics(figures, training))
    if record.status != RUNNING:
        client.set_terminated(run_id, record.status)
    elif run.info.status != RUNNING:
        client.update_run(run_id, status=RUNNING)
    record.forget()
    return run_id, logged_epochs


def sync_waiting(store: Store) -> list[str]:
    """Send the records that dead or finished processes left on disk; the names of the runs.

    One that the store refuses stays, and is named: it must not stand in the way of others.
    """
    sent = []
    RECORDS.mkdir(parents=True, exist_ok=True)
    with FileLock(RECORDS / "sending.lock"):
        for record in waiting_records():
            if record.status == RUNNING:
                record.status = "KILLED"
            try:
                sync(record, store)
            except contact_errors() as error:
                sys.stderr.write(f"{record.folder}: not sent to MLflow: {error}\n")
            else:
                sent.append(record.name)
    return sent


def _new_metrics(results: Mapping[str, float], run: "Run") -> "list[Metric]":
    """Metrics of a whole run that it does not have yet."""
    from mlflow.entities import Metric

    new = results.items() - run.data.metrics.items()
    return [Metric(name, value, time.time_ns() // 1_000_000, 0) for name, value in new]


def _dataset_input(data: DatasetFacts) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.name,
        digest=data.digest,
        source_type="local",
        source=json.dumps({"uri": data.path}),
        profile=json.dumps(dict(data.profile)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
