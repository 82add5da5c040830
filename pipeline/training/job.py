"""One training from its settings to a saved network: resumable and recorded."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pipeline.config.params import Compute
from pipeline.config.recipes import DistillationRecipe, Network, TripletRecipe
from pipeline.devices import loading_threads
from pipeline.files import file_md5, write_text
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard, save_network
from pipeline.paths import WORK, DatasetPaths, history_path
from pipeline.tracking.record import DatasetFacts, fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.training.checkpoints import Row, load_checkpoint
from pipeline.training.loop import Objective, Schedule, train
from pipeline.training.team import Team
from pipeline.training.work_folders import close_work_folder, open_work_folder
from pipeline.views.coupled import ViewRecipe


@dataclass(frozen=True)
class TrainingJob:
    """What is trained and why. `inputs` are the files that the result depends on.

    `settings` are all values that shape the result; with inputs and code they are the fingerprint.
    The first input is the pack. Of the checkpoints the `keep_best` best and the last keep files.
    """

    stage: str
    key: str
    role: str
    dataset: str
    card: NetworkCard
    settings: Mapping[str, Any]
    inputs: tuple[Path, ...]
    output: Path
    keep_best: int


def run_training(
    job: TrainingJob,
    network: Embedder,
    objective: Objective,
    schedule: Schedule,
    validate: Callable[[nn.Module], Row],
    team: Team,
) -> None:
    """Train, record, and write the network and its table of epochs.

    An interrupted training of the same fingerprint goes on from its last checkpoint. Of a team the
    leading process records and writes.
    """
    run_epochs = partial(
        train,
        network,
        objective,
        schedule,
        validate=validate,
        loading_threads=loading_threads(network.projection.weight.device),
        team=team,
    )
    if not team.leads:
        run_epochs(folder=WORK, on_epoch=lambda _: None)
        return
    mark = fingerprint(job.settings, job.inputs)
    folder = open_work_folder(job.stage, job.key, mark)
    facts = {
        "dataset": job.dataset,
        "network": job.key,
        "backbone": job.card.backbone,
        "query_px": job.card.size_px,
    }
    with tracked_run(
        stage=job.stage,
        key=job.key,
        role=job.role,
        fingerprint=mark,
        facts=facts,
        settings=job.settings,
        dataset=dataset_facts(job.dataset, job.inputs[0]),
        keep_best=job.keep_best,
    ) as run:

        def save(path: Path) -> None:
            save_network(path, network, job.card)

        if checkpoint := load_checkpoint(folder):  # its epoch may have missed the record
            network.load_state_dict(checkpoint.network)
            for row in checkpoint.history:
                run.log_epoch(row, save if row["epoch"] == checkpoint.epochs else None)
        history = run_epochs(folder=folder, on_epoch=lambda row: run.log_epoch(row, save))
        write_text(history_path(job.output), pd.DataFrame(history).to_csv(index=False))
        save_network(job.output, network, job.card)
        run.set_tags({"output_md5": file_md5(job.output)})
    close_work_folder(folder, job.output)


def set_up(network: Embedder, compute: Compute, device: torch.device) -> Embedder:
    """The network on `device`, computing as params.yaml says."""
    network.precision = compute.precision
    if compute.compile:
        network.features.compile()
    return network.to(device)


def dataset_facts(name: str, pack: Path) -> DatasetFacts:
    """What the record says of the data set that was read, with the hash that dvc.lock has too."""
    summary = DatasetPaths(name).pack_summary
    profile = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    counts = {fact: value for fact, value in profile.items() if isinstance(value, int | float)}
    return DatasetFacts(name, str(pack), file_md5(pack), counts)


def schedule_of(recipe: TripletRecipe | DistillationRecipe, network: Network) -> Schedule:
    """The schedule that a recipe of params.yaml asks for."""
    return Schedule(
        **recipe.optimisation.model_dump(),
        accumulation_steps=recipe.accumulation_steps,
        batch_norm_frozen=network.batch_norm == "frozen",
    )


def view_recipe_of(recipe: TripletRecipe | DistillationRecipe) -> ViewRecipe:
    """The views that a recipe of params.yaml asks for; labels are learned from one plain view."""
    augmentation = recipe.augmentation
    plain = ViewRecipe(
        views=1,
        crop_scale=augmentation.crop_scale,
        flip_probability=augmentation.flip_probability,
        colour_ranges=(
            augmentation.brightness,
            augmentation.contrast,
            augmentation.saturation,
            augmentation.hue,
        ),
    )
    if isinstance(recipe, TripletRecipe):
        return plain
    return ViewRecipe(
        **vars(plain)
        | {
            "views": recipe.views,
            "mixup_alpha": recipe.mixup_alpha,
            "mixup_partner": recipe.mixup_partner,
        }
    )
