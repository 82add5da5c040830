"""One training from its settings to a saved network: resumable and recorded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.merging import merged
from pipeline.config.params import Compute, Params
from pipeline.config.recipes import DistillationRecipe, TeacherRecipe, TrainedTeacher
from pipeline.datasets.packs import Pack, open_pack, validation_split
from pipeline.devices import computed_with, loading_threads, resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.accuracy import MAP, OVERLAP, VALIDATION
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import file_md5, read_json, write_text
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from pipeline.paths import WORK, code_file, further_seeds, history_path
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.sync import FIRST_SEED
from pipeline.training.checkpoints import Row, load_checkpoint
from pipeline.training.loop import Objective, train
from pipeline.training.process_group import ProcessGroup, joined_group, start_processes
from pipeline.training.schedule import Proxies, Schedule
from pipeline.training.work_folders import close_work_folders, open_work_folder
from pipeline.views.coupled import ViewRecipe

Role = Literal["teacher", "student", "baseline"]
NO_EPOCHS = f"epoch,{VALIDATION}\n"  # the table of a network that is not trained


class TrainingJob:
    """Which network is trained, how, from which `inputs`, and where it goes: by params.yaml.

    `key` names the data set of a teacher; the student itself, or the one whose baseline it is.
    `seed` is one of those of `params`; a student learns from the teacher of its own seed. `inputs`
    are the files that the result depends on, the pack first. Raises KeyError for a key that
    `params` does not have.
    """

    def __init__(self, params: Params, role: Role, key: str, seed: int) -> None:
        self.params, self.role, self.key, self.seed = params, role, key, seed
        student = None if role == "teacher" else params.students[key]
        self.dataset = student.dataset if student else key
        dataset, self.paths = params.datasets[self.dataset], params.paths(self.dataset, seed)
        self.network = params.student_network(key) if student else dataset.network
        if (
            role == "baseline" and self.network.weights == "teacher"
        ):  # what the teacher started from
            self.network = self.network.model_copy(update={"weights": dataset.network.weights})
        self.size_px = student.query_px if student else dataset.teacher_px
        self.recipe: TeacherRecipe | DistillationRecipe = dataset.teacher
        reads = [self.paths.pack]
        if role == "student":
            self.stage, self.output = "distill", self.paths.student(key)
            self.recipe = params.student_distillation(key)
            reads.append(self.paths.teacher)
        else:
            self.stage = f"train_{role}"
            self.output = self.paths.baseline(key) if student else self.paths.teacher
        initial = self.paths.initial(key if student else "teacher")
        self.inputs = (*reads, initial, code_file(self.stage))

    def tuned(self) -> Self:
        """The same with the values that the stage `tune` found best, which is one of its inputs."""
        found = self.paths.tuning(self.key)
        job = self.with_values(read_json(found).get(self.role, {}).get("values", {}))
        job.inputs = (*self.inputs, found)
        return job

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same with `values`, as they stand in a recipe, laid over those of its own."""
        job, recipe = copy(self), merged(self.recipe.model_dump(), values)
        job.recipe = type(self.recipe).model_validate(recipe)
        return job

    @property
    def settings(self) -> dict[str, object]:
        """All values that shape the result; with inputs and code they are the fingerprint."""
        return {
            "seed": self.seed,
            "threads": self.params.threads,
            "size_px": self.size_px,
            "validation_share": self.params.datasets[self.dataset].validation_share,
            **self.params.compute.model_dump(),
            **self.network.model_dump(),
            **self.recipe.model_dump(),
        }

    @property
    def training(self) -> TrainedTeacher | DistillationRecipe:
        """The recipe of a network that is trained, as all are but some teachers."""
        assert isinstance(self.recipe, TrainedTeacher | DistillationRecipe)
        return self.recipe

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            **self.training.optimisation.model_dump(),
            accumulation_steps=self.training.accumulation_steps,
            batch_norm_frozen=self.network.batch_norm == "frozen",
            seed=self.seed,
        )

    @property
    def view_recipe(self) -> ViewRecipe:
        """The views that the recipe asks for; labels are learned from one plain view."""
        look = self.training.augmentation
        own = self.training.model_dump(
            include={"views", "view_pairs", "mixup_alpha", "mixup_partner"}
        )
        return ViewRecipe(
            **{"views": 1} | own,
            crop_scale=look.crop_scale,
            flip_probability=look.flip_probability,
            colour_ranges=(look.brightness, look.contrast, look.saturation, look.hue),
        )


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
    they are ranked against each other. proxies: what the loss itself learns. solve: sets what
    has a closed form, before the first step and after the last.
    """

    objective: Objective
    dim: int
    database: Tensor | None = None
    proxies: Proxies | None = None
    solve: Callable[[Embedder], None] | None = None


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
    with tracked_run(
        stage=job.stage,
        key=job.key,
        role=job.role,
        fingerprint=mark,
        facts={"dataset": job.dataset, "network": job.key, **about},
        settings=job.settings,
        dataset=dataset_facts(job),
        keep_best=job.params.tracking.keep_best,
    ) as run:
        is_first = job.seed == job.params.seeds[0]
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
        write_text(history_path(job.output), _table(history))
        save(job.output)
        run.set_tags({"output_md5": file_md5(job.output)})


def begun_network(
    job: TrainingJob, data: TrainingData, training: Training
) -> tuple[Embedder, NetworkCard]:
    """The network before its first step, where it computes, and its card."""
    network, card = new_network(job, training.dim)
    if training.solve is not None:
        training.solve(network)
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
    the validation images scored after each. The last row is of the network as it is left.
    """
    views = EvaluationViews(data.pack, data.val, job.size_px)
    validate = partial(_validate, views, training.database)
    history = train(
        network,
        training.objective,
        job.schedule,
        folder=folder,
        validate=validate,
        on_epoch=on_epoch,
        loading_threads=loading_threads(data.device),
        group=data.group,
        proxies=training.proxies,
    )
    if training.solve is not None:
        training.solve(network)
        history[-1] |= validate(network)
    return history


