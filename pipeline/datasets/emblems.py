"""Emblems: a procedural, fine-grained image data set that is rendered from a seed.

Classes come in families. The members of a family share outline and palette. They differ in layout,
number and size of large marks, gratings, dot lattices and ticks, at two to a dozen cycles per
emblem radius, so that a smaller image keeps fewer of the differences. Instances of a class differ
in pose, light, background, occlusion, blur and noise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFilter

from pipeline.datasets import emblem_marks as marks
from pipeline.datasets.decode import encode_jpeg
from pipeline.datasets.emblem_marks import Colour, Picture, Plane, cover, hsv_colour
from pipeline.datasets.reader import ImageRecord

MAX_MEMBERS = 12
_SUPERSAMPLING = 2
_ANGLES = tuple(np.pi * k / 4 for k in range(4))
_FIELD_CYCLES = (2.0, 3.2, 5.0)
_LATTICE_CYCLES = (3.0, 4.8, 7.6)
_MEDALLION_CYCLES = (4.5, 7.2, 11.5)
_TICK_COUNTS = (16, 26, 42)
_MAX_BLUR = 0.0055  # of the side: about 0.6 pixels of an image of 112


@dataclass(frozen=True)
class Family:
    """What the members of a family share: outline, layout and palette."""

    outline: marks.OutlineKind
    lobes: int
    charge_counts: tuple[int, ...]
    ground: Colour
    ink: Colour
    border: Colour
    accent: Colour
    medallion_order: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """What tells a member from its siblings, coarse to fine."""

    division: int
    medallion_is_bright: bool
    charge_count: int
    charge_size: float
    field_angle: float
    field_cycles: float
    lattice_angle: float
    lattice_cycles: float
    lattice_waves: int
    tick_count: int
    medallion_angle: float
    medallion_cycles: float


def render_emblems(
    *,
    families: int,
    members: int,
    images_per_class: int,
    image_px: int,
    jpeg_quality: int,
    seed: int,
) -> Iterator[ImageRecord]:
    """Render the data set, class after class.

    An image depends on `seed`, `image_px`, `jpeg_quality` and its own family, member and instance
    only: asking for more families, members or images leaves the others bit-equal.

    families: number of families, 2 or more.
    members: classes a family, 1 to 12; every second one trains, the others test, and the next
        family begins with the other split: test classes share their families with training ones.
    images_per_class: images a class, 1 or more.
    image_px: side of the square images, 16 or more.
    jpeg_quality: Pillow's JPEG quality, 1 to 100.
    seed: 0 or more.

    Raises ValueError for more members, before the first image is rendered.
    """
    if members > MAX_MEMBERS:
        raise ValueError(f"members = {members}: must be from 1 to {MAX_MEMBERS}")
    return (
        ImageRecord(
            name=f"family{family:02d}-member{member}/{instance:04d}.jpg",
            class_name=f"family{family:02d}-member{member}",
            split="test" if (family + member) % 2 else "train",
            encoded=encode_jpeg(
                render_emblem(family, member, instance, image_px=image_px, seed=seed), jpeg_quality
            ),
            width=image_px,
            height=image_px,
        )
        for family in range(families)
        for member in range(members)
        for instance in range(images_per_class)
    )


def render_emblem(
    family: int, member: int, instance: int, *, image_px: int, seed: int
) -> Image.Image:
    """One image before JPEG: background, emblem, occlusion, light, blur, noise, in this order."""
    shared = draw_family(_generator(seed, family), hue=_family_hue(seed, family))
    own = draw_member(_generator(seed, family, member), shared, member)
    generator = _generator(seed, family, member, instance)
    picture = _paint_background(generator, image_px)
    emblem, coverage = _paint_emblem(generator, shared, own, image_px)
    picture += coverage * (emblem - picture)
    _occlude(generator, picture)
    return _expose(generator, picture)


def draw_family(generator: np.random.Generator, hue: float) -> Family:
    """Draw what the members of one family share; `hue`, from 0 to 1, is that of its ground."""
    uniform = generator.uniform
    apart = uniform(0.3, 0.7)
    counts = generator.permutation(np.arange(3, 9))[:3]
    return Family(
        outline=marks.OUTLINE_KINDS[generator.integers(len(marks.OUTLINE_KINDS))],
        lobes=int(generator.integers(5, 10)),
        charge_counts=tuple(counts.tolist()),
        ground=hsv_colour(hue, uniform(0.25, 0.5), uniform(0.85, 0.95)),
        ink=hsv_colour(hue + 0.05, uniform(0.6, 0.9), uniform(0.3, 0.45)),
        border=hsv_colour(hue + apart, uniform(0.5, 0.9), uniform(0.25, 0.4)),
        accent=hsv_colour(hue + apart, uniform(0.4, 0.8), uniform(0.85, 1.0)),
        medallion_order=tuple(generator.permutation(MAX_MEMBERS).tolist()),
    )


def draw_member(generator: np.random.Generator, family: Family, member: int) -> Member:
    """Draw what tells one member from its siblings; no two siblings have the same medallion."""
    angle_index, cycles_index = divmod(family.medallion_order[member], len(_MEDALLION_CYCLES))
    return Member(
        division=int(generator.integers(3)),
        medallion_is_bright=bool(generator.integers(2)),
        charge_count=family.charge_counts[generator.integers(3)],
        charge_size=(0.12, 0.17)[generator.integers(2)],
        field_angle=_ANGLES[generator.integers(len(_ANGLES))],
        field_cycles=_FIELD_CYCLES[generator.integers(len(_FIELD_CYCLES))],
        lattice_angle=_ANGLES[generator.integers(2)],
        lattice_cycles=_LATTICE_CYCLES[generator.integers(len(_LATTICE_CYCLES))],
        lattice_waves=int(generator.integers(2, 4)),
        tick_count=_TICK_COUNTS[generator.integers(len(_TICK_COUNTS))],
        medallion_angle=_ANGLES[angle_index],
        medallion_cycles=_MEDALLION_CYCLES[cycles_index],
    )


def _family_hue(seed: int, family: int) -> float:
    """Steps of the golden ratio from the seed's hue: however many the families, they lie apart."""
    start = float(_generator(seed).uniform())
    return (start + family * (math.sqrt(5.0) - 1.0) / 2.0) % 1.0


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _muted_colour(generator: np.random.Generator) -> Colour:
    uniform = generator.uniform
    return hsv_colour(uniform(), uniform(0.0, 0.4), uniform(0.15, 0.9))


