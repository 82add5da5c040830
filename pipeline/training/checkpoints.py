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
    """The state after the last finished epoch; `history` has a row an epoch.

    Random numbers need no state: every epoch draws its own from the seed and its number.
    """

    network: dict[str, Any]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]
    history: list[Row]

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        return len(self.history)


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    history: list[Row],
) -> None:
    """Replace the checkpoint of `folder`: it is the old one or the new one, at any moment."""
    parts: dict[str, Any] = {"network": network, "optimiser": optimiser, "schedule": schedule}
    states = {name: part.state_dict() for name, part in parts.items()}
    with replacing(folder / "checkpoint.pt") as temporary:
        torch.save({**states, "history": history}, temporary)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of `folder`, or None if there is none yet."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
