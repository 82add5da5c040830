"""One teacher or one student of the tournament: trained, and judged exactly.

The recipes are those of the preset `emblems`, without its DVC, MLflow and configuration.
"""

import io
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.datasets.packs import Pack, open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from pipeline.training.distillation import DistillationObjective
from pipeline.training.loop import Objective, train
from pipeline.training.metric_learning import TripletObjective
from pipeline.training.named_losses import loss_of
from pipeline.training.schedule import Schedule
from pipeline.views.coupled import Decode, ViewRecipe, cached_decoder

Pairs = Literal["coupled", "independent"]
Start = Literal["teacher", "random"]
Part = Literal["fit", "validation", "train", "test"]
VALIDATION_EVERY = 4  # every fourth training class: of the families of the others, as test classes
TEACHER_VIEWS = ViewRecipe(1, (0.25, 1.0), 0.0, (0.0, 0.0, 0.0, 0.0))
STUDENT_VIEWS = ViewRecipe(4, (0.5, 1.0), 0.5, (0.4, 0.4, 0.4, 0.1))
TRIPLETS: dict[str, Any] = {
    "classes_per_batch": 8,
    "images_per_class": 4,
    "margin": 0.7,
    "negatives_per_anchor": 4,
    "negative_pool": "batch",
    "distance_floor": 0.5,
}
SCHEDULE = Schedule(
    epochs=5,
    accumulation_steps=1,
    learning_rate=2e-3,
    weight_decay=1e-6,
    warmup_share=0.3,
    initial_division=10.0,
    batch_norm_frozen=False,
    seed=0,
)


@dataclass(frozen=True)
class Scale:
    """How large everything is. An epoch is one over all images with the views of STUDENT_VIEWS."""

    emblems: dict[str, int]
    teacher_px: int
    query_px: tuple[int, ...]
    dim: int
    centroids: int
    teacher_epochs: int
    epochs: int
    rates: tuple[float, ...]
    backbone: str = "timm/test_resnet"


@dataclass(frozen=True)
class Entry:
    """A loss of pipeline.training.named_losses with its values, and the shape of a batch."""

    name: str
    kind: str
    values: dict[str, float] = field(default_factory=dict)
    images: int = 8
    views: int = 4
    least_images: int = 1
    pairs: Pairs = "coupled"
    start: Start = "teacher"

    @property
    def title(self) -> str:
        pairs = "" if self.pairs == "coupled" else f", {self.pairs}"
        start = "" if self.start == "teacher" else f", from {self.start} weights"
        return self.name + pairs + start


@dataclass(frozen=True)
class Place:
    """Where the work is done: the pack, the folder of the teachers, the device, until when."""

    pack: Path
    teachers: Path
    device: str
    loading_threads: int
    scale: Scale
    until: float

    def teacher(self, seed: int) -> Path:
        return self.teachers / f"{seed}.safetensors"

    def check_time(self) -> None:
        """Raises OutOfTimeError where the time is over."""
        if time.time() > self.until:
            raise OutOfTimeError


@dataclass(frozen=True)
class Cell:
    """A student to train: with a trial, on the fitting classes, judged by validation classes."""

    entry: Entry
    query_px: int
    seed: int
    learning_rate: float
    is_trial: bool

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "entry": self.entry.title,
            "query_px": self.query_px,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
        }


class OutOfTimeError(Exception):
    """The minutes are over."""


@cache
def opened(path: Path) -> tuple[Pack, Decode]:
    """The pack and its decoder, kept by each worker."""
    torch.set_num_threads(1)
    pack = open_pack(path)
    return pack, cached_decoder(pack)


@cache
def rows_of(path: Path, part: Part) -> np.ndarray:
    pack, _ = opened(path)
    if part == "test":
        return pack.rows("test")
    rows = pack.rows("train")
    held_out = np.unique(pack.labels[rows])[VALIDATION_EVERY - 1 :: VALIDATION_EVERY]
    validates = np.isin(pack.labels[rows], held_out)
    return {"train": rows, "fit": rows[~validates], "validation": rows[validates]}[part]


@cache
def views_of(path: Path, part: Part, size_px: int) -> EvaluationViews:
    return EvaluationViews(opened(path)[0], rows_of(path, part), size_px)


def embed(place: Place, network: nn.Module, part: Part, size_px: int) -> Tensor:
    return embed_views(network, views_of(place.pack, part, size_px), torch.device(place.device))


