"""Emblems: deterministic, independent of the counts, disjoint by family, and fine-grained."""

import hashlib
import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pytest
from jaxtyping import Float64
from PIL import Image

from pipeline.datasets.emblem_marks import (
    OUTLINE_KINDS,
    charges,
    cover,
    grating,
    lattice,
    outline_radius,
    outline_table,
    ticks,
)
from pipeline.datasets.emblems import (
    MAX_MEMBERS,
    draw_family,
    draw_member,
    render_emblem,
    render_emblems,
)
from pipeline.datasets.reader import ImageRecord

VALID = {
    "families": 2,
    "members": 2,
    "images_per_class": 2,
    "image_px": 48,
    "jpeg_quality": 90,
    "seed": 3,
}


def render(**changes: int) -> list[ImageRecord]:
    return list(render_emblems(**(VALID | changes)))


def encoded_by_name(records: list[ImageRecord]) -> Mapping[str, bytes]:
    return {record.name: record.encoded for record in records}


def pixels(record: ImageRecord) -> Float64[np.ndarray, "height width channel"]:
    return np.asarray(Image.open(io.BytesIO(record.encoded)), dtype=np.float64)


def generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


def plane(side: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = np.meshgrid(axis, axis)
    return across, down


def test_same_arguments_give_the_same_bytes() -> None:
    assert render() == render()


def test_another_process_gives_the_same_bytes() -> None:
    code = f"""
from hashlib import sha256
from pipeline.datasets.emblems import render_emblems
print(sha256(b"".join(record.encoded for record in render_emblems(**{VALID}))).hexdigest())
"""
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    here = hashlib.sha256(b"".join(record.encoded for record in render())).hexdigest()
    assert answer.stdout.strip() == here


def test_another_seed_gives_other_images() -> None:
    first, second = encoded_by_name(render()), encoded_by_name(render(seed=4))
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


@pytest.mark.parametrize("changes", [{"families": 5}, {"members": 4}, {"images_per_class": 5}])
def test_larger_counts_leave_existing_images_bit_equal(changes: dict[str, int]) -> None:
    few, many = encoded_by_name(render()), encoded_by_name(render(**changes))
    assert len(many) > len(few) == 8
    assert {name: many[name] for name in few} == few


def test_classes_come_in_order_with_their_names() -> None:
    records = render()
    assert [record.name for record in records] == [
        f"family{family:02d}-member{member}/{instance:04d}.jpg"
        for family in range(2)
        for member in range(2)
        for instance in range(2)
    ]
    assert all(record.name.split("/")[0] == record.class_name for record in records)


@pytest.mark.parametrize(("families", "members"), [(2, 1), (3, 1), (2, 4), (5, 3)])
def test_every_family_has_classes_in_both_splits(families: int, members: int) -> None:
    splits: dict[str, set[str]] = {}
    for record in render(families=families, members=members, images_per_class=1, image_px=16):
        splits.setdefault(record.class_name, set()).add(record.split)
    alternating = [{"test"} if number % 2 else {"train"} for number in range(members + families)]
    assert [
        splits[f"family{f:02d}-member{m}"] for f in range(families) for m in range(members)
    ] == [alternating[family + member] for family in range(families) for member in range(members)]


@pytest.mark.parametrize("image_px", [16, 33, 112])
def test_images_are_square_rgb_jpegs(image_px: int) -> None:
    for record in render(image_px=image_px, images_per_class=1):
        image = Image.open(io.BytesIO(record.encoded))
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (image_px, image_px))
        assert (record.width, record.height) == (image_px, image_px)


def test_lower_jpeg_quality_gives_fewer_bytes() -> None:
    sizes = [sum(len(r.encoded) for r in render(jpeg_quality=quality)) for quality in (40, 90)]
    assert sizes[0] < 0.6 * sizes[1]


def test_images_of_one_class_differ() -> None:
    records = render(images_per_class=6, members=1)[:6]
    images = [pixels(record) for record in records]
    gaps = [np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert len(gaps) == 15
    assert min(gaps) > 10


def test_more_members_than_there_are_medallions_are_refused_before_rendering() -> None:
    with pytest.raises(ValueError, match=r"^members = 13: must be from 1 to 12"):
        render_emblems(**(VALID | {"members": MAX_MEMBERS + 1}))


def hue_histogram(family: int, member: int) -> Float64[np.ndarray, "hue"]:
    """Share of each of 24 hues among the saturated pixels in the middle of a class's images."""
    images = [render_emblem(family, member, i, image_px=48, seed=3) for i in range(8)]
    middle = np.stack([np.asarray(image.convert("HSV"))[12:36, 12:36] for image in images])
    hue, saturation, _ = middle.reshape(-1, 3).astype(int).T
    counts = np.bincount(hue[saturation > 80] * 24 // 256, minlength=24)
    return counts / counts.sum()


def test_siblings_share_the_palette() -> None:
    """Hue histograms of siblings overlap far more than those of different families."""
    histograms = np.array([[hue_histogram(f, m) for m in range(4)] for f in range(6)])
    overlap = np.minimum(histograms[:, :, None, None], histograms[None, None]).sum(-1)
    same_family = np.eye(6, dtype=bool)[:, None, :, None]
    itself = same_family & np.eye(4, dtype=bool)[None, :, None, :]
    siblings = overlap[np.broadcast_to(same_family & ~itself, overlap.shape)]
    strangers = overlap[np.broadcast_to(~same_family, overlap.shape)]
    assert (len(siblings), len(strangers)) == (6 * 12, 30 * 16)
    assert siblings.mean() > 2 * strangers.mean()


def fine_spectrum(member: int, first: int) -> Float64[np.ndarray, "frequency"]:
    """Where a class's medallion has its fine-scale power: blind to shifts, not to angles."""
    images = [render_emblem(0, member, first + i, image_px=112, seed=3) for i in range(16)]
    grey = np.stack([np.asarray(image.convert("L"))[40:72, 40:72] for image in images])
    levels = grey.astype(np.float64) - grey.mean((1, 2), keepdims=True)
    levels /= np.sqrt((levels**2).mean((1, 2), keepdims=True))
    window = np.hanning(32)[:, None] * np.hanning(32)
    power = (np.abs(np.fft.fft2(levels * window)) ** 2).mean(0)
    fine = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32))) > 3 / 32
    return power[fine] / power[fine].sum()


