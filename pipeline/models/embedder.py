"""The embedding network: backbone, pooling, L2, projection, L2."""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.models.backbones import Backbone

Precision = Literal["float32", "bfloat16"]


def gem(
    features: Float[Tensor, "batch channel *space"], p: float | Tensor, eps: float = 1e-6
) -> Float[Tensor, "batch channel"]:
    """Generalised mean (mean_x max(f_x, eps)^p)^(1/p) of each channel over its positions.

    p = 1 is average pooling, p -> infinity max pooling. Source: Radenovic et
    al., TPAMI 2019, eq. 3.
    """
    return features.flatten(2).clamp(min=eps).pow(p).mean(2).pow(1 / p)


class Embedder(nn.Module):
    """Images between 0 and 1 to unit vectors.

    Normalises with the backbone's own mean and deviation, so that networks of different families
    take the same input. GeM's exponent starts at 3 and is learned (METHOD of Suma & Tolias); a
    backbone with a pooling of its own has none. Without a `dim` there is no projection.
    The backbone computes in `precision`, which is not saved; GeM and projection in float32.
    """

    precision: Precision = "float32"

    def __init__(self, backbone: Backbone, dim: int | None) -> None:
        super().__init__()
        self.features = backbone.features
        self.p = nn.Parameter(torch.tensor(3.0)) if backbone.pooling == "gem" else None
        self.channels = backbone.channels
        self.projection = nn.Linear(backbone.channels, dim) if dim else nn.Identity()
        for name, colour in (("mean", backbone.mean), ("std", backbone.std)):
            self.register_buffer(name, torch.tensor(colour).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def pooled(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch feature"]:
        """Unit pooled features, before the projection."""
        normalised = (images - self.mean) / self.std
        if self.precision == "float32":
            features = self.features(normalised)
        else:
            with torch.autocast(images.device.type, torch.bfloat16):
                features = self.features(normalised).to(self.mean.dtype)
        return normalize(features.flatten(1) if self.p is None else gem(features, self.p))

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch dim"]:
        return normalize(self.projection(self.pooled(images)))


def unit_range(
    images: UInt8[Tensor, "batch channel height width"], device: torch.device
) -> Float[Tensor, "batch channel height width"]:
    """8-bit images as floats between 0 and 1 on `device`, channels last."""
    images = images.to(device, non_blocking=True)
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def freeze_batch_norm(network: nn.Module) -> None:
    """Use, and keep, the running statistics; the affine parameters go on training."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
