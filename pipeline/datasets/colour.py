"""Colour: what a picture says of its numbers, such as an ICC profile, carried out into sRGB."""

import io
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 1 << 22  # a larger one is not read; those of printing presses have 3 MB
_SAME_LEVELS = 3  # of 255: by so much at most do profiles of sRGB itself differ
# Channels of a profile and of a picture that go together.
_FITTING = {("RGB", "RGB"), ("RGB", "L"), ("GRAY", "L"), ("CMYK", "CMYK")}
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B")
# White and primaries, x and y each: sRGB's are those of ITU-R BT.709.
_SRGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_RGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_SRGB_GAMMA = 0.45455  # PNG files of sRGB pictures say so, and mean its curve
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of all profiles
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_srgb_transform(
    image: Image.Image, interoperability: object = None
) -> ImageCms.ImageCmsTransform | None:
    """What turns the picture's numbers into sRGB; None where they are, or are taken to be.

    Heeded are an ICC profile; without one, of a PNG file that is not marked as sRGB the chunks
    gAMA and cHRM, and of a camera's file R03 (Adobe RGB) as `interoperability`, which is EXIF's
    InteroperabilityIndex. A profile that is broken, of other channels than the picture's, or over
    MAX_PROFILE_BYTES is passed over.
    """
    profile = image.info.get("icc_profile") or _implied_profile(image, interoperability)
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


def _implied_profile(image: Image.Image, interoperability: object) -> bytes | None:
    """A profile of what a file says of its colours without one."""
    said = image.info
    if image.format == "PNG" and "srgb" not in said and said.keys() & {"gamma", "chromaticity"}:
        gamma, xy = said.get("gamma", _SRGB_GAMMA), said.get("chromaticity", _SRGB_XY)
        is_possible = 0.1 <= gamma <= 10 and min(xy[1::2]) > 0
        return _matrix_profile(gamma, xy) if is_possible else None
    return _matrix_profile(256 / 563, _ADOBE_RGB_XY) if interoperability == "R03" else None


def _matrix_profile(gamma: float, xy: Sequence[float]) -> bytes | None:
    """An ICC profile (version 4) of a white, three primaries, and one curve for all channels.

    gamma: the exponent that encoded the samples. None where the primaries span no colours.
    """
    points = np.reshape(xy, (4, 2))
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    columns = adapted @ (columns * np.linalg.solve(columns, white))
    is_srgb = abs(gamma - _SRGB_GAMMA) < 1e-3
    curve = _SRGB_CURVE if is_srgb else (1 / gamma, 1.0, 0.0, 0.0, 0.0)
    tags = {
        name: b"XYZ \0\0\0\0" + _fixed(value)
        for name, value in zip(
            (b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), (*columns.T, _D50), strict=True
        )
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"para\0\0\0\0\0\3\0\0" + _fixed(curve))
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(value))
        data += value
    kinds = (0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = struct.pack(">I4xI4s4s4s12x4s28x", 128 + len(table + data), *kinds)
    return header + _fixed(_D50) + bytes(48) + table + data


def _fixed(values: Sequence[float] | np.ndarray) -> bytes:
    """Numbers as ICC writes them: 16 bits before the point and 16 after it."""
    return np.round(np.asarray(values) * 65536).astype(">i4").tobytes()
