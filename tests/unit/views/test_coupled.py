"""Coupled views: one content, one change of colour and one partner at both sizes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pipeline.datasets.packs import Pack
from pipeline.views import coupled
from pipeline.views.coupled import ViewRecipe, cached_decoder, coupled_views
from pipeline.views.evaluation import (
    adjust_colours,
    colour_maps,
    crop_boxes,
    crop_view,
    draw_view_parameters,
    image_tensor,
)
from pipeline.views.resampling import stack_images
from tests.made_training import AUGMENTED, CPU, PLAIN, made_pack, picture

CROPS = replace(PLAIN, views=4, crop_scale=(0.1, 1.0), flip_probability=0.5)
LARGE, SMALL = 64, 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_image(row: int) -> Tensor:
    return torch.from_numpy(picture(row, 90, 120)).permute(2, 0, 1)


def position_image(row: int) -> Tensor:
    """Red is the place from left to right, green from top to bottom, blue the image's number."""
    image = torch.empty(3, 256, 256, dtype=torch.uint8)
    image[0] = torch.arange(256)
    image[1] = torch.arange(256)[:, None]
    image[2] = row
    return image


def views_of(
    recipe: ViewRecipe,
    *,
    decode=smooth_image,
    rows: tuple[int, ...] = (3, 5, 8),
    candidates: int = 12,
    sizes: tuple[int, ...] = (LARGE, SMALL),
    seed: int = 0,
    part: slice = slice(None),
) -> tuple[Tensor, ...]:
    return coupled_views(
        decode, np.array(rows), np.arange(candidates), sizes, recipe, generator(seed), CPU, part
    )


