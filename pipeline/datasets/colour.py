"""Colour: what a picture says of its numbers, such as an ICC profile, carried out into sRGB."""

import io
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

MAX_PROFILE_BYTES = 1 << 22  # a larger one is not read; those of printing presses have 3 MB
_SAME_LEVELS = 3  # of 255: by so much at most do profiles of sRGB itself differ
# Channels of a profile and of a picture that go together.
_FITTING = {("RGB", "RGB"), ("RGB", "L"), ("GRAY", "L"), ("CMYK", "CMYK")}
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B")
# White and primaries, x and y each: those of sRGB (ITU-R BT.709).
_SRGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_RGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_RGB_GAMMA = 256 / 563
_SRGB_GAMMA = 0.45455  # PNG files of sRGB pictures say so, and mean its curve
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of all profiles
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """What turns the picture's numbers into sRGB; None where they are, or are taken to be.

    Heeded are an ICC profile and, without one, the chunks gAMA and cHRM of a PNG file that is not
    marked as sRGB, and the mark of cameras for Adobe RGB in EXIF data. A profile that is broken, of
    other channels than the picture's, or over MAX_PROFILE_BYTES is passed over.
    """
    said = image.info
    profile = said.get("icc_profile")
    if not profile and "srgb" not in said and {"gamma", "chromaticity"} & said.keys():
        profile = _implied_profile(said)
    elif not profile and _is_marked_adobe_rgb(image):
        profile = _matrix_profile(_ADOBE_RGB_XY, _ADOBE_RGB_GAMMA)
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE_BYTES:
        return None
    mode = "L" if image.mode in _GREY_MODES else image.mode
    return _transform(profile, mode if mode in ("L", "CMYK", "LAB") else "RGB")


def in_srgb(picture: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """An opaque picture of 8 bits a channel, through the transform if there is one, in RGB."""
    if transform is None:
        return picture.convert("RGB")
    return transform.apply(picture.convert(transform.input_mode))


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Relative colorimetric, with black points matched: what sRGB can show comes out exactly.

    (A perceptual table, which only profiles of printers have, moves all colours, and each vendor
    moves them differently.) None for a profile that changes next to nothing.
    """
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        channels = opened.profile.xcolor_space.strip()
        if (channels, mode) not in _FITTING:
            return None
        transform = ImageCms.ImageCmsTransform(
            opened,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            "L" if channels == "GRAY" else channels,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        sample = Image.fromarray(colours).convert(transform.input_mode)
        found, same = (np.asarray(in_srgb(sample, one), int) for one in (transform, None))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if np.abs(found - same).max() <= _SAME_LEVELS else transform


def _is_marked_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF data say so as the rule of cameras (DCF 2.0) has it: colours that are not sRGB,
    interoperability R03. Cameras embed no profile then.
    """
    with suppress(OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):
        exif = image.getexif()
        is_srgb = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == 1
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
        return not is_srgb and str(index).rstrip("\0") == "R03"
    return False


def _implied_profile(said: Mapping[Any, Any]) -> bytes | None:
    """A profile of what a PNG file says of its colours without one; None where that is impossible.

    It is that of sRGB with other primaries and, unless the samples are encoded as sRGB's, another
    curve, the same for all channels.
    """
    gamma, xy = said.get("gamma", _SRGB_GAMMA), said.get("chromaticity", _SRGB_XY)
    if not 0.1 <= gamma <= 10:
        return None
    return _matrix_profile(xy, None if abs(gamma - _SRGB_GAMMA) <= 1e-3 else gamma)


def _matrix_profile(xy: Sequence[float], gamma: float | None) -> bytes | None:
    """A profile of a white and three primaries, x and y each, and the exponent that encoded its
    samples, None being sRGB's curve. None where the primaries span no colours.
    """
    points = np.reshape(xy, (4, 2))
    if points[:, 1].min() <= 0:
        return None
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    scaled = adapted @ (columns * np.linalg.solve(columns, white))
    for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), scaled.T, strict=True):
        _put(profile, tag, 8, column)
    if gamma is not None:
        _put(profile, b"rTRC", 12, np.array([1 / gamma, 1.0, 0.0, 0.0, 0.0]))
    return bytes(profile)


def _put(profile: bytearray, tag: bytes, skipped: int, values: np.ndarray) -> None:
    """Overwrite numbers of a tag, behind so many bytes of it, as ICC writes them."""
    data = np.round(values * 65536).astype(">i4").tobytes()
    entry = profile.index(tag) + len(tag)
    at = int.from_bytes(profile[entry : entry + 4]) + skipped
    profile[at : at + len(data)] = data