def _emblem_coordinates(generator: np.random.Generator, side_px: int) -> tuple[Plane, Plane]:
    """Pixel coordinates in the frame of an emblem that is shifted, turned, scaled and tilted."""
    across, down = marks.pixel_grid(side_px)
    shift_x, shift_y = generator.uniform(-0.05, 0.05, 2)
    turn = np.deg2rad(generator.uniform(-18.0, 18.0))
    radius = generator.uniform(0.3, 0.42)
    stretch, shear = generator.uniform(-0.08, 0.08, 2)
    tilt_x, tilt_y = generator.uniform(-0.12, 0.12, 2).astype(np.float32)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    affine = np.array([[1.0 + stretch, shear], [0.0, 1.0 - stretch]]) @ rotation / radius
    matrix = affine.astype(np.float32)
    across, down = across - np.float32(shift_x), down - np.float32(shift_y)
    flat_x = matrix[0, 0] * across + matrix[0, 1] * down
    flat_y = matrix[1, 0] * across + matrix[1, 1] * down
    depth = 1.0 + tilt_x * flat_x + tilt_y * flat_y
    return flat_x / depth, flat_y / depth


def _paint_emblem(
    generator: np.random.Generator, family: Family, member: Member, image_px: int
) -> tuple[Picture, Plane]:
    """The emblem's colours and coverage: drawn larger, then averaged, so that nothing aliases."""
    side_px = image_px * _SUPERSAMPLING
    soft = 5.0 / side_px
    across, down = _emblem_coordinates(generator, side_px)
    radius = np.sqrt(across * across + down * down)
    polar_angle = np.arctan2(down, across)
    outline = marks.outline_radius(marks.outline_table(family.outline, family.lobes), polar_angle)
    upright = polar_angle + np.float32(np.pi / 2)
    disc = marks.charges(radius, upright, member.charge_count, 0.6, member.charge_size)
    rim, medallion = cover(radius - 0.84 * outline, soft), cover(0.38 - radius, soft)

    inked = _divided_field(member, across, down, soft)
    hatch = marks.grating(across, down, member.medallion_angle, member.medallion_cycles)
    inked += medallion * (hatch - inked)
    accented = cover(disc, soft)
    accented += rim * (marks.ticks(polar_angle, member.tick_count) - accented)
    trimmed = np.maximum(np.maximum(rim, cover(disc + 0.03, soft)), cover(0.42 - radius, soft))
    trimmed *= 1.0 - medallion
    if member.medallion_is_bright:
        trimmed += medallion * (1.0 - hatch)
        accented = np.maximum(accented, medallion)

    inks = np.stack([(1.0 - trimmed) * inked, trimmed * (1.0 - accented), trimmed * accented])
    shares = marks.shrink(inks, _SUPERSAMPLING)
    steps = np.stack([family.ink, family.border, family.accent], axis=1) - family.ground[:, None]
    picture = family.ground[:, None, None] + np.einsum("cs,shw->chw", steps, shares)
    return picture, marks.shrink(cover(outline - radius, soft), _SUPERSAMPLING)