def learn(place: Place, network: nn.Module, objective: Objective, schedule: Schedule) -> None:
    """The library's own loop; raises OutOfTimeError after the epoch in which time runs out."""
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        train(
            network,
            objective,
            schedule,
            folder=Path(folder),
            validate=lambda _: {},
            on_epoch=lambda _: place.check_time(),
            loading_threads=place.loading_threads,
        )


@dataclass(frozen=True)
class Result:
    """What is measured of one role, by name, and the metrics of each query."""

    facts: dict[str, Any]
    queries: dict[str, np.ndarray]


def judged(
    place: Place, query: Tensor, database: Tensor, part: Part, facts: dict[str, Any]
) -> Result:
    """Exact leave-one-out retrieval of the images of `part`."""
    labels = opened(place.pack)[0].labels[rows_of(place.pack, part)]
    found = evaluate_retrieval(query, database, torch.from_numpy(labels))
    measured = {"map": found.map, "recall_at_1": found.recall_at[1]}
    return Result(facts | measured, {"label": labels, **found.query_metrics})


def train_teacher(place: Place, seed: int) -> list[Result]:
    """A teacher of all training classes, kept for its students; its own row and the naive ones."""
    place.check_time()
    scale, device = place.scale, torch.device(place.device)
    pack, decode = opened(place.pack)
    network = build_embedder(scale.backbone, scale.dim, weights="random", seed=seed).to(device)
    objective = TripletObjective(
        decode=decode,
        labels=pack.labels,
        rows=pack.rows("train"),
        size_px=scale.teacher_px,
        **TRIPLETS,
        views=TEACHER_VIEWS,
        embed_pool=lambda _: torch.empty(0),  # the pool is the batch
        seed=seed,
        device=device,
    )
    learn(place, network, objective, replace(SCHEDULE, epochs=scale.teacher_epochs, seed=seed))
    card = NetworkCard(scale.backbone, scale.dim, scale.teacher_px)
    save_network(place.teacher(seed), network, card)
    database = embed(place, network, "test", scale.teacher_px)
    facts = {"seed": seed, "query_px": scale.teacher_px, "entry": "teacher", "role": "teacher"}
    rows = [judged(place, database, database, "test", facts)]
    for size_px in scale.query_px:
        query = embed(place, network, "test", size_px)
        naive = facts | {"query_px": size_px, "role": "naive"}
        rows.append(judged(place, query, database, "test", naive))
    return rows


def train_student(place: Place, cell: Cell) -> list[Result]:
    """A trial's validation row, or the asymmetric and the symmetric row on the test classes."""
    place.check_time()
    started_s = time.perf_counter()
    device, teacher_px = torch.device(place.device), place.scale.teacher_px
    teacher, _ = load_network(place.teacher(cell.seed), device)
    student, card = load_network(place.teacher(cell.seed), device)  # where the student starts
    if cell.entry.start == "random":
        student = build_embedder(card.backbone, card.dim, weights="random", seed=-cell.seed - 1)
        student.to(device)
    learned, seen = ("fit", "validation") if cell.is_trial else ("train", "test")
    objective = objective_of(place, cell, teacher, learned)
    schedule = replace(
        SCHEDULE,
        epochs=place.scale.epochs * STUDENT_VIEWS.views // cell.entry.views,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
    )
    learn(place, student.requires_grad_(True), objective, schedule)
    database = embed(place, teacher, seen, teacher_px)
    query = embed(place, student, seen, cell.query_px)
    facts = cell.facts | {"train_s": time.perf_counter() - started_s}
    if cell.is_trial:
        return [judged(place, query, database, seen, facts | {"role": "validation"})]
    return [
        judged(place, query, database, seen, facts | {"role": "asymmetric"}),
        judged(place, query, query, seen, facts | {"role": "symmetric"}),
    ]


def objective_of(
    place: Place, cell: Cell, teacher: nn.Module, learned: Part
) -> DistillationObjective:
    entry, device, scale = cell.entry, torch.device(place.device), place.scale
    loss: dict[str, Any] = {"kind": entry.kind, **entry.values}
    if entry.kind == "anchors":
        loss["centroids"] = scale.centroids
    vectors = partial(embed, place, teacher, learned, scale.teacher_px)
    return DistillationObjective(
        decode=opened(place.pack)[1],
        rows=rows_of(place.pack, learned),
        teacher=teacher,
        teacher_px=scale.teacher_px,
        student_px=cell.query_px,
        images_per_batch=entry.images,
        images_per_epoch=None,
        loss=loss_of(loss, vectors, cell.seed, device),
        views=replace(STUDENT_VIEWS, views=entry.views, view_pairs=entry.pairs),
        seed=cell.seed,
        device=device,
        least_images=entry.least_images,
    )
