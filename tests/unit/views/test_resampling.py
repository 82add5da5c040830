"""Crops of many images as products of matrices, against those made one by one."""

import pytest
import torch

from pipeline.views import resampling
from pipeline.views.evaluation import crop_boxes, crop_view, draw_view_parameters
from pipeline.views.resampling import crop_views_together, filter_weights, stack_images
from tests.made_training import CPU, picture

SIDES = ((90, 120), (61, 33), (200, 150), (17, 240))


def test_views_are_those_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enlarged, shrunk, mirrored, of images of different sides, whole and in parts."""
    images = [torch.from_numpy(picture(n, *SIDES[n % 4])).permute(2, 0, 1) for n in range(6)]
    images = [images[n // 4] for n in range(24)]
    drawn = draw_view_parameters(
        24,
        torch.Generator().manual_seed(0),
        crop_scale=(0.05, 1.0),
        flip_probability=0.5,
        colour_ranges=(0, 0, 0, 0),
    )
    sides = torch.tensor([image.shape[1:] for image in images])
    boxes = crop_boxes(drawn, sides[:, 0], sides[:, 1])
    assert 5 < drawn.flip.sum() < 19
    ((part, stack),) = stack_images(images, CPU)
    assert part == slice(0, 24)
    assert stack.images.shape == (6, 3, 200, 240)
    for size_px in (7, 24, 64):
        together = crop_views_together(stack, boxes, drawn.flip, size_px)
        assert together.shape == (24, 3, size_px, size_px)
        pairs = zip(images, boxes, drawn.flip.tolist(), strict=True)
        single = [crop_view(image, box, flip=flip, size_px=size_px) for image, box, flip in pairs]
        difference = (together.int() - torch.stack(single).int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.2
        monkeypatch.setattr(resampling, "PIXELS_AT_ONCE", 5 * 3 * 200 * 240)
        assert torch.equal(crop_views_together(stack, boxes, drawn.flip, size_px), together)
        monkeypatch.undo()


def test_weights_by_hand() -> None:
    """Two pixels of four: triangles of half-width 2, without what lies outside the box."""
    weights = filter_weights(torch.tensor([1.0]), torch.tensor([4.0]), 6, 2)[0]
    expected = torch.tensor([[0, 3, 3, 1, 0, 0], [0, 0, 1, 3, 3, 0]]) / 7
    torch.testing.assert_close(weights, expected)
    # Enlarging interpolates between neighbours and repeats the outermost.
    weights = filter_weights(torch.tensor([0.0]), torch.tensor([2.0]), 2, 4)[0]
    expected = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    torch.testing.assert_close(weights, expected)


def test_stacks_of_large_images_are_bounded_and_show_the_same() -> None:
    """Long images across and upright: padded to one size they would take 16 times 3 x 400 x 400."""
    sides = [(400, 20) if n % 2 else (20, 400) for n in range(15)] + [(400, 400)]
    images = [torch.from_numpy(picture(n, *side)).permute(2, 0, 1) for n, side in enumerate(sides)]
    images.insert(3, images[2])  # a second view of the same image takes no room
    drawn = draw_view_parameters(
        len(images),
        torch.Generator().manual_seed(0),
        crop_scale=(0.2, 1.0),
        flip_probability=0.5,
        colour_ranges=(0, 0, 0, 0),
    )
    heights, widths = torch.tensor([image.shape[1:] for image in images]).T
    boxes = crop_boxes(drawn, heights, widths)

    def views_within(limit_bytes: int) -> tuple[torch.Tensor, list[int]]:
        stacks = list(stack_images(images, CPU, limit_bytes))
        assert [row for part, _ in stacks for row in range(17)[part]] == list(range(17))
        views = [
            crop_views_together(stack, boxes[part], drawn.flip[part], 16) for part, stack in stacks
        ]
        return torch.cat(views), [stack.images.numel() for _, stack in stacks]

    whole, whole_bytes = views_within(1 << 30)
    assert whole_bytes == [16 * 3 * 400 * 400]
    for limit in (5 * 3 * 400 * 400, 3 * 400 * 400):
        parts, parts_bytes = views_within(limit)
        assert len(parts_bytes) > 2
        assert max(parts_bytes) <= limit
        assert (parts.int() - whole.int()).abs().max() <= 1
    alone, alone_bytes = views_within(1)  # one at a time: an image is not cut up
    assert len(alone_bytes) == 16
    assert (alone.int() - whole.int()).abs().max() <= 1


def test_long_images_are_resampled_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their pixels alone 341 views of 65500 x 1 pixels at 448 px: 10 GB of weights at once."""
    made: list[int] = []
    weights = resampling.filter_weights

    def count(*arguments: object) -> torch.Tensor:
        result = weights(*arguments)
        made.append(result.numel())
        return result

    monkeypatch.setattr(resampling, "filter_weights", count)
    image = torch.from_numpy(picture(0, 1, 65_500)).permute(2, 0, 1)
    ((_, stack),) = stack_images([image] * 6, CPU)
    boxes = [[0, 100 * n, 1, 60_000] for n in range(6)]
    crop_views_together(stack, boxes, torch.zeros(6, dtype=torch.bool), 112)
    assert len(made) == 6  # three times two views, rows and columns
    assert max(made) * resampling.WEIGHT_COPIES <= resampling.PIXELS_AT_ONCE
