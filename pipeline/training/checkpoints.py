"""What a killed training needs to go on as if nothing had happened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.files import replacing

Row = dict[str, float]


def save_checkpoint(folder: Path, parts: Mapping[str, Any], history: list[Row]) -> None:
    """Replace the checkpoint of `folder`: it is the old one or the new one, at any moment.

    It holds the state of each part after the last finished epoch, and a row an epoch. Random
    numbers need no state: every epoch draws its own from the seed and its number.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    with replacing(folder / "checkpoint.pt") as temporary:
        torch.save({**states, "history": history}, temporary)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The states and the `history` in the checkpoint of `folder`, or None if there is none yet."""
    path = folder / "checkpoint.pt"
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
