"""Checkpoints as logged models of MLflow: metrics of all, files of the best and the last."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.tracking.record import Record, kept_epochs
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel


def log_checkpoint(record: Record, row: Mapping[str, float], store: Store, run_id: str) -> None:
    """One epoch: its model, which is linked to run, data set and metrics, and its metrics.

    The metrics come last, in one call: an epoch that has them is logged whole. What a kill left of
    this epoch before them is deleted.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    client, epoch = store.client, int(row["epoch"])
    for model in _models(store, f"source_run_id = '{run_id}' and tags.epoch = '{epoch}'"):
        client.delete_logged_model(model.model_id)
        _delete_file(model)
    file = record.network_file(epoch)
    role, key = record.tags["role"], record.tags["dvc_stage"].partition("@")[2]
    model = client.create_logged_model(
        store.experiment_id,
        name=re.sub(r"[/:.%\"']", "_", f"{role}-{key}"),
        source_run_id=run_id,
        tags={**record.tags, "epoch": str(epoch), "file": "kept" if file.exists() else "none"},
        params={"epoch": str(epoch), **record.parameters},
        model_type=role,
    )
    if file.exists():
        client.log_model_artifact(model.model_id, str(file))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, epoch)])
    data = record.dataset or {}
    origin = (model.model_id, data.get("name"), data.get("digest"))
    metrics = {name: float(value) for name, value in row.items() if name != "time_ms"}
    client.log_batch(
        run_id,
        [Metric(*metric, int(row["time_ms"]), epoch, *origin) for metric in metrics.items()],
    )


def prune_checkpoints(store: Store, run_id: str, keep_best: int) -> None:
    """Delete the files of checkpoints that are neither among the best nor the last now."""
    own = f"source_run_id = '{run_id}' and tags.file = 'kept'"
    kept = {int(model.tags["epoch"]): model for model in _models(store, own)}
    rows = [
        {**{metric.key: metric.value for metric in model.metrics or ()}, "epoch": epoch}
        for epoch, model in kept.items()
    ]
    for epoch in kept.keys() - kept_epochs(rows, keep_best):
        _delete_file(kept[epoch])
        store.client.set_logged_model_tags(kept[epoch].model_id, {"file": "removed"})


def delete_orphans(store: Store) -> None:
    """Delete the checkpoints of deleted runs, as MLflow does not; their files stay until its gc."""
    alive = {run.info.run_id for run in store.runs("")}
    for model in _models(store, "tags.file = 'kept'"):
        if model.source_run_id not in alive:
            store.client.delete_logged_model(model.model_id)


def _models(store: Store, condition: str) -> "list[LoggedModel]":
    ids = [store.experiment_id]
    page = store.client.search_logged_models(ids, condition)
    found = list(page)
    while page.token:
        page = store.client.search_logged_models(ids, condition, page_token=page.token)
        found += page
    return found


def _delete_file(model: "LoggedModel") -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(model.artifact_location).delete_artifacts()