def box_of(view: Tensor) -> Tensor:
    """Left, right, top and bottom edge of what a view of `position_image` shows, in pixels.

    The inner pixels lie on straight lines; the outermost are bent by the edge of the box.
    """
    size = view.shape[-1]
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    inner = slice(size // 8, size - size // 8)
    edges = []
    for channel, axis in ((0, 0), (1, 1)):
        profile = (255 * view[channel].double()).mean(axis)
        slope = (profile[inner][-1] - profile[inner][0]) / (centres[inner][-1] - centres[inner][0])
        start = profile[inner].mean() - slope * centres[inner].mean()
        edges += [start, start + slope]
    return torch.stack(edges)


def test_shapes_range_and_order() -> None:
    large, small = views_of(AUGMENTED)
    assert large.shape == (6, 3, LARGE, LARGE)
    assert small.shape == (6, 3, SMALL, SMALL)
    assert large.dtype == small.dtype == torch.float32
    assert min(large.min(), small.min()) >= 0
    assert max(large.max(), small.max()) <= 1
    _, blue = views_of(CROPS, decode=position_image)
    assert (255 * blue[:, 2]).mean((1, 2)).round().tolist() == [3] * 4 + [5] * 4 + [8] * 4


def test_both_sizes_show_the_same_box_and_mirroring() -> None:
    large, small = views_of(CROPS, decode=position_image, rows=tuple(range(10)))
    mirrored = 0
    for ours, theirs in zip(large, small, strict=True):
        first, second = box_of(ours), box_of(theirs)
        assert (first - second).abs().max() < 1.5  # of 256 pixels; values are rounded to whole ones
        mirrored += int(first[1] < first[0])
    assert len(large) == 40
    assert 10 < mirrored < 30
    # The boxes are as different as the draws: the read-back tells views apart.
    boxes = torch.stack([box_of(view) for view in large])
    assert boxes.std(0).min() > 20


def test_the_box_read_back_is_the_one_drawn() -> None:
    large = views_of(CROPS, decode=position_image, rows=(1, 2))[0]
    options = {"crop_scale": (0.1, 1.0), "flip_probability": 0.5, "colour_ranges": (0, 0, 0, 0)}
    drawn = draw_view_parameters(8, generator(), **options)
    width = (box_of_all(large)[:, 1] - box_of_all(large)[:, 0]).abs()
    expected = (drawn.area * drawn.aspect).sqrt().mul(256).clamp(max=256)
    torch.testing.assert_close(width, expected, rtol=0, atol=2.5)
    assert ((box_of_all(large)[:, 1] < box_of_all(large)[:, 0]) == drawn.flip).all()


def box_of_all(views: Tensor) -> Tensor:
    return torch.stack([box_of(view) for view in views])


@pytest.mark.parametrize("partner", ["dataset", "batch"])
def test_the_large_view_shrunk_is_the_small_one(partner: str) -> None:
    """Crop, flip, colour, partner and weight alike: nothing but the resampling differs."""
    recipe = replace(AUGMENTED, views=8, mixup_partner=partner, mixup_alpha=1.0)
    large, small = views_of(recipe)
    shrunk = avg_pool2d(large, LARGE // SMALL)
    difference = (shrunk - small).abs().flatten(1)
    assert difference.mean(1).max() < 0.02
    # Views of other parameters lie far apart: the bound above is not met by chance.
    others = (shrunk.roll(1, 0) - small).abs().flatten(1)
    assert others.mean(1).min() > 0.04


def test_colours_change_by_the_mean_of_the_large_view_at_both_sizes() -> None:
    recipe = replace(CROPS, colour_ranges=(0.4, 0.4, 0.4, 0.1))
    large, small = views_of(recipe, rows=(4,))
    options = {
        "crop_scale": (0.1, 1.0),
        "flip_probability": 0.5,
        "colour_ranges": (0.4, 0.4, 0.4, 0.1),
    }
    drawn = draw_view_parameters(4, generator(), **options)
    image = smooth_image(4)
    boxes = zip(crop_boxes(drawn, *image.shape[1:]), drawn.flip.tolist(), strict=True)
    pairs = [
        [crop_view(image, box, flip=flip, size_px=px) for px in (LARGE, SMALL)]
        for box, flip in boxes
    ]
    crops = [torch.stack(of_size) for of_size in zip(*pairs, strict=True)]
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    mean = torch.einsum("vchw,c->v", crops[0].double(), weights) / LARGE**2 / 255
    for ours, crop in zip((large, small), crops, strict=True):
        expected = adjust_colours(crop, colour_maps(drawn.colour), mean.float())
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_independent_pairs_draw_crop_flip_and_colour_apart() -> None:
    """The large views are those of coupled pairs; the small ones are others."""
    recipe = replace(CROPS, view_pairs="independent")
    pairs = views_of(recipe, decode=position_image, rows=tuple(range(10)))
    coupled_pairs = views_of(CROPS, decode=position_image, rows=tuple(range(10)))
    assert torch.equal(pairs[0], coupled_pairs[0])
    boxes = [torch.stack([box_of(view) for view in views]) for views in pairs]
    apart = (boxes[0] - boxes[1]).abs().amax(1)
    assert (apart > 5).all()  # of 256 pixels; boxes of coupled pairs lie within 1.5
    flipped = [box[:, 1] < box[:, 0] for box in boxes]
    assert 8 < (flipped[0] != flipped[1]).sum() < 32
    still = replace(PLAIN, views=4, colour_ranges=(0.4, 0.4, 0.4, 0.1))
    same, other = (
        views_of(replace(still, view_pairs=kind), decode=flat_image)
        for kind in ("coupled", "independent")
    )
    torch.testing.assert_close(same[0].mean((2, 3)), same[1].mean((2, 3)))
    assert torch.equal(other[0], same[0])
    assert ((other[0].mean((2, 3)) - other[1].mean((2, 3))).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("partner", ["dataset", "batch"])
def test_independent_pairs_share_partner_and_mixing_weight(partner: str) -> None:
    recipe = replace(CROPS, mixup_alpha=4.0, mixup_partner=partner, view_pairs="independent")
    large, small = views_of(recipe, decode=flat_image, rows=(0, 5, 11))
    torch.testing.assert_close(large[:, 0, 0, 0], small[:, 0, 0, 0])
    own = torch.tensor([0.0, 5, 11]).repeat_interleave(4) * 20 / 255
    assert ((large[:, 0, 0, 0] - own).abs() > 1e-7).all()


def flat_image(row: int) -> Tensor:
    return torch.full((3, 32, 32), 20 * row, dtype=torch.uint8)


def mixed_levels(partner: str, rows: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    recipe = replace(CROPS, mixup_alpha=4.0, mixup_partner=partner)
    large, small = views_of(recipe, decode=flat_image, rows=rows, candidates=12, seed=seed)
    assert torch.equal(large.amax((1, 2, 3)), large.amin((1, 2, 3)))
    torch.testing.assert_close(large[:, 0, 0, 0], small[:, 0, 0, 0])
    own = torch.tensor(rows).repeat_interleave(4)
    return 255 * large[:, 0, 0, 0].double() / 20, own.double()


@pytest.mark.parametrize("partner", ["dataset", "batch"])
def test_an_image_is_never_mixed_with_itself(partner: str) -> None:
    """Flat images: a mixture shows its own level only where the weight is 1: never, as drawn."""
    cases = 0
    for seed in range(40):
        levels, own = mixed_levels(partner, (0, 5, 11), seed)
        assert ((levels - own).abs() > 1e-7).all()
        cases += len(levels)
    assert cases == 480


@pytest.mark.parametrize("partner", ["dataset", "batch"])
def test_a_share_of_under_half_a_grey_level_is_none(
    partner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights next to 0 and 1 give the views themselves, and need no picture that is not seen."""
    asked: list[int] = []

    def decode(row: int) -> Tensor:
        asked.append(row)
        return flat_image(row)

    def given(weight: float) -> Tensor:
        weights = torch.full((4,), weight, dtype=torch.float64)
        monkeypatch.setattr(coupled.evaluation, "draw_mix_weights", lambda *_: weights)
        recipe = replace(CROPS, views=2, mixup_alpha=0.2, mixup_partner=partner)
        return views_of(recipe, decode=decode, rows=(3, 7))[0][:, 0, 0, 0] * 255 / 20

    own = torch.tensor([3.0, 3, 7, 7])
    torch.testing.assert_close(given(1 - 1 / 513), own, rtol=0, atol=1e-5)
    assert partner == "batch" or set(asked) == {3, 7}
    nearly = given(1 - 1 / 511)
    assert ((nearly - own).abs() > 1e-3).all()
    partners, mixed = given(1 / 513), given(1 / 511)
    torch.testing.assert_close(partners, partners.round(), rtol=0, atol=1e-5)
    assert ((partners - own).abs() > 0.5).all()
    assert ((mixed - partners).abs() > 1e-3).all()


def test_dataset_partners_are_all_the_other_images() -> None:
    """With weights next to 0 the partner itself is seen: each of 11 others, about as often."""
    seen = []
    for seed in range(60):
        recipe = replace(CROPS, views=4, mixup_alpha=0.01)
        levels = views_of(recipe, decode=flat_image, rows=(3, 7), seed=seed)[0][:, 0, 0, 0]
        places = (255 * levels / 20).double()
        for own, place in zip([3] * 4 + [7] * 4, places.tolist(), strict=True):
            if abs(place - round(place)) < 1e-3 and round(place) != own:
                seen.append((own, round(place)))
    assert len(seen) > 150
    for own in (3, 7):
        partners = [partner for mine, partner in seen if mine == own]
        assert set(partners) == set(range(12)) - {own}
        assert np.bincount(partners).max() < 3 * len(partners) / 11


def test_batch_partners_come_from_the_batch() -> None:
    levels, own = mixed_levels("batch", (2, 6, 10), 4)
    assert levels.min() > 2 - 1e-6
    assert levels.max() < 10 + 1e-6
    assert ((levels - own).abs() > 1e-7).all()


def test_one_image_alone_stays_itself() -> None:
    for partner in ("dataset", "batch"):
        recipe = replace(CROPS, mixup_alpha=1.0, mixup_partner=partner)
        options = {"decode": flat_image, "rows": (0,), "candidates": 1}
        mixed = views_of(recipe, **options)
        plain = views_of(replace(recipe, mixup_alpha=0.0), **options)
        torch.testing.assert_close(mixed[0], plain[0])


def test_without_mixup_the_partner_does_not_matter() -> None:
    first = views_of(replace(AUGMENTED, mixup_alpha=0.0, mixup_partner="dataset"))
    second = views_of(replace(AUGMENTED, mixup_alpha=0.0, mixup_partner="batch"))
    other = views_of(AUGMENTED)
    for ours, theirs, mixed in zip(first, second, other, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, mixed)


def test_the_same_seed_gives_the_same_views() -> None:
    torch.manual_seed(1)
    first = views_of(AUGMENTED)
    torch.manual_seed(2)
    again, other = views_of(AUGMENTED), views_of(AUGMENTED, seed=1)
    for ours, same, different in zip(first, again, other, strict=True):
        assert torch.equal(ours, same)
        assert not torch.equal(ours, different)


def test_views_at_one_size_are_those_of_the_pair() -> None:
    """The labelled recipe asks for one size: its views are the large ones of a pair."""
    pair = views_of(AUGMENTED)
    alone = views_of(AUGMENTED, sizes=(LARGE,))
    assert len(alone) == 1
    assert torch.equal(alone[0], pair[0])


def test_the_cache_keeps_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = made_pack(tmp_path, 2, 3, px=8)
    asked = []
    plain = Pack.image

    def counted(self: Pack, row: int) -> Image.Image:
        asked.append(row)
        return plain(self, row)

    monkeypatch.setattr(Pack, "image", counted)
    decode = cached_decoder(pack, limit_bytes=2 * 3 * 8 * 8)
    for row in (0, 1, 2, 0, 1, 2):
        assert torch.equal(decode(row), image_tensor(plain(pack, row)))
    assert asked == [0, 1, 2, 2]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("partner", ["dataset", "batch"])
@pytest.mark.parametrize("pairs", ["coupled", "independent"])
def test_a_part_of_the_views_is_made_as_among_all(partner: str, alpha: float, pairs: str) -> None:
    options = {"mixup_partner": partner, "mixup_alpha": alpha, "view_pairs": pairs}
    recipe = replace(AUGMENTED, views=3, **options)
    whole = views_of(recipe, rows=(3, 5, 8, 9, 11))
    for part in (slice(0, 2), slice(2, 5), slice(4, 5), slice(5, 5)):
        some = views_of(recipe, rows=(3, 5, 8, 9, 11), part=part)
        for ours, theirs in zip(some, whole, strict=True):
            assert torch.equal(ours, theirs.unflatten(0, (5, 3))[part].flatten(0, 1))


@pytest.mark.parametrize("partner", ["dataset", "batch"])
def test_views_made_together_are_those_made_one_by_one(
    partner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU: to one grey level, which brightness and hue may enlarge."""
    mixed = replace(AUGMENTED, views=4, mixup_partner=partner)
    single = views_of(mixed)
    monkeypatch.setattr(coupled, "_made_together", lambda _: True)
    for one, other in zip(single, views_of(mixed), strict=True):
        difference = (one - other).abs()
        assert difference.max() < 3 / 255
        assert 0 < difference.mean() < 0.2 / 255


def test_an_image_is_moved_once_for_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupled, "_made_together", lambda _: True)
    moved = []

    def counted(images: list[Tensor], device: torch.device) -> object:
        stacks = list(stack_images(images, device))
        moved.extend((part, len(stack.images)) for part, stack in stacks)
        return stacks

    monkeypatch.setattr(coupled, "stack_images", counted)
    views_of(CROPS, rows=(3, 5, 8))
    assert moved == [(slice(0, 12), 3)]


def test_threads_share_a_cached_decoder_within_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads decode the same image at once; it is kept and counted once."""
    pack = made_pack(tmp_path, 2, 3, px=8)
    plain, together, decoded = Pack.image, threading.Barrier(8), list[int]()

    def at_once(self: Pack, row: int) -> Image.Image:
        decoded.append(row)
        if len(decoded) <= 8:
            together.wait(timeout=10)  # all have found the cache empty
        return plain(self, row)

    monkeypatch.setattr(Pack, "image", at_once)
    decode = cached_decoder(pack, limit_bytes=2 * 3 * 8 * 8)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(decode, [0] * 8):
            assert torch.equal(got, image_tensor(plain(pack, 0)))
    for row in (1, 2, 0, 1, 2):
        decode(row)
    assert decoded == [0] * 8 + [1, 2, 2]  # there was room for a second image, none for a third
