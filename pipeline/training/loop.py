"""The training loop: one for teacher, baseline and student."""

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.evaluation.accuracy import MAP, OVERLAP
from pipeline.models.embedder import freeze_batch_norm
from pipeline.progress import Progress
from pipeline.training.checkpoints import Row, load_checkpoint, save_checkpoint
from pipeline.training.loading import loaded_ahead
from pipeline.training.process_group import ALONE, ProcessGroup
from pipeline.training.samplers import seeded_generator
from pipeline.training.schedule import Proxies, Schedule, build_optimiser


class Objective(Protocol):
    """What a network is trained for: its batches, how they are loaded, and the loss.

    `batches` is a pure function of the epoch, so that the number of steps is known beforehand.
    `load` runs in other threads, ahead of time; it must not touch the network that trains. In a
    process group it loads the process's own part of the batch.
    `terms` gives the weighted terms of the loss, each a mean over the images of the whole batch.
    """

    def batches(self, epoch: int) -> list[np.ndarray]: ...

    def begin_epoch(self, epoch: int, network: nn.Module) -> None: ...

    def load(self, epoch: int, number: int, rows: np.ndarray) -> Any: ...

    def terms(self, network: nn.Module, loaded: Any) -> dict[str, Float[Tensor, ""]]: ...


def train(
    network: nn.Module,
    objective: Objective,
    schedule: Schedule,
    *,
    folder: Path,
    validate: Callable[[nn.Module], Row],
    on_epoch: Callable[[Row], None],
    loading_threads: int = 1,
    group: ProcessGroup = ALONE,
    proxies: Proxies | None = None,
    end: Callable[[Any], None] | None = None,
) -> list[Row]:
    """Train `network`, and `proxies`, in place, from the checkpoint in `folder` if there is one.

    Returns a row an epoch: the mean of each loss term and of their sum, the learning rate after the
    epoch, and what `validate` measures. A resumed training ends with the same weights as an
    undisturbed one. Of a group only the main process measures, reports and writes.
    `end` changes the network after the last step, before it is measured.
    Raises FloatingPointError for a loss that is not finite; the last checkpoint is from before.
    """
    plans = [len(objective.batches(epoch)) for epoch in range(schedule.epochs)]
    steps = sum(math.ceil(count / schedule.accumulation_steps) for count in plans)
    optimiser, rates = build_optimiser(network, schedule, steps, proxies)
    parts: dict[str, Any] = {"network": network, "optimiser": optimiser, "schedule": rates}
    if proxies:
        parts["proxies"] = proxies.module
    history: list[Row] = []
    if checkpoint := group.share(load_checkpoint(folder) if group.is_main else None):
        history = checkpoint["history"]
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        if group.is_main:
            sys.stderr.write(f"resuming after epoch {len(history)} of {schedule.epochs}\n")
    done = sum(plans[: len(history)])
    progress = Progress("training", sum(plans), done=done, unit="batch", shown=group.is_main)
    device = next(network.parameters()).device
    gpus = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), progress:
        for epoch in range(len(history), schedule.epochs):
            # For layers that draw, such as dropout; each process draws for its own images.
            drawn = seeded_generator(schedule.seed, "layers", epoch, group.rank)
            torch.manual_seed(drawn.initial_seed())
            objective.begin_epoch(epoch, network)
            network.train()
            if schedule.batch_norm_frozen:
                freeze_batch_norm(network)
            batches, size = objective.batches(epoch), schedule.accumulation_steps
            loaded = loaded_ahead(partial(objective.load, epoch), batches, loading_threads, device)
            step = partial(_step, network, objective, loaded, rates, progress, group)
            totals = [step(batches[first : first + size]) for first in range(0, len(batches), size)]
            rate = float(rates.get_last_lr()[0])
            row = _mean_terms(totals) | {"epoch": epoch + 1, "learning_rate": rate}
            history.append(row)
            network.eval()
            if end is not None and len(history) == schedule.epochs:
                end(network)
            if group.is_main:
                row |= validate(network)
                save_checkpoint(folder, parts, history)
                on_epoch(row)
                shown = ("epoch", "loss", MAP.validation, OVERLAP.validation)
                progress.note({name: row[name] for name in shown if name in row})
    network.eval()
    return history


def _step(
    network: nn.Module,
    objective: Objective,
    loaded: Iterator[Any],
    rates: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
    group: ProcessGroup,
    window: list[np.ndarray],
) -> tuple[int, Row]:
    """One step of the optimiser on the mean loss over the images of the window.

    Each batch of it is taken from `loaded` when the one before is done with.
    """
    optimiser = rates.optimizer
    images = sum(len(rows) for rows in window)
    sums: dict[str, Tensor] = {}
    for rows in window:
        share = len(rows) / images
        terms = objective.terms(network, next(loaded))
        total = torch.stack(list(terms.values())).sum() * share
        total.backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() * share
        progress.advance()
    parameters = [p for part in optimiser.param_groups for p in part["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    group.sum_gradients(gradients)
    norm = nn.utils.get_total_norm(gradients)
    # The one place of a step that waits for a GPU, however many batches the step has.
    *values, norm_value = torch.stack([*sums.values(), norm]).tolist()
    means = dict(zip(sums, values, strict=True))
    for name, measured in (means | {"norm of the gradient": norm_value}).items():
        if not math.isfinite(measured):
            raise FloatingPointError(
                f"the {name!r} is {measured} at step {rates.last_epoch + 1}, learning rate "
                f"{rates.get_last_lr()[0]:.3g}; the checkpoint of the last finished epoch is kept"
            )
    optimiser.step()
    rates.step()
    optimiser.zero_grad(set_to_none=True)
    return images, means | {"loss": sum(means.values())}


def _mean_terms(steps: list[tuple[int, Row]]) -> Row:
    """Means over the images of the epoch."""
    images = sum(count for count, _ in steps)
    return {name: sum(count * row[name] for count, row in steps) / images for name in steps[0][1]}
