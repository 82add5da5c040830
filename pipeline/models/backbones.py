"""Backbones of torchvision and timm by name, as networks from an image to a feature map.

Whatever a library's network gives before its head is brought into the form of a map of channels,
height and width, which a forward pass tells apart; with its own pooling, into that of a vector.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.late_compiler import imported
from pipeline.models.local_weights import load_local_weights, load_weights_in_order
from pipeline.models.torchvision_heads import HALF, HALF_SCALED, NATIVE_PX, headless, unclassified

Pooling = Literal["gem", "native"]
Colour = tuple[float, float, float]  # of red, green and blue, pixels between 0 and 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LIBRARY_FAULTS = (RuntimeError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_PROBE_PX = (64, 96)  # of unequal sides, which tell the axes of a map apart
_MOST_EXTRA_TOKENS = 8  # class, distillation and register tokens


class UnknownBackboneError(ValueError):
    """No library offers a backbone of this name, or what it offers has no feature map."""


@dataclass(frozen=True)
class Backbone:
    """`features` maps normalised images to feature maps of `channels` channels, or, with `pooling`
    "native", to vectors of as many numbers: what the library's own head takes.

    `mean` and `std` are those the backbone's weights were trained with, on pixels between 0 and 1.
    The sides of an image must be multiples of `patch_px`.
    """

    features: nn.Module
    channels: int
    mean: Colour
    std: Colour
    patch_px: int = 1
    pooling: Pooling = "gem"


def build_backbone(
    name: str, *, pretrained: bool, weights_file: Path | None = None, pooling: Pooling = "gem"
) -> Backbone:
    """Build LIBRARY/NAME, for example timm/resnet50 or torchvision/mobilenet_v2.

    pretrained: with the library's default weights, which it downloads once. weights_file: a
    .safetensors file of the library's key names to take the weights from, or one of a package of
    weights. pooling: "native" keeps the library's own: class token, attention or average.

    Raises UnknownBackboneError for a name that the library does not have, WeightsError for a file
    that does not fit.
    """
    check_backbone(name)
    library, _, model = name.partition("/")
    build = _build_timm if library == "timm" else _build_torchvision
    return build(model, pretrained, weights_file, pooling)


def check_backbone(name: str) -> None:
    """Raise UnknownBackboneError unless `name` is one of its library's; builds nothing."""
    library, _, model = name.partition("/")
    if library == "timm":
        timm = imported("timm")
        known = [*timm.list_models(), *timm.list_pretrained()]
    elif library == "torchvision":
        models = imported("torchvision.models")
        known = models.list_models(module=models)  # not detection, segmentation, video, or 8 bits
    else:
        raise UnknownBackboneError(f"{name!r}: must be timm/NAME or torchvision/NAME")
    if model not in known:
        close = ", ".join(get_close_matches(model, known, n=5)) or "none is close"
        raise UnknownBackboneError(f"{library} has no {model!r}; similar: {close}")


