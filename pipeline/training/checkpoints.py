"""What a killed training needs to go on as if nothing had happened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.files import replacing

Row = dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """The state after `epochs` finished epochs; `history` has a row an epoch.

    Random numbers need no state: every epoch draws its own from the seed and its number.
    """

    epochs: int
    network: dict[str, Any]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]
    history: list[Row]


def take_checkpoint(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    history: list[Row],
) -> Checkpoint:
    return Checkpoint(
        epochs=len(history),
        network=network.state_dict(),
        optimiser=optimiser.state_dict(),
        schedule=schedule.state_dict(),
        history=history,
    )


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of `folder`: it is the old one or the new one, at any moment."""
    with replacing(folder / "checkpoint.pt") as temporary:
        torch.save(vars(checkpoint), temporary)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of `folder`, or None if there is none yet."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
