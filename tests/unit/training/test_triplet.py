"""The triplet loss, and negatives that are negatives, drawn as Wu et al. say."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.training.triplet import (
    draw_negatives,
    form_triplets,
    sampling_log_weights,
    triplet_loss,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(rows: int, dim: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(rows, dim, generator=generator(seed), dtype=torch.float64), dim=1)


def triplets(*rows: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Anchors, positives and negatives."""
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)


def test_loss_by_hand() -> None:
    # On the circle, at 0, 90 and 180 degrees: squared distances 2 (neighbours) and 4 (opposite).
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert triplet_loss(points, *triplets((0, 1, 2)), 0.7).item() == 0  # 2 - 4 + 0.7 < 0
    assert triplet_loss(points, *triplets((0, 2, 1)), 0.7).item() == pytest.approx(2.7)
    assert triplet_loss(points, *triplets((1, 0, 2)), 0.7).item() == pytest.approx(0.7)
    # A satisfied triplet counts in the mean.
    both = triplets((0, 1, 2), (0, 2, 1))
    assert triplet_loss(points, *both, 0.7).item() == pytest.approx(1.35)


def test_loss_equals_plain_loops_and_is_turned_without_change() -> None:
    points = units(9, 5)
    drawn = torch.randint(9, (40, 3), generator=generator(1))
    rows = drawn.unbind(1)
    total = 0.0
    for a, p, n in drawn.tolist():
        to_positive = sum((points[a, k] - points[p, k]).item() ** 2 for k in range(5))
        to_negative = sum((points[a, k] - points[n, k]).item() ** 2 for k in range(5))
        total += max(0.0, to_positive - to_negative + 0.3)
    assert triplet_loss(points, *rows, 0.3).item() == pytest.approx(total / 40, rel=1e-12)
    turn = torch.linalg.qr(units(5, 5, 2)).Q
    assert triplet_loss(points @ turn, *rows, 0.3).item() == pytest.approx(total / 40, rel=1e-12)


def test_coinciding_points_cost_the_margin_and_have_a_finite_gradient() -> None:
    points = units(1, 4).repeat(3, 1).requires_grad_()
    loss = triplet_loss(points, *triplets((0, 1, 2)), 0.7)
    loss.backward()
    assert loss.item() == pytest.approx(0.7)
    assert points.grad is not None
    assert points.grad.abs().max() == 0


@pytest.mark.parametrize("dim", [3, 8, 128])
def test_weights_are_the_inverse_density_of_wu_et_al(dim: int) -> None:
    # Eq. 3 of Wu et al. 2017: q(d) ~ d^(n-2) (1 - d^2/4)^((n-3)/2), in plain powers.
    distances = torch.tensor([[0.5, 0.8, 1.1, 1.4, 1.9]], dtype=torch.float64)
    ours = sampling_log_weights(distances, dim, 0.5)[0]
    plain = [
        math.log(1 / (d ** (dim - 2) * (1 - d * d / 4) ** ((dim - 3) / 2)))
        for d in distances[0].tolist()
    ]
    assert ours.tolist() == pytest.approx(plain, rel=1e-10, abs=1e-12)


def test_the_density_is_that_of_random_points_on_the_sphere() -> None:
    """In 5 dimensions: the share of pairs closer than d, against the integral of the density."""
    points = units(1500, 5)
    pairs = torch.pdist(points)

    def density(d: float) -> float:
        distance = torch.tensor([[d]], dtype=torch.float64)
        return math.exp(-sampling_log_weights(distance, 5, 1e-9).item())

    whole, cases = quad(density, 0, 1.999)[0], 0
    for limit in (0.6, 1.0, 1.4, 1.7):
        expected = quad(density, 0, limit)[0] / whole
        # 1500 points: the standard error of such a share is below 0.5/sqrt(1500) = 0.013
        assert (pairs < limit).double().mean().item() == pytest.approx(expected, abs=0.01)
        cases += 1
    assert cases == 4


