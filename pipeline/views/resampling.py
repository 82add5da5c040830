"""Crops of many images at one size as products of matrices: what a GPU does in one go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

# Of the images that are resampled together, padded to one size, or of their filters' weights.
PIXELS_AT_ONCE = 64 << 20
WEIGHT_COPIES = 4  # that are made of the weights of a filter on the way
STACK_BYTES = 256 << 20  # of the images that are padded to one size and moved together


@dataclass(frozen=True)
class ImageStack:
    """Images on a device, padded to one size with anything; `places`: which one a view shows."""

    images: UInt8[Tensor, "image channel height width"]
    places: Int[Tensor, "view"]


def stack_images(
    images: Sequence[UInt8[Tensor, "channel _ _"]],
    device: torch.device,
    limit_bytes: int = STACK_BYTES,
) -> Iterator[tuple[slice, ImageStack]]:
    """The images of a number of views on `device`, each different one moved once a stack.

    A stack takes as many of the next views as fit in `limit_bytes`, padded to the largest side, or
    one that is larger by itself; the slice says which. To a GPU they go from pinned memory: such a
    copy runs beside what the GPU computes.
    """
    start = 0
    while start < len(images):
        stop = start + _fitting(images[start:], limit_bytes)
        yield slice(start, stop), _stacked(images[start:stop], device)
        start = stop


def _fitting(images: Sequence[Tensor], limit_bytes: int) -> int:
    """How many of the first images, one or more, fit into a stack."""
    distinct: set[int] = set()
    height = width = 0
    for count, image in enumerate(images):
        distinct.add(id(image))
        height, width = max(height, image.shape[1]), max(width, image.shape[2])
        if len(distinct) > 1 and len(distinct) * 3 * height * width > limit_bytes:
            return count
    return len(images)


def _stacked(images: Sequence[Tensor], device: torch.device) -> ImageStack:
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    distinct = {id(image): image for image in images}
    numbers = {key: number for number, key in enumerate(distinct)}
    padded = torch.empty(
        (len(distinct), 3, height, width),
        dtype=torch.uint8,
        memory_format=torch.channels_last,  # as decoded images are: whole rows are copied
        pin_memory=device.type == "cuda",
    )
    for number, image in enumerate(distinct.values()):
        padded[number, :, : image.shape[1], : image.shape[2]] = image
    places = torch.tensor([numbers[id(image)] for image in images], device=device)
    return ImageStack(padded.to(device, non_blocking=True), places)


def crop_views_together(
    stack: ImageStack,
    boxes: Sequence[Sequence[int]],
    flips: Bool[Tensor, "view"],
    size_px: int,
) -> UInt8[Tensor, "view channel size size"]:
    """What `crop_view` makes of each view's image and box (top, left, height, width), together.

    A view is Y X Z, with the image X and the filter's weights as matrices Y (by rows) and Z (by
    columns). It is `crop_view`'s to one grey level: that one rounds between its two passes.
    """
    device = stack.images.device
    height, width = stack.images.shape[2:]
    box = torch.tensor(boxes, dtype=torch.float32, device=device)
    mirrored = flips.to(device)[:, None, None]
    number = torch.float16 if device.type == "cuda" else torch.float32
    results = torch.empty(len(box), 3, size_px, size_px, dtype=torch.uint8, device=device)
    # A long image has few pixels, and many weights: 65500 for each row of a view.
    numbers = max(3 * height * width, WEIGHT_COPIES * size_px * max(height, width))
    at_once = max(1, PIXELS_AT_ONCE // numbers)
    for start in range(0, len(box), at_once):
        some = slice(start, start + at_once)
        down = filter_weights(box[some, 0], box[some, 2], height, size_px)
        along = filter_weights(box[some, 1], box[some, 3], width, size_px)
        along = torch.where(mirrored[some], along.flip(1), along)
        chosen = stack.images[stack.places[some]]
        sources = chosen.to(number, memory_format=torch.contiguous_format)
        views = down.to(number)[:, None] @ sources @ along.to(number)[:, None].mT
        results[some] = views.float().round_().clamp_(0, 255).to(torch.uint8)
    return results


def filter_weights(
    start: Float[Tensor, "view"], length: Float[Tensor, "view"], side: int, size_px: int
) -> Float[Tensor, "view size side"]:
    """Weights of the `side` pixels in each of `size_px` pixels of a view: antialiased bilinear.

    The view shows the pixels from `start` on, `length` of them. A triangle as wide as two pixels of
    the view, or of the image where those are larger; pixels outside the box have no weight.
    """
    scale = (length / size_px)[:, None, None]
    steps = torch.arange(size_px, device=start.device)[:, None] + 0.5
    centre = start[:, None, None] + scale * steps
    place = torch.arange(side, device=start.device) + 0.5
    weights = (1 - (place - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    inside = (place > start[:, None, None]) & (place < (start + length)[:, None, None])
    weights = weights * inside
    return weights / weights.sum(2, keepdim=True)
