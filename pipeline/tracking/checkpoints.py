"""Checkpoints as logged models of MLflow: metrics of all, files of the best and the last."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.outbox import RANKING, EpochRow, Record
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

PAGE = 100


@dataclass
class CheckpointLog:
    """The logged models of one run. `_kept` holds those, by epoch, that have a file now."""

    store: Store
    run_id: str
    _kept: "dict[int, LoggedModel]" = field(default_factory=dict)

    def take_up(self, logged_epochs: int) -> None:
        """See what the store has; delete models of epochs that a kill kept from being logged."""
        self._kept = {}
        for model in self._models():
            epoch = int(model.tags["epoch"])
            if epoch > logged_epochs:
                self.store.client.delete_logged_model(model.model_id)
                self._delete_file(model)
            elif model.tags["file"] == "kept":
                self._kept[epoch] = model

    def log(self, record: Record, row: EpochRow) -> None:
        """One epoch: its model, which is linked to run, data set and metrics, and its metrics.

        The metrics come last, in one call: an epoch that has them is logged whole.
        """
        from mlflow.entities import LoggedModelOutput

        client = self.store.client
        file = record.network_file(row.epoch)
        is_kept = file.exists() and row.epoch in record.epochs_with_files()
        model = client.create_logged_model(
            self.store.experiment_id,
            name=_name(f"{record.role}-{record.key}"),
            source_run_id=self.run_id,
            tags={
                "epoch": str(row.epoch),
                "file": "kept" if is_kept else "none",
                **{name: record.tags[name] for name in _LINKS if name in record.tags},
            },
            params={"epoch": str(row.epoch), **record.parameters},
            model_type=record.role,
        )
        if is_kept:
            client.log_model_artifact(model.model_id, str(file))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, row.epoch)])
        client.log_batch(self.run_id, metrics=epoch_metrics(record, row, model.model_id))
        if is_kept:
            self._kept[row.epoch] = model

    def prune(self, record: Record) -> None:
        """Delete the files of checkpoints that are neither among the best nor the last now."""
        for epoch in sorted(self._kept.keys() - record.epochs_with_files()):
            model = self._kept[epoch]
            self._delete_file(model)
            self.store.client.set_logged_model_tags(model.model_id, {"file": "removed"})
            del self._kept[epoch]

    def _models(self) -> "Iterator[LoggedModel]":
        token: str | None = None
        while True:
            page = self.store.client.search_logged_models(
                [self.store.experiment_id],
                f"source_run_id = '{self.run_id}'",
                max_results=PAGE,
                page_token=token,
            )
            yield from (model for model in page if "epoch" in model.tags)
            token = page.token
            if not token:
                return

    def _delete_file(self, model: "LoggedModel") -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(model.artifact_location).delete_artifacts()


_LINKS = ("dataset", "role", "network", "query_px", "backbone", "fingerprint", "dvc_stage")


def epoch_metrics(record: Record, row: EpochRow, model_id: str | None = None) -> "list[Metric]":
    """The metrics of one epoch, of the run and, if given, of the model."""
    from mlflow.entities import Metric

    data = record.dataset
    return [
        Metric(
            name,
            float(value),
            row.time_ms,
            row.epoch,
            model_id=model_id,
            dataset_name=data.name if data else None,
            dataset_digest=data.digest if data else None,
        )
        for name, value in row.metrics.items()
    ]


def ranked_checkpoints(store: Store, dataset: str, limit: int = 10) -> "list[LoggedModel]":
    """The checkpoints of all trainings on a data set, the highest validation map first."""
    return list(
        store.client.search_logged_models(
            [store.experiment_id],
            f"tags.dataset = '{dataset}'",
            max_results=limit,
            order_by=[{"field_name": f"metrics.{RANKING}", "ascending": False}],
        )
    )


def network_path(
    store: Store, model: "LoggedModel", folder: Path, name: str = "network.safetensors"
) -> Path:
    """Fetch the network of a logged model whose file is kept, into `folder`."""
    from mlflow.artifacts import download_artifacts

    fetched = download_artifacts(
        artifact_uri=f"{model.artifact_location}/{name}",
        dst_path=str(folder),
        tracking_uri=store.client.tracking_uri,
    )
    return Path(fetched)


def _name(text: str) -> str:
    """A text as MLflow takes it for a model's name."""
    return "".join("_" if sign in "/:.%\"'" else sign for sign in text)
