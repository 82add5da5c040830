"""The trainings of a job, a seed each: built, resumed, scored on validation images, recorded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.datasets.packs import Pack, open_pack, validation_split
from pipeline.devices import computed_with, loading_threads, resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.accuracy import MAP, OVERLAP, SCORES, VALIDATION
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import file_md5, write_text
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard, save_network
from pipeline.paths import WORK, further_seeds, history_path
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.sync import FIRST_SEED
from pipeline.training.checkpoints import Row, load_checkpoint
from pipeline.training.job import Role, TrainingJob, dataset_facts, new_network, set_up
from pipeline.training.loop import Objective, train
from pipeline.training.process_group import ProcessGroup, joined_group, start_processes
from pipeline.training.schedule import Proxies
from pipeline.training.work_folders import close_work_folders, open_work_folder


@dataclass(frozen=True)
class TrainingData:
    """A pack, its rows for training and for validation, and where this process computes."""

    pack: Pack
    train: np.ndarray
    val: np.ndarray
    device: torch.device
    group: ProcessGroup


@contextmanager
def training_data(job: TrainingJob) -> Iterator[TrainingData]:
    """The job's pack, opened in each of the processes that params.yaml asks for."""
    params = job.params
    start_processes(params.compute.processes)
    device = resolve_device(params.threads)
    with joined_group(params.compute.processes, device) as group:
        pack = open_pack(job.paths.pack)
        rows = validation_split(pack, params.datasets[job.dataset].validation_share)
        yield TrainingData(pack, *rows, device, group)


@dataclass(frozen=True)
class Training:
    """What the network of a job is trained for: an objective, and the `dim` of its embeddings.

    database: of the validation images, which the network's queries are ranked against; without it
    they are ranked against each other. proxies: what the loss itself learns. begin and
    end: set what needs no steps, before the first one and after the last.
    """

    objective: Objective
    dim: int
    database: Tensor | None = None
    proxies: Proxies | None = None
    begin: Callable[[Embedder], None] | None = None
    end: Callable[[Embedder], None] | None = None


def train_seeds(
    params: Params,
    role: Role,
    key: str,
    training_of: Callable[[TrainingJob, TrainingData], Training],
) -> None:
    """Train a network for each seed of params.yaml, one after the other, in the same processes.

    training_of: what the network of a job is trained for. All but teachers have the values that
    were found best for them. Killed meanwhile, the next run trains none of those again that were
    finished. Raises KeyError for a key that `params` does not have.
    """
    jobs = [TrainingJob(params, role, key, seed) for seed in params.seeds]
    if role != "teacher":
        jobs = [job.tuned() for job in jobs]
    with training_data(jobs[0]) as data:
        for job in jobs:
            run_training(job, data, training_of(job, data))
        if data.group.is_main:
            further_seeds(jobs[0].output).mkdir(parents=True, exist_ok=True)
            close_work_folders(jobs[0].stage, key, jobs[0].output)


def run_training(job: TrainingJob, data: TrainingData, training: Training) -> None:
    """Build, train, record, and write the network and its table of epochs.

    An interrupted training of the same fingerprint goes on from its last checkpoint. Of a process
    group the main process records and writes.
    """
    network, card = begun_network(job, data, training)
    if not data.group.is_main:
        fit(job, data, training, network, folder=WORK, on_epoch=lambda _: None)
        return
    mark = fingerprint(job.settings, job.inputs)
    folder = open_work_folder(job.stage, job.key, job.seed, mark)
    about = {"backbone": card.backbone, "query_px": card.size_px}
    is_first = job.seed == job.params.seeds[0]
    with tracked_run(
        stage=job.stage,
        key=job.key,
        role=job.role,
        fingerprint=mark,
        facts={"dataset": job.dataset, "network": job.key, **about},
        settings=job.settings,
        dataset=dataset_facts(job),
        keep_best=job.params.tracking.keep_best,
        needs_store=is_first,
    ) as run:
        run.set_tags({FIRST_SEED: "yes" if is_first else "no", **computed_with(data.device)})

        def save(path: Path) -> None:
            save_network(path, network, card)

        if checkpoint := load_checkpoint(folder):  # its epoch may have missed the record
            network.load_state_dict(checkpoint["network"])
            *earlier, last = checkpoint["history"]
            for row in earlier:
                run.log_epoch(row)
            run.log_epoch(last, save)
        log = partial(run.log_epoch, save=save)
        history = fit(job, data, training, network, folder=folder, on_epoch=log)
        batches = [training.objective.batches(epoch) for epoch in range(len(history))]
        views = [job.view_recipe.views * sum(map(len, of_epoch)) for of_epoch in batches]
        run.log_results({"views": sum(views)})
        table = [row | {"views": own} for row, own in zip(history, views, strict=True)]
        write_text(history_path(job.output), _table(table))
        save(job.output)
        run.set_tags({"output_md5": file_md5(job.output)})


def begun_network(
    job: TrainingJob, data: TrainingData, training: Training
) -> tuple[Embedder, NetworkCard]:
    """The network before its first step, where it computes, and its card."""
    network, card = new_network(job, training.dim)
    if training.begin is not None:
        training.begin(network)
    return set_up(network, job.params.compute, data.device), card


def fit(
    job: TrainingJob,
    data: TrainingData,
    training: Training,
    network: Embedder,
    *,
    folder: Path,
    on_epoch: Callable[[Row], None],
) -> list[Row]:
    """Train the network in place, from the checkpoint in `folder` if there is one; a row an epoch,
    the validation images scored after each.
    """
    views = EvaluationViews(data.pack, data.val, job.size_px)
    validate = partial(_validate, views, training.database)
    return train(
        network,
        training.objective,
        job.schedule,
        folder=folder,
        validate=validate,
        on_epoch=on_epoch,
        loading_threads=loading_threads(data.device),
        group=data.group,
        proxies=training.proxies,
        end=training.end,
    )


def _validate(views: EvaluationViews, database: Tensor | None, network: nn.Module) -> Row:
    """The map of held-out training classes, if there are any; without labels the mean overlap with
    the teacher's ten nearest of held-out training images.

    Raises FloatingPointError for a network that trains by the statistics of its batches while it
    has lost its way by the running ones, which nothing in the loss shows.
    """
    if not len(views):
        return {}
    queries = embed_views(network, views, next(network.parameters()).device)
    if not queries.isfinite().all():
        raise FloatingPointError(
            "embeddings of validation images are not finite: a lower learning_rate keeps batch "
            "norm in step; the checkpoint of the epoch before is kept"
        )
    if not views.pack.labelled:
        assert database is not None, "nothing but a teacher says what is right"
        agreement = measure_agreement({"student": Search(queries)}, database)["student"]
        return {OVERLAP.validation: float(agreement[OVERLAP.column].mean())}
    labels = torch.from_numpy(views.pack.labels[views.rows])
    found = evaluate_retrieval(queries, queries if database is None else database, labels)
    return {MAP.validation: found.map}


def _table(history: list[Row]) -> str:
    """Comma-separated values, a line an epoch, below a line of names."""
    names = [VALIDATION if name in SCORES else name for name in history[0]]
    lines = [",".join(map(str, row.values())) for row in history]
    return "\n".join([",".join(names), *lines, ""])
