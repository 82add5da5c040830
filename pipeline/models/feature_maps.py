"""Whatever a library's network gives before its head, as a map of channels, height and width."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_PROBE_PX = (64, 96)  # of unequal sides, which tell the axes of a map apart
_MOST_EXTRA_TOKENS = 8  # class, distillation and register tokens
LIBRARY_FAULTS = (RuntimeError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def reason_of(error: Exception) -> str:
    """The first line of what a library says of its fault, or else the fault's kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class NoFeatureMapError(ValueError):
    """A network whose output is no map of features."""


class TokenMap(nn.Module):
    """A transformer's patch tokens as a feature map; class and register tokens are dropped.

    `stride_px` pixels lie between neighbouring tokens. GeM pooling of the map keeps the positive
    part of each token, which transformers do not restrict to.
    """

    def __init__(self, network: nn.Module, prefix_tokens: int, stride_px: int) -> None:
        super().__init__()
        self.network = network
        self.prefix_tokens = prefix_tokens
        self.stride_px = stride_px

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature rows columns"]:
        tokens = self.network(images)[:, self.prefix_tokens :]
        return tokens.mT.unflatten(2, (images.shape[2] // self.stride_px, -1))


class ChannelsFirst(nn.Module):
    """A feature map whose channels stand last, with its axes in their usual order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature rows columns"]:
        return self.network(images).permute(0, 3, 1, 2)


class Unpooled(nn.Module):
    """A timm network that cannot be built without its pooling, before that pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Any:
        """A map or tokens; of a few networks something else, which is then refused."""
        return self.network.forward_features(images)  # type: ignore[operator]  # timm's own method


@dataclass(frozen=True)
class FeatureMap:
    """`features` gives maps of `channels` channels; sides are multiples of `patch_px` pixels."""

    features: nn.Module
    channels: int
    patch_px: int = 1


def as_feature_map(
    network: nn.Module,
    *,
    native_px: int,
    prefix_tokens: int | None = None,
    patch_px: int = 1,
) -> FeatureMap:
    """The network's output brought into the form of a feature map, found by forward passes.

    native_px: a size that the network certainly takes. prefix_tokens: how many tokens that are no
    patches stand before the others; None: the few that leave a grid. patch_px: what an image's
    sides are known to be multiples of.

    Raises NoFeatureMapError.
    """
    training = network.training
    network.eval()
    try:
        shape, sides = _probe(network, native_px, patch_px)
    except LIBRARY_FAULTS as error:
        raise NoFeatureMapError(f"cannot be run ({reason_of(error)})") from error
    finally:
        network.train(training)
    if len(shape) == 3:
        extra, stride_px = _token_grid(shape[1], sides, prefix_tokens)
        return FeatureMap(TokenMap(network, extra, stride_px), shape[2], stride_px)
    if len(shape) == 4 and _is_grid(shape[2], shape[3], sides):
        return FeatureMap(network, shape[1], patch_px)
    if len(shape) == 4 and _is_grid(shape[1], shape[2], sides):
        return FeatureMap(ChannelsFirst(network), shape[3], patch_px)
    raise NoFeatureMapError(f"gives {list(shape)}, which is no map of channels, height and width")


@torch.inference_mode()
def _probe(
    network: nn.Module, native_px: int, patch_px: int
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape of the output, and the height and width of the image that it is of."""
    device = next(network.parameters()).device
    height, width = (math.ceil(px / patch_px) * patch_px for px in _PROBE_PX)
    try:
        output = network(torch.zeros(1, 3, height, width, device=device))
    except LIBRARY_FAULTS:  # it takes one size only, or none as small
        height = width = native_px
        output = network(torch.zeros(1, 3, height, width, device=device))
    if not isinstance(output, Tensor):
        raise TypeError(f"gives a {type(output).__name__}, not one map")
    return tuple(output.shape), (height, width)


def _is_grid(rows: int, columns: int, sides: tuple[int, int]) -> bool:
    height, width = sides
    return rows == columns if height == width else rows <= columns <= 2 * rows


def _token_grid(tokens: int, sides: tuple[int, int], prefix_tokens: int | None) -> tuple[int, int]:
    """How many tokens are no patches, and the pixels between neighbouring patches."""
    height, width = sides
    strides = [px for px in range(1, min(sides)) if height % px == 0 and width % px == 0]
    extras = range(_MOST_EXTRA_TOKENS + 1) if prefix_tokens is None else [prefix_tokens]
    for extra in extras:
        for stride_px in strides:
            if (height // stride_px) * (width // stride_px) == tokens - extra:
                return extra, stride_px
    raise NoFeatureMapError(f"gives {tokens} tokens of {height} x {width} pixels: no grid of them")
