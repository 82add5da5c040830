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
    stack = stack_images(images, CPU)
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
