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


def build_optimiser(network: nn.Module, schedule: Schedule, steps: int) -> tuple[AdamW, OneCycleLR]:
    """AdamW over the parameters that train, and a one-cycle schedule of exactly `steps` steps.

    One group, one rate: GeM's exponent gets no rate of its own (in the authors' code its tenfold
    rate is overwritten by the schedule, and every group runs at the same one).
    """
    peak = schedule.learning_rate
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = AdamW(trained, lr=peak, weight_decay=schedule.weight_decay, fused=True)
    warmup_share = schedule.warmup_share
    if math.isclose(warmup_share * steps, 1):  # OneCycleLR divides by the length of the warm-up
        warmup_share *= 1.001
    rates = OneCycleLR(
        optimiser, peak, steps, pct_start=warmup_share, div_factor=schedule.initial_division
    )
    return optimiser, rates
