"""One distillation as the library runs it, and its parts on ready tensors: for the benchmarks.

Needs no more than the training itself: a bare machine with a GPU can run it.
"""

import io
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.views import ALPHA, COLOUR
from pipeline.datasets.packs import Pack
from pipeline.models.embedder import Embedder, Precision, freeze_batch_norm
from pipeline.models.weights import build_embedder
from pipeline.training.distillation import DistillationObjective
from pipeline.training.loop import train
from pipeline.training.named_losses import raml_terms
from pipeline.training.schedule import Schedule
from pipeline.views.coupled import Decode, ViewRecipe

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-6
LOSS = partial(raml_terms, lambda_ts=0.7, lambda_ss=0.7)
FITTED_VIEWS = 16


@dataclass(frozen=True)
class Setting:
    """A teacher and a student of one backbone, and `batches` batches of images x views.

    The optimiser makes a step every `accumulation` batches.
    """

    backbone: str
    teacher_px: int
    student_px: int
    images: int
    views: int
    batches: int
    accumulation: int = 1
    dim: int = 512
    precision: Precision = "float32"
    compile: bool = False

    @property
    def pairs(self) -> int:
        """View pairs of one batch."""
        return self.images * self.views


@dataclass(frozen=True)
class Spent:
    """Seconds by wall clock and of all CPU threads of this process."""

    wall_s: float
    cpu_s: float

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def clock(device: torch.device) -> Spent:
    """Now, when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Spent(time.perf_counter(), time.process_time())


def spent_on(work: Callable[[], object], device: torch.device) -> Spent:
    start = clock(device)
    work()
    return clock(device) - start


class Catcher(nn.Module):
    """In a teacher's place: keeps the large views that it is given, and embeds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.large = torch.empty(0)

    def forward(self, large: Tensor) -> Tensor:
        self.large = large
        return large.new_zeros(len(large), self.dim)


@dataclass(frozen=True)
class ReadyBatch:
    """The views of a batch at both sizes, channels last, on the device."""

    large: Tensor
    small: Tensor


def objective_of(
    setting: Setting, pack: Pack, decode: Decode, device: torch.device, teacher: nn.Module
) -> DistillationObjective:
    """METHOD 4: mixup with the equally augmented view of another image of the data set."""
    return DistillationObjective(
        decode=decode,
        rows=pack.rows("train"),
        teacher=teacher,
        teacher_px=setting.teacher_px,
        student_px=setting.student_px,
        images_per_batch=setting.images,
        images_per_epoch=setting.images * setting.batches,
        loss=LOSS,
        views=ViewRecipe(setting.views, (0.08, 1.0), 0.5, COLOUR, mixup_alpha=ALPHA),
        seed=0,
        device=device,
    )


def ready_batches(objective: DistillationObjective, count: int) -> list[ReadyBatch]:
    """What the loader makes of the first batches, but for the teacher's embeddings."""
    catcher = Catcher(dim=1)
    catching = replace(objective, teacher=catcher)
    ready = []
    for number, rows in enumerate(objective.batches(0)[:count]):
        loaded = catching.load(0, number, rows)
        # The teacher is given a tensor of inference mode, which takes part in no graph.
        ready.append(ReadyBatch(catcher.large.clone(), loaded.views))
    return ready


def made_network(setting: Setting, views: Tensor, seed: int) -> Embedder:
    """A network whose activations and gradients are as large as those of a trained one.

    Batch norm gets the statistics of `views`, and weights of 1: fresh residual networks have
    weights of 0, and zeros take less time and power to multiply.
    """
    network = build_embedder(setting.backbone, setting.dim, weights="random", seed=seed)
    network = network.to(views.device).train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
            module.momentum = 1.0
    with torch.no_grad():
        network(views[:FITTED_VIEWS])
    network.precision = setting.precision
    if setting.compile:
        network.features.compile()
    return network.eval()


def made_teacher(setting: Setting, ready: ReadyBatch) -> Embedder:
    return made_network(setting, ready.large, seed=0).requires_grad_(False)


def made_student(setting: Setting, ready: ReadyBatch) -> Embedder:
    return made_network(setting, ready.small, seed=1)


def distillation_loss(setting: Setting, embeddings: Tensor, targets: Tensor) -> Tensor:
    shape = (-1, setting.views)
    student, teacher = embeddings.unflatten(0, shape), targets.unflatten(0, shape)
    return torch.stack(list(LOSS(student, teacher).values())).sum()


def embed_ready(teacher: nn.Module, ready: Iterable[ReadyBatch]) -> list[Tensor]:
    """The teacher's part: forward, without a graph."""
    with torch.inference_mode():
        targets = [teacher(batch.large) for batch in ready]
    return [target.clone() for target in targets]


def train_ready(
    setting: Setting,
    student: nn.Module,
    batches: Iterable[tuple[ReadyBatch, Tensor | None]],
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """The student's part, in as few words as PyTorch needs: forward, loss, backward, optimiser.

    Where a batch has no targets `teacher` makes them; it keeps its graph if its parameters
    have gradients, as in the authors' code.
    """
    optimiser = torch.optim.AdamW(
        student.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    student.train()
    freeze_batch_norm(student)
    for number, (batch, targets) in enumerate(batches, start=1):
        if targets is None:
            assert teacher is not None
            targets = teacher(batch.large)
        loss = distillation_loss(setting, student(batch.small), targets)
        (loss / setting.accumulation).backward()
        if number % setting.accumulation == 0:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def library_epochs(
    setting: Setting,
    objective: DistillationObjective,
    student: nn.Module,
    *,
    threads: int,
    epochs: int = 1,
) -> list[Spent]:
    """What each epoch of the library's own loop takes, without the checkpoints in between."""
    marks = [clock(objective.device)]

    def reached(_: object) -> dict[str, float]:
        marks.append(clock(objective.device))
        return {}

    schedule = Schedule(
        epochs=epochs,
        accumulation_steps=setting.accumulation,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        warmup_share=0.3,
        initial_division=10.0,
        batch_norm_frozen=True,
        seed=0,
    )
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        train(
            student,
            objective,
            schedule,
            folder=Path(folder),
            validate=reached,
            on_epoch=reached,
            loading_threads=threads,
        )
    starts, ends = marks[::2], marks[1::2]
    return [end - start for start, end in zip(starts, ends, strict=False)]
