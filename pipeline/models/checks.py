"""Whether a network can be built, takes images of a size, and is what a file of weights is of."""

from functools import lru_cache
from pathlib import Path

import torch

from pipeline.config import LIBRARY_WEIGHTS
from pipeline.config.recipes import Network
from pipeline.models import WeightsError, backbones
from pipeline.models.weights import MAX_SIZE_PX, starting_file


def faults_of(owner: str, network: Network, sizes: dict[str, int]) -> list[str]:
    """Faults of the network of the key `owner` at the sizes, in pixels, which are given by keys."""
    faults = []
    try:
        _built(network.backbone, network.pooling)
        if file := starting_file(network.backbone, network.weights):
            _without_values(network.backbone, network.pooling, file)
    except backbones.UnknownBackboneError as error:
        return [f"{owner}.network.backbone = {network.backbone!r}: {error}"]
    except WeightsError as error:
        given = network.weights if network.weights in LIBRARY_WEIGHTS else "file"
        faults.append(f"{owner}.network.weights = {given!r}: {error}")
    return faults + [
        f"{key} = {size_px}: {fault}"
        for key, size_px in sizes.items()
        if (fault := size_fault(network.backbone, size_px, network.pooling))
    ]


def size_fault(backbone: str, size_px: int, pooling: backbones.Pooling = "gem") -> str | None:
    """Why `backbone` cannot take square images of `size_px`, or None: tried on meta tensors."""
    if size_px > MAX_SIZE_PX:
        return f"must be at most {MAX_SIZE_PX}"
    try:
        built = _built(backbone, pooling)
    except backbones.UnknownBackboneError as error:
        return str(error)
    if size_px % built.patch_px:
        return f"must be a multiple of {built.patch_px} for {backbone}"
    try:
        device = next(built.features.parameters()).device
        output = built.features.eval()(torch.empty(1, 3, size_px, size_px, device=device))
    except backbones.LIBRARY_FAULTS as error:
        return f"{backbone} cannot take it ({backbones.reason_of(error).lower()})"
    if 0 in output.shape:
        return f"{backbone} leaves no feature map of so small an image"
    if pooling == "native" and output.flatten(1).shape[1] != built.channels:
        return f"{backbone} gives vectors of another length at each size: take pooling gem"
    return None


def _without_values(
    backbone: str, pooling: backbones.Pooling, file: Path | None = None
) -> backbones.Backbone:
    """The backbone on the meta device, or, where its library needs values to build it, with them.

    Raises UnknownBackboneError, with the library's own reason where it fails, or WeightsError.
    """
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return backbones.build_backbone(
                    backbone, pretrained=False, weights_file=file, pooling=pooling
                )
        except WeightsError:
            raise
        except backbones.LIBRARY_FAULTS as error:
            fault = error  # of the first try no matter: said again where the values are there
    if isinstance(fault, backbones.UnknownBackboneError):
        raise fault
    reason = backbones.reason_of(fault)
    raise backbones.UnknownBackboneError(f"{backbone} cannot be built ({reason})") from fault


_built = lru_cache(maxsize=8)(_without_values)
