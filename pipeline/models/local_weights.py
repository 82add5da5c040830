"""Weights from a file on this disk, in the names that the backbone's own library gives them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.datasets.reader import enumerate_names
from pipeline.models import WeightsError

_NAMES_SHOWN = 5
_COUNTER = "num_batches_tracked"  # of batches seen: no weight, and older files lack it


def load_local_weights(network: nn.Module, path: Path, classifier: Sequence[str]) -> None:
    """Fill a library's network from a .safetensors file of its own key names.

    classifier: the children that are the classification head: the file may lack their weights, or
    hold others, and they are not read. On the meta device names and shapes are checked only.

    Raises WeightsError that names what is missing, surplus or of another shape; nothing is then
    filled.
    """
    own = network.state_dict()
    heads = tuple(f"{name}." for name in classifier)
    try:
        with safe_open(path, framework="pt") as file:
            given = {name for name in file.keys() if not name.startswith(heads)}  # noqa: SIM118
            wanted = {name for name in own if not name.startswith(heads)}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in given & wanted}
            faults = [
                ("misses", (n for n in wanted - given if not n.endswith(_COUNTER))),
                ("has besides", given - wanted),
                ("has another shape of", (n for n in shapes if shapes[n] != own[n].shape)),
            ]
            faulty = [
                f"{what} {enumerate_names(names, _NAMES_SHOWN)}"
                for what, found in faults
                if (names := sorted(found))
            ]
            if faulty:
                raise WeightsError(
                    f"{path}: is not of this backbone: {'; '.join(faulty)}: is `backbone` the one "
                    "that the file was saved from?"
                )
            if not any(value.is_meta for value in own.values()):
                state = {name: file.get_tensor(name) for name in shapes}
                network.load_state_dict(state, strict=False)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: is not a safetensors file: {reason}") from error


def load_weights_in_order(network: nn.Module, path: Path) -> None:
    """Fill a network from a package's file, whose weights have other names in the same order.

    The classifier's stand last, and are not read. On the meta device kinds and shapes are checked
    only. Raises WeightsError for a file of another network; nothing is then filled.
    """
    own = network.state_dict()
    given = torch.load(path, map_location="cpu", weights_only=True)
    if _forms(own) != _forms(given)[: len(own)]:
        raise WeightsError(f"{path}: is not of this backbone")
    if not any(value.is_meta for value in own.values()):
        network.load_state_dict(dict(zip(own, given.values(), strict=False)))


def _forms(state: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    """Of each weight the last part of its name, and its shape."""
    return [(name.rpartition(".")[2], tuple(value.shape)) for name, value in state.items()]
