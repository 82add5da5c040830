"""The marks that emblems are drawn with, as planes of pixels.

A mark's function takes coordinates in the emblem's own frame, whose unit is the emblem's radius,
and returns a coverage: 0 where the mark is absent, 1 where it is present, in between on its soft
edge. Frequencies are in cycles per radius, angles in radians.
"""

import colorsys
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image

Plane = Float32[np.ndarray, "height width"]
Picture = Float32[np.ndarray, "channel height width"]
Colour = Float32[np.ndarray, "channel"]
OutlineKind = Literal["shield", "polygon", "star", "scallop", "lozenge"]
OUTLINE_KINDS: tuple[OutlineKind, ...] = ("shield", "polygon", "star", "scallop", "lozenge")

_TABLE_SIZE = 2048
_WAVE_HARDNESS = 1.5


def cover(depth: Plane, softness: float) -> Plane:
    """clip(depth / softness + 1/2, 0, 1): the inside (depth > 0) of a shape with a soft edge."""
    coverage: Plane = np.clip(depth * np.float32(1.0 / softness) + np.float32(0.5), 0.0, 1.0)
    return coverage


def grating(across: Plane, down: Plane, angle: float, cycles: float) -> Plane:
    """Parallel bars: a plane wave along `angle`."""
    return _harden(_plane_wave(across, down, angle, cycles))


def lattice(across: Plane, down: Plane, angle: float, cycles: float, waves: int) -> Plane:
    """Dots on a square (`waves` = 2) or hexagonal (3) lattice: peaks of a sum of plane waves."""
    total = np.zeros_like(across)
    for index in range(waves):
        total += _plane_wave(across, down, angle + index * np.pi / waves, cycles)
    return _harden(total - np.float32(0.4))


def ticks(polar_angle: Plane, count: int) -> Plane:
    """`count` radial ticks around the whole turn."""
    return _harden(np.cos(np.float32(count) * polar_angle))


def charges(radius: Plane, polar_angle: Plane, count: int, orbit: float, size: float) -> Plane:
    """Depth inside `count` equal discs of radius `size`, spread evenly on the circle `orbit`."""
    step = np.float32(2.0 * np.pi / count)
    offset = polar_angle - step * np.round(polar_angle / step)
    gap_along, gap_across = radius * np.cos(offset) - np.float32(orbit), radius * np.sin(offset)
    depth: Plane = np.float32(size) - np.sqrt(gap_along * gap_along + gap_across * gap_across)
    return depth


def disc(across: Plane, down: Plane, x: float, y: float, radius: float) -> Plane:
    """Depth inside the disc of `radius` around (`x`, `y`)."""
    gap_x, gap_y = across - np.float32(x), down - np.float32(y)
    depth: Plane = np.float32(radius) - np.sqrt(gap_x * gap_x + gap_y * gap_y)
    return depth


def outline_table(kind: OutlineKind, lobes: int) -> Float32[np.ndarray, "angle"]:
    """Distance from centre to outline, at most 1, in evenly spaced directions from -pi to pi.

    `lobes` is the number of sides, points or scallops; shield and lozenge ignore it.
    """
    direction = np.linspace(-np.pi, np.pi, _TABLE_SIZE)
    if kind == "polygon":
        sector = np.mod(direction + np.pi / 2, 2 * np.pi / lobes) - np.pi / lobes
        table = 1.0 / np.cos(sector)
    elif kind == "star":
        phase = np.mod((direction + np.pi / 2) * lobes / (2 * np.pi), 1.0)
        table = 0.75 + 0.25 * np.abs(2.0 * phase - 1.0)
    elif kind == "scallop":
        table = 0.8 + 0.2 * np.abs(np.sin(direction * lobes / 2.0))
    elif kind == "lozenge":
        power_sum = np.abs(np.cos(direction)) ** 1.4 + np.abs(np.sin(direction)) ** 1.4
        table = power_sum ** (-1.0 / 1.4)
    else:
        table = _shield_radius(direction)
    return np.asarray(table / table.max(), dtype=np.float32)


def outline_radius(table: Float32[np.ndarray, "angle"], polar_angle: Plane) -> Plane:
    """The outline's radius in every pixel's direction, looked up in `outline_table`'s answer."""
    scale = np.float32((_TABLE_SIZE - 1) / (2.0 * np.pi))
    index = ((polar_angle + np.float32(np.pi)) * scale + np.float32(0.5)).astype(np.int32)
    radius: Plane = table[index]
    return radius


def pixel_grid(side_px: int) -> tuple[Plane, Plane]:
    """Horizontal and vertical coordinates of pixel centres; the image spans -0.5 to 0.5."""
    axis = ((np.arange(side_px, dtype=np.float32) + 0.5) / side_px - 0.5).astype(np.float32)
    across, down = np.meshgrid(axis, axis)
    return across, down


def hsv_colour(hue: float, saturation: float, value: float) -> Colour:
    """Red, green and blue, 0 to 1; `hue` in turns, of which only the fraction counts."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), dtype=np.float32)


def paint(picture: Picture, coverage: Plane, colour: Colour) -> None:
    """Lay `colour` over the picture, in place, where and as far as `coverage` says."""
    picture += coverage * (colour[:, None, None] - picture)


def shrink(
    planes: Float32[np.ndarray, "*lead height width"], step: int
) -> Float32[np.ndarray, "*lead small_height small_width"]:
    """Means of blocks of `step` x `step` pixels."""
    total = np.zeros_like(planes[..., ::step, ::step])
    for row in range(step):
        for column in range(step):
            total += planes[..., row::step, column::step]
    return total * np.float32(1.0 / step**2)


def smooth_noise(generator: np.random.Generator, cells: int, side_px: int) -> Plane:
    """Uniform noise on a grid of `cells` x `cells`, enlarged by bicubic interpolation."""
    coarse = Image.fromarray(generator.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((side_px, side_px), Image.Resampling.BICUBIC))


def _plane_wave(across: Plane, down: Plane, angle: float, cycles: float) -> Plane:
    frequency = 2.0 * np.pi * cycles
    along_x, along_y = np.float32(frequency * np.cos(angle)), np.float32(frequency * np.sin(angle))
    wave: Plane = np.cos(along_x * across + along_y * down)
    return wave


def _harden(wave: Plane) -> Plane:
    """A wave around 0 as a coverage; its edges stay soft, so that it does not alias."""
    return cover(wave, 1.0 / _WAVE_HARDNESS)


def _shield_radius(direction: Float64[np.ndarray, "angle"]) -> Float64[np.ndarray, "angle"]:
    """Outline of a shield: straight top and sides, and two arcs that meet in a point below."""
    half_width, top, shoulder, foot = 0.82, 0.82, 0.05, 1.0
    along = np.linspace(0.0, 1.0, 256)
    arc_x = half_width * np.sqrt(1.0 - along**1.7)
    arc_y = shoulder + (foot - shoulder) * along
    right_x = np.concatenate([half_width * along, np.full(256, half_width), arc_x])
    right_y = np.concatenate([np.full(256, -top), -top + (shoulder + top) * along, arc_y])
    from_top = np.abs(np.mod(direction + np.pi / 2 + np.pi, 2 * np.pi) - np.pi)
    return np.asarray(
        np.interp(from_top, np.arctan2(right_x, -right_y), np.hypot(right_x, right_y))
    )