def new_network(job: TrainingJob, dim: int | None) -> tuple[Embedder, NetworkCard]:
    """The network that the job starts from, and its card; of a student that starts from its
    teacher, the teacher's pooling and head too. dim: None for no projection.
    """
    given = job.params.starting(job.network, job.key)
    if given.weights == "teacher":
        network, card = load_network(job.paths.teacher, torch.device("cpu"))
        return network.requires_grad_(), replace(card, size_px=job.size_px)
    own = given.model_dump(include={"mean", "std", "pooling"})
    network = build_embedder(given.backbone, dim, weights=given.weights, seed=job.seed, **own)
    card = NetworkCard(
        given.backbone, dim or network.channels, job.size_px, **own, projection=dim is not None
    )
    return network, card


def set_up(network: Embedder, compute: Compute, device: torch.device) -> Embedder:
    """The network on `device`, computing as params.yaml says."""
    network.precision = compute.precision
    if compute.compile:
        network.features.compile()
    return network.to(device)


def _validate(views: EvaluationViews, database: Tensor | None, network: nn.Module) -> Row:
    """The map of held-out training classes, if there are any; without labels the mean overlap with
    the teacher's ten nearest of held-out training images.
    """
    if not len(views):
        return {}
    queries = embed_views(network, views, next(network.parameters()).device)
    if not views.pack.labelled:
        assert database is not None, "nothing but a teacher says what is right"
        agreement = measure_agreement({"student": Search(queries)}, database)["student"]
        return {OVERLAP.validation: float(agreement[OVERLAP.column].mean())}
    labels = torch.from_numpy(views.pack.labels[views.rows])
    found = evaluate_retrieval(queries, queries if database is None else database, labels)
    return {MAP.validation: found.map}


def dataset_facts(job: TrainingJob) -> dict[str, Any]:
    """What the record says of the data set that was read, with the hash that dvc.lock has too."""
    pack, summary = job.paths.pack, job.paths.pack_summary
    profile = read_json(summary) if summary.exists() else {}
    counts = {fact: value for fact, value in profile.items() if isinstance(value, int | float)}
    digest = file_md5(pack)
    return {"name": job.dataset, "path": str(pack), "digest": digest, "profile": counts}


def _table(history: list[Row]) -> str:
    """Comma-separated values, a line an epoch, below a line of names."""
    metrics = (MAP.validation, OVERLAP.validation)
    names = [VALIDATION if name in metrics else name for name in history[0]]
    lines = [",".join(map(str, row.values())) for row in history]
    return "\n".join([",".join(names), *lines, ""])
