"""From an encoded picture to a network's input, in the ways that are usual elsewhere.

Ours is METHOD section 5: upright sRGB, the shorter side to 8/7 of the size by Lanczos, the centre.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.datasets.decode import decode_image
from pipeline.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Colour
from pipeline.models.query_encoder import WHOLE_ASPECT

Filter = Literal["lanczos", "bicubic", "bilinear"]
CROP_SHARE = 7 / 8
_RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_ORIENTATION_TAG = 0x0112
_HALF, _NONE = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SIZES_PX = (
    *(96, 112, 128, 160, 192, 224, 240, 256, 260, 288, 299, 320, 336, 378, 384, 448, 512, 518),
)


@dataclass(frozen=True)
class Preprocessing:
    """How an encoded picture becomes input; the fields' own values are our way.

    mean, std: what a pixel is normalised by. crop_share: side of the central square as a share of
    the shorter side; a squashed picture is scaled whole, whatever its sides. largest: of a pixel,
    1 or 255, before it is normalised.
    """

    size_px: int
    mean: Colour
    std: Colour
    crop_share: float = CROP_SHARE
    is_squashed: bool = False
    filter: Filter = "lanczos"
    antialias: bool = True
    channels: Literal["rgb", "bgr"] = "rgb"
    largest: Literal[1, 255] = 1
    heeds_orientation: bool = True
    heeds_profile: bool = True


@dataclass(frozen=True)
class Suspect:
    """A usual way to differ, in words, and the fields that it changes."""

    words: str
    changes: Mapping[str, Any]


def _suspect(words: str, **changes: object) -> Suspect:
    return Suspect(words, MappingProxyType(changes))


SUSPECTS = (
    _suspect("the channels are blue, green, red (BGR)", channels="bgr"),
    _suspect("pixels from 0 to 255 where 0 to 1 is meant", largest=255),
    _suspect(
        "pixels from 0 to 255, without mean and deviation", largest=255, mean=_NONE[0], std=_NONE[1]
    ),
    _suspect("pixels from 0 to 1, without mean and deviation", mean=_NONE[0], std=_NONE[1]),
    _suspect("mean and deviation of ImageNet", mean=IMAGENET_MEAN, std=IMAGENET_STD),
    _suspect("mean and deviation 0.5", mean=_HALF[0], std=_HALF[1]),
    _suspect("mean and deviation of CLIP", mean=_CLIP[0], std=_CLIP[1]),
    _suspect("filter: bicubic", filter="bicubic"),
    _suspect("filter: bilinear", filter="bilinear"),
    _suspect("filter: bilinear without antialiasing", filter="bilinear", antialias=False),
    _suspect("filter: bicubic without antialiasing", filter="bicubic", antialias=False),
    _suspect("squashed to a square, not cropped", is_squashed=True),
    *(_suspect(f"crop share {share:g}", crop_share=share) for share in (0.8, 0.9, 0.95, 1.0)),
    *(
        _suspect(f"size {size_px} px (--teacher-px {size_px})", size_px=size_px)
        for size_px in _SIZES_PX
    ),
    _suspect("orientation (EXIF) ignored", heeds_orientation=False),
    _suspect("colour profile ignored", heeds_profile=False),
)


def differing(way: Preprocessing, takes_size: Callable[[int], bool]) -> Iterable[Suspect]:
    """The suspects that change something of `way`, and whose size the network takes."""
    for suspect in SUSPECTS:
        changed = replace(way, **suspect.changes)
        if changed != way and (changed.size_px == way.size_px or takes_size(changed.size_px)):
            yield suspect


def network_input(
    encoded: bytes, name: str, way: Preprocessing, own: tuple[Colour, Colour]
) -> Float[Tensor, "channel size size"]:
    """The input that a network which normalises by `own` (mean, deviation) must be given.

    It then computes on what another with `way`'s own normalisation would be given. Raises
    UnreadableImage.
    """
    pixels = torch.from_numpy(_pixels(_opened(encoded, name, way), way)).permute(2, 0, 1) / 255
    pixels = pixels.flip(0) if way.channels == "bgr" else pixels
    if (way.mean, way.std) == own and way.largest == 1:
        return pixels
    mean, std, own_mean, own_std = (
        torch.tensor(colour).view(3, 1, 1) for colour in (way.mean, way.std, *own)
    )
    return (pixels * way.largest - mean) / std * own_std + own_mean


def _opened(encoded: bytes, name: str, way: Preprocessing) -> Image.Image:
    """The picture in RGB, upright and in sRGB as far as that is heeded."""
    upright = decode_image(encoded, name)  # which refuses what no one could read
    if way.heeds_orientation and way.heeds_profile:
        return upright
    try:
        with Image.open(BytesIO(encoded)) as opened:
            if not way.heeds_profile:
                turned = ImageOps.exif_transpose(opened) if way.heeds_orientation else opened
                return turned.convert("RGB")
            turn = opened.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError):  # `decode_image` alone mends it: nothing can be tried with it
        return upright
    back = Image.Exif()
    back[_ORIENTATION_TAG] = {6: 8, 8: 6}.get(turn, turn)  # the others are their own inverse
    upright.info["exif"] = back.tobytes()
    return ImageOps.exif_transpose(upright)


def _pixels(picture: Image.Image, way: Preprocessing) -> np.ndarray:
    """Grey levels as floats [height, width, channel], scaled and cut."""
    size_px = way.size_px
    if way.is_squashed:
        return _scaled(picture, size_px, size_px, way)
    short, long = sorted(picture.size)
    if long > WHOLE_ASPECT * short:  # scaled whole it might fill any memory
        left, top = ((side - min(side, WHOLE_ASPECT * short)) // 2 for side in picture.size)
        picture = picture.crop((left, top, picture.width - left, picture.height - top))
    short_px = round(size_px / way.crop_share)
    scale = short_px / short
    width, height = (max(short_px, round(side * scale)) for side in picture.size)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return _scaled(picture, width, height, way)[top : top + size_px, left : left + size_px]


def _scaled(picture: Image.Image, width: int, height: int, way: Preprocessing) -> np.ndarray:
    if way.antialias:
        return np.array(picture.resize((width, height), _RESAMPLING[way.filter]), np.float32)
    pixels = torch.from_numpy(np.array(picture, np.float32)).permute(2, 0, 1)[None]
    resized = interpolate(pixels, size=(height, width), mode=way.filter, align_corners=False)
    return resized[0].clamp(0, 255).round().permute(1, 2, 0).numpy()
