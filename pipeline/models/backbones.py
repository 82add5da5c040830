"""Backbones of torchvision and timm by name, as networks from an image to a feature map."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.local_weights import load_local_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_PROBE_PX = (64, 96)  # of unequal sides, which tell the axes of a map apart


class UnknownBackboneError(ValueError):
    """No library offers a backbone of this name, or what it offers has no feature map."""


@dataclass(frozen=True)
class Backbone:
    """`features` maps normalised images to feature maps of `channels` channels.

    `mean` and `std` are those the backbone's weights were trained with, on pixels between 0 and 1.
    The sides of an image must be multiples of `patch_px`.
    """

    features: nn.Module
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_px: int = 1


class TokenMap(nn.Module):
    """A vision transformer's patch tokens as a feature map; class and register tokens are dropped.

    GeM pooling of it keeps the positive part of each token, which transformers do not restrict to.
    """

    def __init__(self, network: nn.Module, prefix_tokens: int, patch_px: int) -> None:
        super().__init__()
        self.network = network
        self.prefix_tokens = prefix_tokens
        self.patch_px = patch_px

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature rows columns"]:
        tokens = self.network(images)[:, self.prefix_tokens :]
        return tokens.mT.unflatten(2, (images.shape[2] // self.patch_px, -1))


class ChannelsFirst(nn.Module):
    """A feature map whose channels stand last, with its axes in their usual order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature rows columns"]:
        return self.network(images).permute(0, 3, 1, 2)


def build_backbone(name: str, *, pretrained: bool, weights_file: Path | None = None) -> Backbone:
    """Build LIBRARY/NAME, for example timm/resnet50 or torchvision/mobilenet_v2.

    pretrained: with the library's default weights, which it downloads once. weights_file: a
    .safetensors file of the library's key names to take the weights from.

    Raises UnknownBackboneError for a name that the library does not have, WeightsError for a file
    that does not fit.
    """
    library, _, model = name.partition("/")
    return _builder(library, name)(model, pretrained, weights_file)


def check_backbone(name: str) -> None:
    """Raise UnknownBackboneError unless `name` is one of its library's; builds nothing."""
    library, _, model = name.partition("/")
    _builder(library, name)
    known = _timm_names() if library == "timm" else _torchvision_names()
    if model not in known:
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(model, known, n=5)) or "none is close"
        raise UnknownBackboneError(f"{library} has no {model!r}; similar: {close}")


def _builder(library: str, name: str) -> Callable[[str, bool, Path | None], Backbone]:
    builders = {"timm": _build_timm, "torchvision": _build_torchvision}
    if library not in builders:
        raise UnknownBackboneError(f"{name!r}: must be timm/NAME or torchvision/NAME")
    return builders[library]


def _timm_names() -> list[str]:
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def _torchvision_names() -> list[str]:
    from torchvision.models import list_models

    return list_models()


def _build_timm(model: str, pretrained: bool, weights_file: Path | None) -> Backbone:
    network = _create_timm(model, pretrained)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]  # a plain dict
    if weights_file is not None:
        heads = config.get("classifier") or ()
        load_local_weights(network, weights_file, (heads,) if isinstance(heads, str) else heads)
    features, patch_px = network, 1
    if getattr(network, "num_prefix_tokens", None) is not None:
        patch_px = int(network.patch_embed.patch_size[0])  # type: ignore[union-attr, index]
        features = TokenMap(network, int(network.num_prefix_tokens), patch_px)  # type: ignore[arg-type]
    elif getattr(network, "output_fmt", "") == "NHWC":
        features = ChannelsFirst(network)
    channels = _channels(features, f"timm/{model}", config["input_size"][1], patch_px)
    return Backbone(features, channels, tuple(config["mean"]), tuple(config["std"]), patch_px)


def _create_timm(model: str, pretrained: bool) -> nn.Module:
    """The network without its head; one that can take images of any size does."""
    import timm

    settings: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        try:
            return timm.create_model(model, dynamic_img_size=True, **settings)
        except TypeError:  # only transformers know the setting
            return timm.create_model(model, **settings)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            check_backbone(f"timm/{model}")
        raise
    except (AssertionError, TypeError) as error:
        raise UnknownBackboneError(f"timm/{model} has no headless form ({error})") from error


def _build_torchvision(model: str, pretrained: bool, weights_file: Path | None) -> Backbone:
    from torchvision.models import get_model

    try:
        network = get_model(model, weights="DEFAULT" if pretrained else None)
    except ValueError:
        check_backbone(f"torchvision/{model}")
        raise
    children = dict(network.named_children())
    if "features" in children:
        kept = ["features"]
        features: nn.Module = children["features"]
    elif {"avgpool", "fc"} <= children.keys():
        kept = [name for name in children if name not in ("avgpool", "fc")]
        features = nn.Sequential(*(children[name] for name in kept))
    else:
        raise UnknownBackboneError(
            f"torchvision/{model} has no convolutional feature map; take it from timm"
        )
    if weights_file is not None:
        load_local_weights(network, weights_file, [name for name in children if name not in kept])
    channels = _channels(features, f"torchvision/{model}", 224, 1)
    return Backbone(features, channels, IMAGENET_MEAN, IMAGENET_STD)


@torch.inference_mode()
def _channels(features: nn.Module, name: str, native_px: int, patch_px: int) -> int:
    """Channels of the feature map, found by a forward pass.

    Of a network that takes one size only, `native_px`, the two sides of the map cannot be told
    apart from its channels' place: it must then give tokens or say its format.
    """
    device = next(features.parameters()).device
    training = features.training
    sides = tuple(-(-px // patch_px) * patch_px for px in _PROBE_PX)
    features.eval()
    try:
        try:
            shape = features(torch.zeros(1, 3, *sides, device=device)).shape
            in_order = len(shape) == 4 and shape[2] <= shape[3] <= 2 * shape[2]
        except (RuntimeError, AssertionError):
            shape = features(torch.zeros(1, 3, native_px, native_px, device=device)).shape
            in_order = len(shape) == 4 and shape[2] == shape[3]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UnknownBackboneError(f"{name} cannot be run ({reason})") from error
    finally:
        features.train(training)
    if not in_order:
        raise UnknownBackboneError(
            f"{name} gives {list(shape)}, which is no map of channels, height and width"
        )
    return int(shape[1])