def test_distances_below_the_floor_and_at_two_stay_finite() -> None:
    distances = torch.tensor([[0.0, 0.1, 0.5, 2.0, 2.0 + 1e-9]], dtype=torch.float64)
    weights = sampling_log_weights(distances, 128, 0.5)[0]
    assert torch.isfinite(weights).all()
    assert weights[0] == weights[1] == weights[2]
    assert weights[3] == weights[4]


def test_negatives_are_never_of_the_anchors_class() -> None:
    draws = 0
    for seed in range(20):
        pool = units(40, 6, seed)
        labels = torch.arange(40) % 5
        differs = labels[:, None] != labels
        chosen = draw_negatives(
            pool, pool, differs, negatives=50, floor=0.5, generator=generator(seed)
        )
        assert chosen.shape == (40, 50)
        assert (labels[chosen] != labels[:, None]).all()
        draws += chosen.numel()
    assert draws == 40_000


def test_negatives_follow_the_inverse_density() -> None:
    """40 000 draws of one anchor against the weights, restated; those past 1.4 never come."""
    anchor = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    angles = torch.tensor([0.2, 0.7, 1.0, 1.3, 1.5, 2.5], dtype=torch.float64)
    zero = torch.zeros_like(angles)
    pool = torch.stack([angles.cos(), angles.sin(), zero, zero], dim=1)
    is_negative = torch.tensor([[True, True, False, True, True, True]])
    chosen = draw_negatives(
        anchor, pool, is_negative, negatives=40_000, floor=0.5, generator=generator()
    )
    counts = np.bincount(chosen[0].numpy(), minlength=6)
    weights = []
    for place, angle in enumerate(angles.tolist()):
        d = max(2 * math.sin(angle / 2), 0.5)  # the chord, at least the floor
        allowed = bool(is_negative[0, place]) and d < 1.4
        weights.append(d**-2 * (1 - d * d / 4) ** -0.5 if allowed else 0.0)  # n = 4
    expected = np.array(weights) / sum(weights)
    assert counts[2] == counts[5] == 0
    # 4.5 standard deviations of a share of 40 000 draws
    np.testing.assert_allclose(counts / 40_000, expected, atol=4.5 * 0.5 / 200)
    assert (expected > 0.05).sum() == 4


def test_far_negatives_are_drawn_only_where_no_nearer_one_exists() -> None:
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    pool = torch.tensor([[-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    far = torch.tensor([[True, False], [False, True]])  # both at distance 2
    chosen = draw_negatives(anchors, pool, far, negatives=3, floor=0.5, generator=generator())
    assert chosen.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_draws_depend_on_the_generator_alone() -> None:
    pool = units(30, 6)
    differs = (torch.arange(30) % 3)[:, None] != torch.arange(30) % 3
    first, again, other = (
        draw_negatives(pool, pool, differs, negatives=4, floor=0.5, generator=generator(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_anchor_without_candidates_is_refused() -> None:
    pool = units(3, 4)
    is_negative = torch.tensor([[True, True, False], [False, False, False]])
    with pytest.raises(ValueError, match="no image of another class"):
        draw_negatives(pool[:2], pool, is_negative, negatives=1, floor=0.5, generator=generator())


def test_triplets_by_hand() -> None:
    # Anchors 0, 1 (class 7) and 2, 3 (class 8); rows 4 and 5 are negatives only.
    labels = torch.tensor([7, 7, 8, 8, 8, 7])
    negative = torch.tensor([[4, 2], [3, 4], [5, 0], [1, 5]])
    formed = form_triplets(labels, 4, negative)
    rows = list(zip(*(part.tolist() for part in formed), strict=True))
    assert rows == [
        (0, 1, 4),
        (0, 1, 2),
        (1, 0, 3),
        (1, 0, 4),
        (2, 3, 5),
        (2, 3, 0),
        (3, 2, 1),
        (3, 2, 5),
    ]


def test_wrong_shapes() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        draw_negatives(
            units(2, 4),
            units(3, 5),
            torch.ones(2, 3, dtype=torch.bool),
            negatives=1,
            floor=0.5,
            generator=generator(),
        )
    with pytest.raises(jaxtyping.TypeCheckError):
        triplet_loss(units(4, 4)[None], *triplets((0, 1, 2)), 0.7)
