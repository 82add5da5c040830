"""How long and how fast a network trains: the optimiser and its one-cycle learning rate."""

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


@dataclass(frozen=True)
class Schedule:
    """The fields are those of params.yaml; `seed` is that of layers that draw random numbers."""

    epochs: int
    accumulation_steps: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    initial_division: float
    batch_norm_frozen: bool
    seed: int


@dataclass(frozen=True)
class Proxies:
    """What a loss itself learns, a vector a class, at `rate` times the network's learning rate."""

    module: nn.Module
    rate: float


def build_optimiser(
    network: nn.Module, schedule: Schedule, steps: int, proxies: Proxies | None = None
) -> tuple[AdamW, OneCycleLR]:
    """AdamW over the parameters that train, and a one-cycle schedule of exactly `steps` steps.

    One group, one rate for the network: GeM's exponent gets no rate of its own (in the authors'
    code its tenfold rate is overwritten by the schedule, and every group runs at the same one).
    """
    peaks = [schedule.learning_rate]
    groups = [[parameter for parameter in network.parameters() if parameter.requires_grad]]
    if proxies:
        peaks.append(proxies.rate * schedule.learning_rate)
        groups.append(list(proxies.module.parameters()))
    optimiser = AdamW(
        [{"params": group, "lr": peak} for group, peak in zip(groups, peaks, strict=True)],
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    warmup_share = schedule.warmup_share
    if math.isclose(warmup_share * steps, 1):  # OneCycleLR divides by the length of the warm-up
        warmup_share *= 1.001
    rates = OneCycleLR(
        optimiser, peaks, steps, pct_start=warmup_share, div_factor=schedule.initial_division
    )
    if steps == 1:  # which would be the last of a cycle, at next to no rate
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak
    return optimiser, rates