def _divided_field(member: Member, across: Plane, down: Plane, soft: float) -> Plane:
    """Ink on the field: bars on one part (left, top or two quarters), dots on the other."""
    depth = (across, down, across * down * 4.0)[member.division]
    bars = marks.grating(across, down, member.field_angle, member.field_cycles)
    angle, cycles = member.lattice_angle, member.lattice_cycles
    dots = marks.lattice(across, down, angle, cycles, member.lattice_waves)
    dots += cover(depth, soft) * (bars - dots)
    return dots


def _paint_background(generator: np.random.Generator, side_px: int) -> Picture:
    """Cloudy noise at three scales in two muted colours, with a few barred discs on it."""
    texture = np.zeros((side_px, side_px), dtype=np.float32)
    for cells, weight in ((3, 1.0), (9, 0.6), (28, 0.4)):
        texture += np.float32(weight) * marks.smooth_noise(generator, cells, side_px)
    low, high = _muted_colour(generator), _muted_colour(generator)
    picture: Picture = np.tile(low[:, None, None], (1, side_px, side_px))
    marks.paint(picture, cover(texture - 1.0, 1.0), high)
    across, down = marks.pixel_grid(side_px)
    for _ in range(generator.integers(2, 6)):
        centre_x, centre_y = generator.uniform(-0.5, 0.5, 2)
        depth = marks.disc(across, down, centre_x, centre_y, generator.uniform(0.06, 0.2))
        inside = cover(depth, 1.0 / side_px)
        bars = marks.grating(across, down, generator.uniform(0, np.pi), generator.uniform(8, 30))
        marks.paint(picture, inside, _muted_colour(generator))
        marks.paint(picture, inside * bars, _muted_colour(generator))
    return picture


def _occlude(generator: np.random.Generator, picture: Picture) -> None:
    """In half of the images, lay a plain band or disc over a part of the picture, in place."""
    is_present, is_band = generator.random(2) < 0.5
    angle, offset = generator.uniform(0, 2 * np.pi), generator.uniform(0.1, 0.4)
    half_width, colour = generator.uniform(0.03, 0.07), _muted_colour(generator)
    if not is_present:
        return
    side_px = picture.shape[-1]
    across, down = marks.pixel_grid(side_px)
    sine, cosine = np.sin(angle), np.cos(angle)
    if is_band:
        along = np.float32(cosine) * across + np.float32(sine) * down
        depth = np.float32(half_width) - np.abs(along - np.float32(offset))
    else:
        depth = marks.disc(across, down, cosine * offset, sine * offset, 2.0 * half_width)
    marks.paint(picture, cover(depth, 1.5 / side_px), colour)


def _expose(generator: np.random.Generator, picture: Picture) -> Image.Image:
    """Photograph the picture: uneven tinted light, then a slight blur, then sensor noise."""
    side_px = picture.shape[-1]
    across, down = marks.pixel_grid(side_px)
    slope_x, slope_y = generator.uniform(-0.35, 0.35, 2).astype(np.float32)
    gain = (generator.uniform(0.7, 1.15) * generator.uniform(0.9, 1.1, 3)).astype(np.float32)
    lit = picture * ((1.0 + slope_x * across + slope_y * down) * gain[:, None, None])
    blur_px = generator.uniform(0.0, _MAX_BLUR) * side_px
    blurred = _to_image(lit.transpose(1, 2, 0) * 255.0).filter(ImageFilter.GaussianBlur(blur_px))
    noise = generator.standard_normal((side_px, side_px, 3), dtype=np.float32)
    noise_level = np.float32(generator.uniform(2.0, 7.0))
    return _to_image(np.asarray(blurred, dtype=np.float32) + noise_level * noise)


def _to_image(levels: Float32[np.ndarray, "height width 3"]) -> Image.Image:
    return Image.fromarray(np.clip(levels + 0.5, 0.0, 255.0).astype(np.uint8))
