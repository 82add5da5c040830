"""PCA whitening: components of unit variance, or words where there are too few."""

import pytest
import torch

from pipeline.teachers.whitening import whitening_layer


def correlated(images: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(channels, channels, generator=generator)
    return torch.randn(images, channels, generator=generator) @ mixing + 3


def test_two_axes_by_hand() -> None:
    """Points at -3 and 3 on the first axis, -1 and 1 on the second, around (1, 2)."""
    vectors = torch.tensor([[4.0, 2.0], [-2.0, 2.0], [1.0, 3.0], [1.0, 1.0]])
    layer = whitening_layer(vectors, 2)
    deviations = torch.tensor([6.0, 2 / 3]).sqrt()  # 18 / 3, and 2 / 3
    torch.testing.assert_close(layer.weight, torch.diag(1 / deviations))
    torch.testing.assert_close(layer.bias, -torch.tensor([1.0, 2.0]) / deviations)


@pytest.mark.parametrize("dim", [6, 3])
def test_the_outputs_are_centred_uncorrelated_and_of_unit_variance(dim: int) -> None:
    vectors = correlated(200, 6)
    with torch.no_grad():
        found = whitening_layer(vectors, dim)(vectors)
    torch.testing.assert_close(found.mean(0), torch.zeros(dim), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(dim), atol=1e-4, rtol=0)


def test_fewer_dimensions_are_the_first_of_more() -> None:
    vectors = correlated(50, 6)
    all_six, three = whitening_layer(vectors, 6), whitening_layer(vectors, 3)
    torch.testing.assert_close(three.weight, all_six.weight[:3])
    variances = torch.linalg.eigvalsh(torch.cov(vectors.double().T)).flip(0)
    rows = all_six.weight.double().norm(dim=1).square()
    torch.testing.assert_close(rows, 1 / variances, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("vectors", "dim", "rank"),
    [
        (correlated(4, 6), 4, 3),  # four points span three dimensions around their mean
        (correlated(50, 3).repeat(1, 2), 4, 3),
        (torch.ones(10, 5), 1, 0),
        (torch.ones(1, 5), 1, 0),
    ],
)
def test_what_spans_too_little_is_told(vectors: torch.Tensor, dim: int, rank: int) -> None:
    with pytest.raises(ValueError, match=f"span {rank} dimensions, and whitening to {dim} needs"):
        whitening_layer(vectors, dim)
