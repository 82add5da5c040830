"""What the networks see: the evaluation view, and coupled augmented views at two sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.models.query_encoder import square_view

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # luma, and the plane of colours


def image_tensor(image: Image.Image) -> UInt8[Tensor, "channel height width"]:
    """An RGB picture as a tensor that owns its memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def evaluation_view(
    image: Image.Image | UInt8[Tensor, "channel height width"], size_px: int
) -> UInt8[Tensor, "channel size size"]:
    """Shorter side to s + s/7 by antialiased Lanczos, then the central s x s pixels.

    `image` is RGB, or is converted to it. Sizes are rounded to the nearest pixel. Raises ValueError
    for a size under 1. Source: the evaluation of Suma & Tolias (WACV 2023).
    """
    if size_px < 1:
        raise ValueError(f"size_px = {size_px}: must be 1 or more")
    if isinstance(image, Tensor):
        image = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    image = image if image.mode == "RGB" else image.convert("RGB")  # which copies all its pixels
    return torch.from_numpy(square_view(image, size_px)).permute(2, 0, 1)


@dataclass(frozen=True)
class ViewParameters:
    """What is drawn for a number of views, in units that fit an image of any size.

    `area` is the crop's share of the image, `aspect` its width over its height in pixels, `shift`
    its place (0: left or top, 1: right or bottom). `colour` are the factors of brightness, contrast
    and saturation (1: no change) and the turn of the hue (in turns, 0: no change).
    """

    area: Float[Tensor, "view"]
    aspect: Float[Tensor, "view"]
    shift: Float[Tensor, "view 2"]
    flip: Tensor
    colour: Float[Tensor, "view 4"]

    def __len__(self) -> int:
        return len(self.area)

    def of(self, views: Int[Tensor, "view"]) -> "ViewParameters":
        """The parameters of some of the views, in the order of their numbers."""
        return ViewParameters(*(values[views] for values in vars(self).values()))


def draw_view_parameters(
    views: int,
    generator: torch.Generator,
    *,
    crop_scale: tuple[float, float],
    flip_probability: float,
    colour_ranges: tuple[float, float, float, float],
) -> ViewParameters:
    """Independent parameters for `views` views.

    The area is uniform in `crop_scale`, the aspect log-uniform in 3/4 .. 4/3. `colour_ranges` are
    the half-widths of brightness, contrast, saturation (around 1) and hue (around 0), all uniform.
    """
    uniform = torch.rand(views, 9, generator=generator, dtype=torch.float64)
    low, high = crop_scale
    spread = 2 * uniform[:, 5:9] - 1
    centre = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    return ViewParameters(
        area=low + (high - low) * uniform[:, 0],
        aspect=(4 / 3) ** (2 * uniform[:, 1] - 1),
        shift=uniform[:, 2:4],
        flip=uniform[:, 4] < flip_probability,
        colour=centre + spread * torch.tensor(colour_ranges, dtype=torch.float64),
    )


def crop_boxes(
    parameters: ViewParameters, height: int | Tensor, width: int | Tensor
) -> list[list[int]]:
    """Pixel boxes (top, left, height, width) of the views, in images of the given sides.

    The sides are those of one image, or tensors with those of each view's image. A box that would
    be longer than a side is cut to it, where torchvision's RandomResizedCrop draws up to ten times
    and then takes the centre.
    """
    sides = torch.stack([torch.as_tensor(side).expand(len(parameters)) for side in (height, width)])
    area = parameters.area * sides[0] * sides[1]
    box = torch.stack([area / parameters.aspect, area * parameters.aspect]).sqrt().round()
    box = box.clamp(min=1).minimum(sides)
    room = sides - box
    corner = (parameters.shift.T * (room + 1)).floor().minimum(room)
    boxes: list[list[int]] = torch.cat([corner, box]).T.long().tolist()
    return boxes


