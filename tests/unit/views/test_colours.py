"""Changes of colour, and mixing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.views.evaluation import (
    LUMA,
    adjust_colours,
    colour_maps,
    draw_mix_weights,
    image_tensor,
    mean_luma,
)
from tests.made_training import picture

IDENTITY = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colours(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_colour_maps_by_hand() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    luma = torch.tensor(LUMA, dtype=torch.float64)
    none = torch.zeros(3, 1, dtype=torch.float64)
    cases = {
        (1.0, 1.0, 1.0, 0.0): torch.cat([eye, none], 1),
        (1.3, 1.0, 1.0, 0.0): torch.cat([1.3 * eye, none], 1),
        (1.0, 0.6, 1.0, 0.0): torch.cat([0.6 * eye, none + 0.4], 1),
        (1.2, 0.5, 1.0, 0.0): torch.cat([0.6 * eye, none + 0.6], 1),
        (1.0, 1.0, 0.0, 0.0): torch.cat([luma.expand(3, 3), none], 1),
        (1.0, 1.0, 1.5, 0.0): torch.cat([1.5 * eye - 0.5 * luma.expand(3, 3), none], 1),
        (1.0, 1.0, 1.0, 1.0): torch.cat([eye, none], 1),  # a full turn of the hue
        (1.0, 1.0, 1.0, -1.0): torch.cat([eye, none], 1),
    }
    for colour, expected in cases.items():
        torch.testing.assert_close(colour_maps(colours(*colour))[0], expected, rtol=0, atol=1e-12)
    assert len(cases) == 8


def test_hue_turns_add_up_and_leave_grey_and_luma_alone() -> None:
    turns = [colour_maps(colours(1.0, 1.0, 1.0, hue))[0, :, :3] for hue in (0.1, 0.07, 0.17)]
    torch.testing.assert_close(turns[0] @ turns[1], turns[2], rtol=0, atol=1e-12)
    grey = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(turns[2] @ grey, grey, rtol=0, atol=1e-12)
    luma = torch.tensor(LUMA, dtype=torch.float64)
    torch.testing.assert_close(luma @ turns[2], luma, rtol=0, atol=1e-12)
    assert (turns[2] - torch.eye(3)).abs().max() > 0.5


def test_colours_against_plain_loops() -> None:
    """Brightness, contrast and saturation one after the other on one pixel, as their words say."""
    view = image_tensor(Image.fromarray(picture(4, 6, 5)))[None]
    brightness, contrast, saturation = 0.8, 1.3, 0.7
    ours = adjust_colours(
        view, colour_maps(colours(brightness, contrast, saturation, 0.0)), mean_luma(view)
    )
    pixels = view[0].double() / 255
    luma = sum(weight * pixels[channel] for channel, weight in enumerate(LUMA))
    cases = 0
    for y in range(6):
        for x in range(5):
            own = sum(w * pixels[c, y, x].item() for c, w in enumerate(LUMA))
            for channel in range(3):
                value = own + saturation * (pixels[channel, y, x].item() - own)
                mean = luma.mean().item()
                value = brightness * (mean + contrast * (value - mean))
                expected = min(1.0, max(0.0, value))
                assert ours[0, channel, y, x].item() == pytest.approx(expected, abs=2e-6)
                cases += 1
    assert cases == 90


def test_no_change_of_colour_is_exact_and_extremes_are_cut() -> None:
    view = image_tensor(Image.fromarray(picture(4, 6, 5)))[None]
    plain = adjust_colours(view, colour_maps(IDENTITY), mean_luma(view))
    torch.testing.assert_close(plain, view.float() / 255, rtol=0, atol=1e-6)
    bright = adjust_colours(view, colour_maps(colours(9.0, 1.0, 1.0, 0.0)), mean_luma(view))
    assert bright.max() == 1
    dark = adjust_colours(view, colour_maps(colours(0.0, 1.0, 1.0, 0.0)), mean_luma(view))
    assert dark.abs().max() == 0


def test_mean_luma_by_hand() -> None:
    view = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    view[0, 1] = 255  # green
    view[1, :, 0] = 255  # the upper half white
    assert mean_luma(view).tolist() == pytest.approx([0.587, 0.5], rel=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_mix_weights_follow_beta(alpha: float) -> None:
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)), E w^4 from its moments.
    weights = draw_mix_weights(20_000, alpha, generator())
    assert weights.min() >= 0
    assert weights.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert weights.mean().item() == pytest.approx(0.5, abs=4 * (variance / 20_000) ** 0.5)
    assert weights.var().item() == pytest.approx(variance, abs=0.005)
    fourth = np.prod([(alpha + r) / (2 * alpha + r) for r in range(4)])
    assert weights.pow(4).mean().item() == pytest.approx(fourth, abs=0.013)


def test_no_mixing_at_alpha_0() -> None:
    assert draw_mix_weights(5, 0.0, generator()).tolist() == [1.0] * 5
    first, again = (draw_mix_weights(9, 0.2, generator()) for _ in range(2))
    assert torch.equal(first, again)
