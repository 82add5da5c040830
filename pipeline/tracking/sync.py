"""Bringing MLflow to the state of a record: it is sent what it lacks, as often as one likes."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.paths import STUDY
from pipeline.processes import own_name
from pipeline.tracking.checkpoints import log_checkpoint, prune_checkpoints
from pipeline.tracking.pages import COMPARED
from pipeline.tracking.record import KNOWN_BY, RECORDS, RUNNING, Record, waiting_records
from pipeline.tracking.store import Store, close_dead_runs, contact_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run


FIRST_SEED = "first_seed"  # tag of a training; "no" for the further seeds of a study


def sync(record: Record, store: Store) -> tuple[str, int]:
    """Find or create the run of a record and send what it lacks; its id, and its last epoch there.

    May be repeated after a failure anywhere in it. What was sent does not wait on disk any more.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    client, tags = store.client, record.tags
    run = _find_run(store, tags)
    run_id, known = run.info.run_id, run.data
    client.log_batch(
        run_id,
        _new_metrics(record.results, run),
        [Param(name, text) for name, text in record.parameters.items() if name not in known.params],
        [RunTag(name, text) for name, text in tags.items() - known.tags.items()],
    )
    if (data := record.dataset) and not (run.inputs and run.inputs.dataset_inputs):
        source, profile = json.dumps({"uri": data["path"]}), json.dumps(data["profile"])
        read = Dataset(data["name"], data["digest"], "local", source, profile=profile)
        context = InputTag("mlflow.data.context", "training")
        client.log_inputs(run_id, datasets=[DatasetInput(read, [context])])
    logged_epochs = int(known.metrics.get("epoch", 0))
    for row in record.rows:
        if row["epoch"] > logged_epochs:
            log_checkpoint(record, row, store, run_id)
            logged_epochs = int(row["epoch"])
    if record.rows:
        prune_checkpoints(store, run_id, record.keep_best)
    for md5, found in record.trainings.items():
        figures = {name: found[name] for name in COMPARED if name in found}
        for training in store.runs(f"tags.output_md5 = '{md5}'"):
            client.log_batch(training.info.run_id, metrics=_new_metrics(figures, training))
    if record.status == "FINISHED" and "output_md5" in tags:
        _make_current(store, run_id, tags)
    if record.status != RUNNING:
        client.set_terminated(run_id, record.status)
    elif run.info.status != RUNNING:
        client.update_run(run_id, status=RUNNING)
    record.forget()
    return run_id, logged_epochs


def _find_run(store: Store, tags: Mapping[str, str]) -> "Run":
    """The run of that stage, role and fingerprint, created where there is none.

    MLflow creates a second one where another process does the same at the same moment, such as in
    another checkout with the same server: the earliest stays, and each process deletes its own.
    """
    own = " and ".join(f"tags.{tag} = '{tags[tag]}'" for tag in KNOWN_BY)
    found = store.runs(own)
    if not found:
        store.client.create_run(store.experiment_id, tags=dict(tags))
        found = store.runs(own)
    first, *later = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
    for run in later:
        if all(run.data.tags.get(tag) == tags.get(tag) for tag in own_name()):
            store.client.delete_run(run.info.run_id)
    return first


def _make_current(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Give a finished run the tag of what holds now, and take it from those that it replaces.

    Not in the copy of the workspace where DVC runs an experiment: its results stay there. Nor to a
    further seed of a training: the first one is what the study searches with.
    """
    if Path() != STUDY or tags.get(FIRST_SEED) == "no":
        return
    store.client.set_tag(run_id, "current", "yes")
    others = f"tags.fingerprint != '{tags['fingerprint']}'"
    own = f"tags.current = 'yes' and tags.dvc_stage = '{tags['dvc_stage']}' and {others}"
    for run in store.runs(own):
        store.client.set_tag(run.info.run_id, "current", "no")


def sending() -> FileLock:
    """What is held while a record that has ended is sent, so that it is sent once."""
    return FileLock(RECORDS / "sending.lock")


def sync_waiting(store: Store) -> list[str]:
    """Send the records that dead or finished processes left on disk, and mark as KILLED the runs of
    dead processes that left none; the names of the runs.

    A record that the store refuses stays, and is named: it must not stand in the way of others.
    """
    sent = []
    with sending():
        for record in waiting_records():
            if record.status == RUNNING:
                record.status = "KILLED"
            try:
                sync(record, store)
                sent.append(record.name)
            except contact_errors() as error:
                sys.stderr.write(f"{record.folder}: not sent to MLflow: {error}\n")
    return sent + close_dead_runs(store)


def _new_metrics(results: Mapping[str, float], run: "Run") -> "list[Metric]":
    """Metrics of a whole run that it does not have yet."""
    from mlflow.entities import Metric

    new = results.items() - run.data.metrics.items()
    return [Metric(name, value, time.time_ns() // 1_000_000, 0) for name, value in new]
