"""Batches of augmented views, the same views at every size that is asked for."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.datasets.packs import Pack
from pipeline.views import evaluation
from pipeline.views.resampling import crop_views_together, stack_images

Decode = Callable[[int], UInt8[Tensor, "channel height width"]]
DECODED_CACHE_BYTES = 2 << 30
ALL = slice(None)
NEGLIGIBLE = 1 / 512  # share of a picture in a mixture that adds less than half a grey level


@dataclass(frozen=True)
class ViewRecipe:
    """How views are drawn; the fields are those of params.yaml.

    views: of each image, 1 or more.
    crop_scale: the least and the largest share of the image's area that a crop shows, in (0, 1].
    flip_probability: of a mirrored view, from 0 to 1.
    colour_ranges: how far the factors of brightness, contrast and saturation lie from 1 at most,
        and the hue from 0, in turns of the colour circle.
    mixup_alpha: the mixing weight is drawn from Beta(alpha, alpha); 0: no mixing.
    mixup_partner: "dataset" mixes a view with a random image under the same parameters (as the
        paper does), "batch" with the view of the same number of another image of the batch.
    view_pairs: "independent" draws crop, flip and colour anew for each size.
    """

    views: int
    crop_scale: tuple[float, float]
    flip_probability: float
    colour_ranges: tuple[float, float, float, float]
    mixup_alpha: float = 0.0
    mixup_partner: Literal["dataset", "batch"] = "dataset"
    view_pairs: Literal["coupled", "independent"] = "coupled"


def cached_decoder(pack: Pack, limit_bytes: int = DECODED_CACHE_BYTES) -> Decode:
    """Images of the pack by their rows, kept once decoded until they fill `limit_bytes`.

    Several threads may call it.
    """
    kept: dict[int, Tensor] = {}
    room = limit_bytes
    lock = threading.Lock()

    def decode(row: int) -> UInt8[Tensor, "channel height width"]:
        nonlocal room
        image = kept.get(row)
        if image is None:
            image = evaluation.image_tensor(pack.image(row))
            with lock:
                if row not in kept and image.numel() <= room:
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
    part: slice = ALL,
) -> tuple[Float[Tensor, "view channel size size"], ...]:
    """Views of the images `rows` at each size, image by image, values between 0 and 1, on `device`.

    Each image has `recipe.views` views. Crop, flip, colour, mixing weight and partner of a view are
    the same at every size; of independent pairs the last two are.

    decode: gives the picture of a row, such as `cached_decoder` of a pack.
    candidates: the rows from which mixup draws partners, ascending; an image is never its own
        partner where there is another.
    sizes_px: sides of the views, the largest first, whose mean colours change by.
    generator: all randomness comes from it; the same seed gives the same views.
    part: the places in `rows` of the images whose views are made, as they are among those of all.

    Raises what `decode` raises, such as UnreadableImage.
    """
    own = np.repeat(rows, recipe.views)
    together = [sizes_px] if recipe.view_pairs == "coupled" else [(px,) for px in sizes_px]
    drawn = [
        evaluation.draw_view_parameters(
            len(own),
            generator,
            crop_scale=recipe.crop_scale,
            flip_probability=recipe.flip_probability,
            colour_ranges=recipe.colour_ranges,
        )
        for _ in together
    ]
    weights = evaluation.draw_mix_weights(len(own), recipe.mixup_alpha, generator)
    weights = weights.where(weights > NEGLIGIBLE, 0).where(weights < 1 - NEGLIGIBLE, 1)
    wanted = np.arange(len(own)).reshape(len(rows), recipe.views)[part].ravel()
    kept = torch.from_numpy(wanted)
    weights = weights[kept]
    partners, alike = None, kept
    if recipe.mixup_alpha > 0 and recipe.mixup_partner == "batch":
        shift = int(torch.randint(1, max(2, len(rows)), (1,), generator=generator))
        others = (wanted - shift * recipe.views) % len(own)
        partners, alike = own[others], torch.from_numpy(others)
    elif recipe.mixup_alpha > 0:
        partners = _draw_partners(own, candidates, generator)[wanted]
        partners = np.where(weights.numpy() == 1, own[wanted], partners)  # one less to decode

    def made(parameters: evaluation.ViewParameters, some_px: tuple[int, ...]) -> list[Tensor]:
        plain = _Views(decode, own[wanted], parameters.of(kept), some_px, device)
        if partners is None:
            return _made(plain, None, weights)
        others = _Views(decode, partners, parameters.of(alike), some_px, device)
        return _made(plain, others, weights)

    return tuple(chain.from_iterable(map(made, drawn, together)))


def _draw_partners(
    rows: np.ndarray, candidates: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    """For each of `rows` a random other candidate, uniformly; `candidates` are ascending."""
    place = np.searchsorted(candidates, rows)
    step = torch.randint(1, max(2, len(candidates)), (len(rows),), generator=generator).numpy()
    return candidates[(place + step) % len(candidates)]


class _Views:
    """Cropped and coloured views of images, one of each of `rows`, before any mixing."""

    def __init__(
        self,
        decode: Decode,
        rows: np.ndarray,
        parameters: evaluation.ViewParameters,
        sizes_px: tuple[int, ...],
        device: torch.device,
    ) -> None:
        decoded = {row: decode(row) for row in np.unique(rows).tolist()}
        self.images = [decoded[row] for row in rows.tolist()]
        self.parameters = parameters
        self.sizes_px = sizes_px
        self.device = device
        sides = torch.tensor([image.shape[1:] for image in self.images]).view(-1, 2)
        self.boxes = evaluation.crop_boxes(parameters, sides[:, 0], sides[:, 1])
        self.maps = evaluation.colour_maps(parameters.colour)

    def make(self, some: slice, out: Sequence[Tensor], levels: Sequence[Tensor]) -> None:
        """Some of the views at each size, into `out`. `levels` are there to be written over.

        Colours change by the mean of the first size, the largest.
        """
        images, boxes, flips = self.images[some], self.boxes[some], self.parameters.flip[some]
        if _made_together(self.device):
            for part, stack in stack_images(images, self.device):
                for size_px, floats in zip(self.sizes_px, levels, strict=True):
                    views = crop_views_together(stack, boxes[part], flips[part], size_px)
                    floats[part].copy_(views)
        else:
            for size_px, floats in zip(self.sizes_px, levels, strict=True):
                views_of = zip(floats, images, boxes, flips.tolist(), strict=True)
                for level, image, box, flip in views_of:
                    level.copy_(evaluation.crop_view(image, box, flip=flip, size_px=size_px))
        mean = evaluation.mean_luma(levels[0])
        for views, floats in zip(out, levels, strict=True):
            evaluation.adjust_colours(floats, self.maps[some], mean, out=views)


def _made_together(device: torch.device) -> bool:
    return device.type != "cpu"


def _made(
    plain: _Views, partners: _Views | None, weights: Float[Tensor, "view"]
) -> list[Float[Tensor, "view channel size size"]]:
    """All the views, mixed with their partners; a CPU makes one at a time, within its caches."""
    count = len(plain.images)

    def empty(views: int) -> list[Tensor]:
        return [torch.empty(views, 3, px, px, device=plain.device) for px in plain.sizes_px]

    results = empty(count)
    at_once = max(1, count) if _made_together(plain.device) else 1
    levels, others = empty(at_once), empty(at_once if partners else 0)
    for start in range(0, count, at_once):
        some = slice(start, start + at_once)
        views = [result[some] for result in results]
        weight = weights[some]
        if partners is None or (weight == 1).all():
            plain.make(some, views, levels)
        elif (weight == 0).all():
            partners.make(some, views, levels)
        else:
            plain.make(some, views, levels)
            partners.make(some, others, levels)
            for own, other in zip(views, others, strict=True):
                torch.lerp(other, own, weight.to(own)[:, None, None, None], out=own)
    return results