def test_siblings_differ_in_high_frequencies() -> None:
    """Fine-scale power: two halves of one class share most of it, two siblings do not."""
    halves = np.array([[fine_spectrum(member, first) for first in (0, 16)] for member in range(4)])
    gap = np.abs(halves[:, None, 0] - halves[None, :, 1]).sum(-1) / 2
    same, siblings = np.diag(gap), gap[~np.eye(4, dtype=bool)]
    assert (len(same), len(siblings)) == (4, 12)
    assert siblings.min() > 1.5 * same.max()


def test_siblings_have_distinct_medallions_and_families_the_same_vocabulary() -> None:
    seen = []
    for key in range(3):
        family = draw_family(generator(key), hue=0.1)
        members = [draw_member(generator(key, m), family, m) for m in range(MAX_MEMBERS)]
        medallions = {(m.medallion_angle, m.medallion_cycles) for m in members}
        assert len(medallions) == MAX_MEMBERS
        assert {m.charge_count for m in members} <= set(family.charge_counts)
        seen.append(medallions)
    assert seen[0] == seen[1] == seen[2]


def test_a_family_draws_the_same_twice() -> None:
    first, second = (asdict(draw_family(generator(5), hue=0.1)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_cover_by_hand() -> None:
    depth = np.array([[-2.0, -0.5, 0.0, 0.25, 3.0]], dtype=np.float32)
    np.testing.assert_allclose(cover(depth, 1.0), [[0.0, 0.0, 0.5, 0.75, 1.0]])


def test_grating_peaks_once_a_cycle_along_its_angle() -> None:
    across, down = plane(401)
    bars = grating(across, down, 0.0, 4.0)
    assert np.ptp(bars, axis=0).max() < 1e-5
    rising = np.count_nonzero(np.diff((bars[0] > 0.5).astype(int)) == 1)
    assert rising == 8  # four cycles a radius over a diameter
    np.testing.assert_allclose(grating(across, down, np.pi / 2, 4.0), bars.T, atol=2e-4)


@pytest.mark.parametrize(("waves", "turn"), [(2, np.pi / 2), (3, np.pi / 3)])
def test_lattice_repeats_after_its_own_turn(waves: int, turn: float) -> None:
    across, down = plane(101)
    once = lattice(across, down, 0.2, 3.0, waves)
    np.testing.assert_allclose(lattice(across, down, 0.2 + turn, 3.0, waves), once, atol=2e-4)
    assert 0.05 < once.mean() < 0.6


def test_ticks_and_charges_are_as_many_as_asked() -> None:
    angle = np.linspace(-np.pi, np.pi, 5000, endpoint=False, dtype=np.float32)[None]
    for count in (3, 7, 24):
        inside = ticks(angle, count)[0] > 0.5
        assert np.count_nonzero(inside & ~np.roll(inside, 1)) == count
    for count in (3, 5, 8):
        inside = charges(np.full_like(angle, 0.6), angle, count, 0.6, 0.1)[0] > 0
        assert np.count_nonzero(inside & ~np.roll(inside, 1)) == count


def test_outlines_are_closed_within_the_unit_disc_and_distinct() -> None:
    tables = [outline_table(kind, 6) for kind in OUTLINE_KINDS]
    assert len(tables) == 5
    for index, table in enumerate(tables):
        assert table.max() == pytest.approx(1.0)
        assert table.min() > 0.6
        assert table[0] == pytest.approx(table[-1], abs=1e-5)
        assert all(np.abs(table - other).max() > 0.05 for other in tables[:index])


def test_outline_radius_of_a_lozenge_by_hand() -> None:
    """On the diagonal, 2 |r cos 45|^1.4 = 1."""
    table = outline_table("lozenge", 0)
    angles = np.array([[0.0, np.pi / 2, np.pi / 4]], dtype=np.float32)
    diagonal = np.sqrt(2.0) * 0.5 ** (1 / 1.4)
    np.testing.assert_allclose(outline_radius(table, angles), [[1.0, 1.0, diagonal]], atol=2e-3)
