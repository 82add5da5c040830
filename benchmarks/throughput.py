"""What a GPU makes of one distillation: on ready tensors, through the library's loop, at best."""

import gc
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.chip import TERA, Work, convolution_work, product_tflops
from benchmarks.distillation import (
    Catcher,
    ReadyBatch,
    Setting,
    library_epochs,
    made_student,
    made_teacher,
    objective_of,
    ready_batches,
    spent_on,
    train_ready,
)
from benchmarks.evaluation import SOP, bare_product, unit_rows
from pipeline.datasets.packs import Pack
from pipeline.evaluation.cost import query_cost
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.evaluation.ranks import BLOCK_BYTES
from pipeline.models.embedder import Embedder
from pipeline.views.coupled import Decode, cached_decoder

PAPER_PAIRS = 200 * 5864 * 8  # epochs x images of CUB200 x views: 9.4 million
READY_BATCHES = 3  # different ones, which take turns


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    backbone: str
    dim: int
    views: int
    accumulation: int
    pack_images: int
    different_images: int
    sides: tuple[int, int]
    product_side: int
    evaluated_rows: int
    repeats: int


FULL = Scale("timm/resnet50", 512, 8, 25, 5864, 256, (500, 375), 8192, SOP.database, 10)
TOY = Scale("timm/test_resnet", 16, 2, 2, 12, 4, (50, 40), 64, 200, 1)


@dataclass(frozen=True)
class Limits:
    """What the chip does at best: a product's rate, and one batch's convolutions by themselves."""

    product_tflops: float
    convolutions: Work


def limits_of(teacher: Embedder, student: Embedder, ready: ReadyBatch, scale: Scale) -> Limits:
    device, batch = ready.large.device, len(ready.large)
    work = convolution_work(
        teacher.features, ready.large, batch=batch, backward=False, repeats=scale.repeats
    ) + convolution_work(
        student.features, ready.small, batch=batch, backward=True, repeats=scale.repeats
    )
    return Limits(product_tflops(scale.product_side, device), work)


def pair_operations(teacher: Embedder, student: Embedder, setting: Setting) -> float:
    """Of one view pair: the teacher's forward pass and three times the student's."""
    gmacs = query_cost(teacher, setting.teacher_px)["gmacs"]
    return 2e9 * (gmacs + 3 * query_cost(student, setting.student_px)["gmacs"])


def measure_setting(
    setting: Setting, pack: Pack, decode: Decode, device: torch.device, scale: Scale, threads: int
) -> dict[str, Any]:
    """All figures of one setting, by name."""
    forget(device)
    blind = objective_of(setting, pack, decode, device, Catcher(setting.dim))
    ready = ready_batches(blind, READY_BATCHES)
    plain = replace(setting, compile=False, precision="float32")
    uncompiled = made_teacher(plain, ready[0]), made_student(plain, ready[0])
    operations = pair_operations(*uncompiled, setting)
    limits = limits_of(*uncompiled, ready[0], scale)
    del uncompiled
    forget(device)
    teacher, student = made_teacher(setting, ready[0]), made_student(setting, ready[0])
    step_s = ready_step_s(setting, teacher, student, ready)
    ready_gib = peak_gib(device)
    forget(device)
    objective = replace(blind, teacher=teacher)
    *_, epoch = library_epochs(setting, objective, student, threads=threads, epochs=2)
    loop_s = epoch.wall_s / setting.batches
    pairs_per_s = setting.pairs / loop_s
    tflops = operations * pairs_per_s / TERA
    return {
        **asdict(setting),
        "loading_threads": threads,
        "ready_pairs_per_s": setting.pairs / step_s,
        "pairs_per_s": pairs_per_s,
        "speed_of_ready": step_s / loop_s,
        "gflop_a_pair": operations / 1e9,
        "tflops": tflops,
        "product_tflops": limits.product_tflops,
        "convolution_tflops": limits.convolutions.operations / limits.convolutions.seconds / TERA,
        "share_of_product": tflops / limits.product_tflops,
        "share_of_convolutions": limits.convolutions.seconds / loop_s,
        "paper_hours": PAPER_PAIRS / pairs_per_s / 3600,
        "ready_peak_gib": ready_gib,
        "peak_gib": peak_gib(device),
    }


def ready_step_s(
    setting: Setting, teacher: Embedder, student: Embedder, ready: list[ReadyBatch]
) -> float:
    """One batch on ready tensors: the teacher without a graph, then the student."""
    device = ready[0].large.device

    def steps(count: int) -> None:
        train_ready(
            setting, student, ((batch, None) for batch in turns(count)), without_graph(teacher)
        )

    def turns(count: int) -> itertools.islice:
        return itertools.islice(itertools.cycle(ready), count)

    steps(max(setting.accumulation, READY_BATCHES))
    return spent_on(lambda: steps(setting.batches), device).wall_s / setting.batches


def without_graph(teacher: Embedder) -> Callable[[Tensor], Tensor]:
    def embed(images: Tensor) -> Tensor:
        with torch.inference_mode():
            targets = teacher(images)
        return targets.clone()

    return embed


def forget(device: torch.device) -> None:
    """Compiled code and memory of the setting before; the peak is counted anew."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """The largest memory taken from the GPU since `forget`; each loading thread keeps its own."""
    return torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None


def measure_evaluation(device: torch.device, scale: Scale) -> dict[str, Any]:
    """Exact leave-one-out evaluation and the bare blocked product, on the device."""
    forget(device)
    database = unit_rows(scale.evaluated_rows, scale.dim, None).to(device)
    noise = torch.randn(database.shape, generator=torch.Generator().manual_seed(1))
    query = database + 0.05 * noise.to(device)
    labels = torch.arange(len(database)) // SOP.images_per_class
    bare_s = best_s(lambda: bare_product(query, database, BLOCK_BYTES), device)
    full_s = best_s(lambda: evaluate_retrieval(query, database, labels), device)
    return {
        "rows": scale.evaluated_rows,
        "dim": scale.dim,
        "bare_product_s": bare_s,
        "evaluation_s": full_s,
        "ratio": full_s / bare_s,
        "peak_gib": peak_gib(device),
    }


def best_s(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of three runs, after one that does not count."""
    return min([spent_on(work, device).wall_s for _ in range(4)][1:])


def filled_decoder(pack: Pack) -> Decode:
    """The library's decoder as it is after the first epochs: full, or holding all images."""
    decode = cached_decoder(pack)
    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(len(pack))))
    return decode