def crop_view(
    image: UInt8[Tensor, "channel _ _"], box: Sequence[int], *, flip: bool, size_px: int
) -> UInt8[Tensor, "channel size size"]:
    """One view of an image at one size: crop, antialiased bilinear resize, flip.

    Called with the same box at two sizes it gives coupled views: both come from the same pixels.
    Colour is left to `adjust_colours`.
    """
    top, left, height, width = box
    crop = image[None, :, top : top + height, left : left + width]
    # Whole channels-last bytes: torch resizes them three times as fast, to the same bits.
    crop = crop.contiguous(memory_format=torch.channels_last)
    view = interpolate(crop, size=(size_px, size_px), mode="bilinear", antialias=True)[0]
    return view.flip(-1) if flip else view


def colour_maps(colour: Float[Tensor, "view 4"]) -> Float[Tensor, "view 3 4"]:
    """The colour change of each view as one affine map, rows (weights of r, g, b, and of the mean).

    A pixel x becomes A x + b m, m being the view's mean luma. Brightness scales; contrast blends
    with the mean luma, saturation with the pixel's own; hue turns the IQ plane of YIQ (as NVIDIA
    DALI's ColorTwist does, where torchvision goes through HSV). The order is fixed.
    """
    brightness, contrast, saturation, hue = colour.double().unbind(1)
    identity = torch.eye(3, dtype=torch.float64)
    luma = torch.tensor(LUMA, dtype=torch.float64)
    angle = 2 * torch.pi * hue
    turn = identity.repeat(len(colour), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -angle.sin()
    yiq = torch.tensor(YIQ, dtype=torch.float64)
    turn = torch.linalg.inv(yiq) @ turn @ yiq
    weight = saturation[:, None, None]
    saturate = weight * identity + (1 - weight) * luma.expand(3, 3)
    linear = (brightness * contrast)[:, None, None] * (turn @ saturate)
    offset = (brightness * (1 - contrast))[:, None, None].expand(-1, 3, 1)
    return torch.cat([linear, offset], dim=2)


def mean_luma(
    views: UInt8[Tensor, "view channel height width"] | Float[Tensor, "view channel height width"],
) -> Float[Tensor, "view"]:
    """The mean luma, between 0 and 1, of each view of grey levels from 0 to 255."""
    means = views.flatten(2).float().mean(2) / 255
    return means @ torch.tensor(LUMA, device=views.device)


def adjust_colours(
    views: UInt8[Tensor, "view channel height width"] | Float[Tensor, "view channel height width"],
    maps: Float[Tensor, "view 3 4"],
    mean: Float[Tensor, "view"],
    out: Float[Tensor, "view channel height width"] | None = None,
) -> Float[Tensor, "view channel height width"]:
    """Views of grey levels as ones between 0 and 1 with their colours changed, cut to that range.

    `mean` is the mean luma of the large views at both sizes, so that a pair changes alike.
    """
    maps = maps.to(views.device, torch.float32)
    flat = torch.bmm(
        maps[:, :, :3] / 255,
        views.flatten(2).float(),
        out=None if out is None else out.view(len(out), 3, -1),
    )
    flat.add_((maps[:, :, 3] * mean[:, None])[:, :, None])
    return flat.clamp_(0, 1).view(views.shape)


def draw_mix_weights(views: int, alpha: float, generator: torch.Generator) -> Float[Tensor, "view"]:
    """Mixup weights from Beta(alpha, alpha); alpha = 0 gives 1, no mixing.

    Drawn by Johnk's method in log space from uniform numbers, which takes an explicit generator;
    exact for every alpha, and efficient for the small ones that mixup uses.
    """
    weights = torch.ones(views, dtype=torch.float64)
    todo = torch.arange(views if alpha > 0 else 0)
    while len(todo):
        uniform = torch.rand(len(todo), 2, generator=generator, dtype=torch.float64)
        logs = uniform.clamp_min(1e-300).log() / alpha
        total = logs.logsumexp(1)
        accepted = total <= 0
        weights[todo[accepted]] = (logs[:, 0] - total)[accepted].exp()
        todo = todo[~accepted]
    return weights
