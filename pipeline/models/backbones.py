"""Backbones of torchvision and timm by name, as networks from an image to a feature map."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.models.feature_maps import (
    FeatureMap,
    NoFeatureMapError,
    Unpooled,
    as_feature_map,
)
from pipeline.models.local_weights import load_local_weights
from pipeline.models.torchvision_heads import HALF, HALF_SCALED, NATIVE_PX, headless

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    """The image classifiers alone: not detection, segmentation, video, or 8-bit networks."""
    from torchvision import models

    return models.list_models(module=models)


def _build_timm(model: str, pretrained: bool, weights_file: Path | None) -> Backbone:
    network, pooled = _create_timm(model, pretrained)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]  # a plain dict
    if weights_file is not None:
        heads = config.get("classifier") or ()
        load_local_weights(network, weights_file, (heads,) if isinstance(heads, str) else heads)
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    found = _feature_map(
        f"timm/{model}",
        Unpooled(network) if pooled else network,
        native_px=config["input_size"][1],
        prefix_tokens=getattr(network, "num_prefix_tokens", None),
        patch_px=int(patch_size if isinstance(patch_size, int) else patch_size[0]),
    )
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Backbone(found.features, found.channels, mean, std, found.patch_px)


def _create_timm(model: str, pretrained: bool) -> tuple[nn.Module, bool]:
    """The network without its head, and whether it is one that cannot do without its pooling.

    One that can take images of any size does.
    """
    import timm

    settings: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    try:
        try:
            network = timm.create_model(model, dynamic_img_size=True, global_pool="", **settings)
        except TypeError:  # only transformers know the setting
            network = timm.create_model(model, global_pool="", **settings)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            check_backbone(f"timm/{model}")
        raise
    except (AssertionError, TypeError):
        return timm.create_model(model, **settings), True
    return network, False


def _build_torchvision(model: str, pretrained: bool, weights_file: Path | None) -> Backbone:
    from torchvision.models import get_model

    name = f"torchvision/{model}"
    check_backbone(name)
    own: dict[str, Any] = {"init_weights": True} if model in HALF_SCALED and not pretrained else {}
    network = get_model(model, weights="DEFAULT" if pretrained else None, **own)
    features, kept = headless(network)
    if weights_file is not None:
        heads = [child for child, _ in network.named_children() if child not in kept]
        load_local_weights(network, weights_file, heads)
    found = _feature_map(name, features, native_px=NATIVE_PX.get(model, 224))
    mean, std = (HALF, HALF) if model in HALF_SCALED else (IMAGENET_MEAN, IMAGENET_STD)
    return Backbone(found.features, found.channels, mean, std, found.patch_px)


def _feature_map(name: str, network: nn.Module, **known: Any) -> FeatureMap:
    try:
        return as_feature_map(network, **known)
    except NoFeatureMapError as error:
        raise UnknownBackboneError(f"{name} {error}") from error
