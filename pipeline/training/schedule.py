"""The optimiser and its one-cycle learning rate."""

import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def build_optimiser(
    network: nn.Module,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    initial_division: float,
) -> tuple[AdamW, OneCycleLR]:
    """AdamW over the parameters that train, and a one-cycle schedule of exactly `steps` steps.

    One group, one rate: GeM's exponent gets no rate of its own (in the authors' code its tenfold
    rate is overwritten by the schedule, and every group runs at the same one).
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if math.isclose(warmup_share * steps, 1):  # OneCycleLR divides by the length of the warm-up
        warmup_share *= 1.001
    schedule = OneCycleLR(
        optimiser,
        max_lr=learning_rate,
        total_steps=steps,
        pct_start=warmup_share,
        div_factor=initial_division,
        cycle_momentum=True,
    )
    return optimiser, schedule


def current_rate(optimiser: torch.optim.Optimizer) -> float:
    """The learning rate of the next step."""
    return float(optimiser.param_groups[0]["lr"])
