"""One training from its settings to a saved network: resumable and recorded."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Literal, Self

import torch

from pipeline.config.merging import merged
from pipeline.config.params import Compute, Params
from pipeline.config.recipes import DistillationRecipe, TeacherRecipe, TrainedTeacher
from pipeline.evaluation.accuracy import VALIDATION
from pipeline.files import file_md5, read_json
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard, build_embedder, load_network
from pipeline.paths import code_file
from pipeline.training.schedule import Schedule
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


def dataset_facts(job: TrainingJob) -> dict[str, Any]:
    """What the record says of the data set that was read, with the hash that dvc.lock has too."""
    pack, summary = job.paths.pack, job.paths.pack_summary
    profile = read_json(summary) if summary.exists() else {}
    counts = {fact: value for fact, value in profile.items() if isinstance(value, int | float)}
    digest = file_md5(pack)
    return {"name": job.dataset, "path": str(pack), "digest": digest, "profile": counts}
