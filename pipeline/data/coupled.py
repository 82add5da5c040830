"""Batches of augmented views, the same views at every size that is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.packs import Pack
from pipeline.data.views import (
    ViewParameters,
    adjust_colours,
    colour_maps,
    crop_views,
    draw_mix_weights,
    draw_view_parameters,
    mean_luma,
    mix,
)

Decode = Callable[[int], UInt8[Tensor, "channel height width"]]
DECODED_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class ViewRecipe:
    """How views are drawn; the fields are those of params.yaml.

    `mixup_partner`: "dataset" mixes a view with a random image under the same parameters (as the
    paper does), "batch" with the view of the same number of another image of the batch.
    """

    views: int
    crop_scale: tuple[float, float]
    flip_probability: float
    colour_ranges: tuple[float, float, float, float]
    mixup_alpha: float = 0.0
    mixup_partner: Literal["dataset", "batch"] = "dataset"


def cached_decoder(pack: Pack, limit_bytes: int = DECODED_CACHE_BYTES) -> Decode:
    """`pack.decode` that keeps the images it has decoded until they fill `limit_bytes`."""
    kept: dict[int, Tensor] = {}
    room = limit_bytes

    def decode(row: int) -> UInt8[Tensor, "channel height width"]:
        nonlocal room
        image = kept.get(row)
        if image is None:
            image = pack.decode(row)
            if image.numel() <= room:
                room -= image.numel()
                kept[row] = image
        return image

    return decode


def coupled_views(
    decode: Decode,
    rows: np.ndarray,
    candidates: np.ndarray,
    sizes_px: tuple[int, ...],
    recipe: ViewRecipe,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Float[Tensor, "view channel size size"], ...]:
    """Views of the images `rows` at each size, image by image, values between 0 and 1, on `device`.

    Each image has `recipe.views` views. Crop, flip, colour, mixing weight and partner of a view are
    the same at every size. `candidates` are the rows from which mixup draws partners; an image is
    never its own partner where there is another. All randomness comes from `generator`.
    """
    parameters = draw_view_parameters(
        len(rows) * recipe.views,
        generator,
        crop_scale=recipe.crop_scale,
        flip_probability=recipe.flip_probability,
        colour_ranges=recipe.colour_ranges,
    )
    weights = draw_mix_weights(len(parameters), recipe.mixup_alpha, generator)
    own = np.repeat(rows, recipe.views)
    plain = _colour_cropped(decode, own, sizes_px, parameters, device)
    if recipe.mixup_alpha == 0:
        return plain
    if recipe.mixup_partner == "batch":
        shift = int(torch.randint(1, max(2, len(rows)), (1,), generator=generator))
        partners = tuple(views.roll(shift * recipe.views, 0) for views in plain)
    else:
        others = _draw_partners(own, candidates, generator)
        partners = _colour_cropped(decode, others, sizes_px, parameters, device)
    return tuple(mix(*pair, weights) for pair in zip(plain, partners, strict=True))


def _draw_partners(
    rows: np.ndarray, candidates: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    """For each of `rows` a random other candidate, uniformly; `candidates` are ascending."""
    place = np.searchsorted(candidates, rows)
    step = torch.randint(1, max(2, len(candidates)), (len(rows),), generator=generator).numpy()
    return candidates[(place + step) % len(candidates)]


def _colour_cropped(
    decode: Decode,
    rows: np.ndarray,
    sizes_px: tuple[int, ...],
    parameters: ViewParameters,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """One view of each row with the parameters of its place, at each size.

    Colours change by the mean of the first size, the largest, at all sizes.
    """
    decoded = {row: decode(row) for row in np.unique(rows).tolist()}
    images = [decoded[row] for row in rows.tolist()]
    sizes = [crop_views(images, parameters, size_px) for size_px in sizes_px]
    moved = [
        views.to(device, non_blocking=True).contiguous(memory_format=torch.contiguous_format)
        for views in sizes
    ]
    maps, mean = colour_maps(parameters.colour), mean_luma(moved[0])
    return tuple(adjust_colours(views, maps, mean) for views in moved)