def reason_of(error: Exception) -> str:
    """The first line of what a library says of its fault, or else the fault's kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _build_timm(
    model: str, pretrained: bool, weights_file: Path | None, pooling: Pooling
) -> Backbone:
    network, pooled = _create_timm(model, pretrained, pooling)
    config = network.pretrained_cfg
    if weights_file is not None and weights_file.suffix == ".pth":
        load_weights_in_order(network, weights_file)
    elif weights_file is not None:
        heads = config.get("classifier") or ()
        load_local_weights(network, weights_file, (heads,) if isinstance(heads, str) else heads)
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return _as_backbone(
        f"timm/{model}",
        Unpooled(network) if pooled and pooling == "gem" else network,
        (tuple(config["mean"]), tuple(config["std"])),
        config["input_size"][1],
        getattr(network, "num_prefix_tokens", None),
        int(patch_size if isinstance(patch_size, int) else patch_size[0]),
        pooling,
    )


def _create_timm(model: str, pretrained: bool, pooling: Pooling) -> tuple[Any, bool]:
    """The network without its head, and whether it pools: as is wanted, or as it must.

    One that can take images of any size does; only transformers know the setting.
    """
    create = partial(imported("timm").create_model, model, pretrained=pretrained, num_classes=0)
    unpooled = {"global_pool": ""} if pooling == "gem" else {}
    for settings in ({"dynamic_img_size": True}, {}):
        with suppress(AssertionError, TypeError):
            return create(**unpooled, **settings), pooling == "native"
    return create(), True


def _build_torchvision(
    model: str, pretrained: bool, weights_file: Path | None, pooling: Pooling
) -> Backbone:
    own = {"init_weights": True} if model in HALF_SCALED and not pretrained else {}
    weights = "DEFAULT" if pretrained else None
    network = imported("torchvision.models").get_model(model, weights=weights, **own)
    body, kept = headless(network) if pooling == "gem" else unclassified(network)
    if weights_file is not None:
        heads = [child for child, _ in network.named_children() if child not in kept]
        load_local_weights(network, weights_file, heads)
    colours = (HALF, HALF) if model in HALF_SCALED else (IMAGENET_MEAN, IMAGENET_STD)
    native_px = NATIVE_PX.get(model, 224)
    return _as_backbone(f"torchvision/{model}", body, colours, native_px, pooling=pooling)


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


def _as_backbone(
    name: str,
    network: nn.Module,
    colours: tuple[Colour, Colour],
    native_px: int,
    prefix_tokens: int | None = None,
    patch_px: int = 1,
    pooling: Pooling = "gem",
) -> Backbone:
    """The network giving maps, whatever it gives itself, which a forward pass shows; or, with its
    own pooling, vectors.

    colours: mean and deviation of its input. native_px: a size that it certainly takes.
    prefix_tokens: how many tokens that are no patches stand before the others; None: the few that
    leave a grid. patch_px: what the sides are known to be multiples of. Raises
    UnknownBackboneError.
    """
    network.eval()
    try:
        shape, sides = _probe(network, native_px, patch_px)
    except LIBRARY_FAULTS as error:
        raise UnknownBackboneError(f"{name} cannot be run ({reason_of(error)})") from error
    network.train()
    if pooling == "native":
        if set(shape[2:]) <= {1}:
            return Backbone(network, shape[1], *colours, patch_px, pooling)
        raise UnknownBackboneError(
            f"{name} gives {list(shape)} to its own head, which is no vector: take pooling gem"
        )
    if len(shape) == 3:
        grid = _token_grid(shape[1], sides, prefix_tokens)
        if grid is None:
            raise UnknownBackboneError(
                f"{name} gives {shape[1]} tokens of {sides[0]} x {sides[1]} pixels: no grid of them"
            )
        return Backbone(TokenMap(network, *grid), shape[2], *colours, grid[1])
    if len(shape) == 4 and _is_grid(shape[2], shape[3], sides):
        return Backbone(network, shape[1], *colours, patch_px)
    if len(shape) == 4 and _is_grid(shape[1], shape[2], sides):
        return Backbone(ChannelsFirst(network), shape[3], *colours, patch_px)
    raise UnknownBackboneError(
        f"{name} gives {list(shape)}, which is no map of channels, height and width"
    )


@torch.inference_mode()
def _probe(
    network: nn.Module, native_px: int, patch_px: int
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The shape of the output, and the height and width of the image that it is of."""
    height, width = (math.ceil(px / patch_px) * patch_px for px in _PROBE_PX)
    try:
        output = network(torch.zeros(1, 3, height, width))
    except LIBRARY_FAULTS:  # it takes one size only, or none as small
        height = width = native_px
        output = network(torch.zeros(1, 3, height, width))
    if not isinstance(output, Tensor):
        raise TypeError(f"gives a {type(output).__name__}, not one map")
    return tuple(output.shape), (height, width)


def _is_grid(rows: int, columns: int, sides: tuple[int, int]) -> bool:
    height, width = sides
    return rows == columns if height == width else rows <= columns <= 2 * rows


def _token_grid(
    tokens: int, sides: tuple[int, int], prefix_tokens: int | None
) -> tuple[int, int] | None:
    """How many tokens are no patches, and the pixels between neighbouring patches."""
    height, width = sides
    extras = range(_MOST_EXTRA_TOKENS + 1) if prefix_tokens is None else [prefix_tokens]
    for extra, px in product(extras, range(1, min(sides))):
        fits = height % px == 0 and width % px == 0
        if fits and (height // px) * (width // px) == tokens - extra:
            return extra, px
    return None
