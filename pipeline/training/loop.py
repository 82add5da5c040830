"""The training loop: one for teacher, baseline and student."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.embedder import freeze_batch_norm
from pipeline.progress import Progress
from pipeline.training.checkpoints import (
    Row,
    load_checkpoint,
    save_checkpoint,
    take_checkpoint,
)
from pipeline.training.schedule import build_optimiser, current_rate
from pipeline.training.team import ALONE, Team

LOADED_AHEAD = 2  # batches made ready for each loading thread


class DivergedError(ArithmeticError):
    """A loss term was not finite; the last checkpoint is from before."""


class Objective(Protocol):
    """What a network is trained for: its batches, how they are loaded, and the loss.

    `batches` is a pure function of the epoch, so that the number of steps is known beforehand.
    `load` runs in other threads, ahead of time; it must not touch the network that trains. In a
    team it loads the process's own part of the batch.
    `terms` gives the weighted terms of the loss, each a mean over the images of the whole batch.
    """

    def batches(self, epoch: int) -> list[np.ndarray]: ...

    def begin_epoch(self, epoch: int, network: nn.Module) -> None: ...

    def load(self, epoch: int, number: int, rows: np.ndarray) -> Any: ...

    def terms(self, network: nn.Module, loaded: Any) -> dict[str, Float[Tensor, ""]]: ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the fields are those of params.yaml."""

    epochs: int
    accumulation_steps: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    initial_division: float
    batch_norm_frozen: bool


def train(
    network: nn.Module,
    objective: Objective,
    schedule: Schedule,
    *,
    folder: Path,
    validate: Callable[[nn.Module], Row],
    on_epoch: Callable[[Row], None],
    loading_threads: int = 1,
    team: Team = ALONE,
) -> list[Row]:
    """Train `network` in place, from the checkpoint in `folder` if there is one.

    Returns a row an epoch: the mean of each loss term and of their sum, the learning rate after the
    epoch, and what `validate` measures. A resumed training ends with the same weights as an
    undisturbed one. Of a team only the leading process measures, tells and writes.
    Raises DivergedError for a loss that is not finite.
    """
    plans = [len(objective.batches(epoch)) for epoch in range(schedule.epochs)]
    optimiser, rates = build_optimiser(
        network,
        steps=sum(math.ceil(count / schedule.accumulation_steps) for count in plans),
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        warmup_share=schedule.warmup_share,
        initial_division=schedule.initial_division,
    )
    history: list[Row] = []
    if checkpoint := team.share(load_checkpoint(folder) if team.leads else None):
        network.load_state_dict(checkpoint.network)
        optimiser.load_state_dict(checkpoint.optimiser)
        rates.load_state_dict(checkpoint.schedule)
        history = checkpoint.history
        if team.leads:
            sys.stderr.write(f"resuming after epoch {checkpoint.epochs} of {schedule.epochs}\n")
    progress = Progress(
        "training",
        total=sum(plans),
        done=sum(plans[: len(history)]),
        unit="batch",
        shown=team.leads,
    )
    loaders = ThreadPoolExecutor(max(1, loading_threads))
    with torch.random.fork_rng(devices=_devices(network)), progress, loaders:
        for epoch in range(len(history), schedule.epochs):
            torch.manual_seed(epoch)  # for layers that draw: dropout, stochastic depth
            objective.begin_epoch(epoch, network)
            network.train()
            if schedule.batch_norm_frozen:
                freeze_batch_norm(network)
            batches = objective.batches(epoch)
            loaded = _loaded_ahead(objective, epoch, batches, loaders, loading_threads)
            steps = _windows(zip(batches, loaded, strict=True), schedule.accumulation_steps)
            totals = [
                _step(network, objective, window, optimiser, rates, progress, team)
                for window in steps
            ]
            row = _mean_terms(totals) | {
                "epoch": epoch + 1,
                "learning_rate": current_rate(optimiser),
            }
            network.eval()
            if not team.leads:
                history = [*history, row]
                continue
            row |= validate(network)
            history = [*history, row]
            save_checkpoint(folder, take_checkpoint(network, optimiser, rates, history))
            on_epoch(row)
            shown = ("epoch", "loss", "validation_map")
            progress.note({name: row[name] for name in shown if name in row})
    network.eval()
    return history


def _devices(network: nn.Module) -> list[int]:
    """The GPU whose random state training moves, if it runs on one."""
    device = next(network.parameters()).device
    return [device.index or 0] if device.type == "cuda" else []


def _loaded_ahead(
    objective: Objective,
    epoch: int,
    batches: list[np.ndarray],
    loaders: ThreadPoolExecutor,
    threads: int,
) -> Iterator[Any]:
    """Loaded batches in their order, made in other threads a few batches ahead, or here for 0."""
    if threads == 0:
        yield from (objective.load(epoch, number, rows) for number, rows in enumerate(batches))
        return
    waiting: deque[Future[Any]] = deque()
    try:
        for number, rows in enumerate(batches):
            waiting.append(loaders.submit(objective.load, epoch, number, rows))
            if len(waiting) > LOADED_AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _windows(pairs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Groups of `size`; the last one is shorter, and is not lost."""
    window = []
    for pair in pairs:
        window.append(pair)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _step(
    network: nn.Module,
    objective: Objective,
    window: list[tuple[np.ndarray, Any]],
    optimiser: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    team: Team,
) -> tuple[int, Row]:
    """One step of the optimiser on the mean loss over the images of the window."""
    images = sum(len(rows) for rows, _ in window)
    sums: dict[str, Tensor] = {}
    for rows, loaded in window:
        share = len(rows) / images
        terms = objective.terms(network, loaded)
        total = torch.stack(list(terms.values())).sum() * share
        total.backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() * share
        progress.advance()
    means = {name: float(value) for name, value in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise DivergedError(_diverged(f"the loss term {name!r}", mean, optimiser, rates))
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    team.sum_gradients(parameters)
    gradients = [parameter.grad for parameter in parameters]
    norm = float(nn.utils.get_total_norm([g for g in gradients if g is not None]))
    if not math.isfinite(norm):
        raise DivergedError(_diverged("the gradient's norm", norm, optimiser, rates))
    optimiser.step()
    rates.step()
    optimiser.zero_grad(set_to_none=True)
    return images, means | {"loss": sum(means.values())}


def _diverged(
    what: str,
    value: float,
    optimiser: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.LRScheduler,
) -> str:
    return (
        f"{what} is {value} at step {rates.last_epoch + 1}, learning rate "
        f"{current_rate(optimiser):.3g}; the checkpoint of the last finished epoch is kept"
    )


def _mean_terms(steps: list[tuple[int, Row]]) -> Row:
    """Means over the images of the epoch."""
    images = sum(count for count, _ in steps)
    return {name: sum(count * row[name] for count, row in steps) / images for name in steps[0][1]}
