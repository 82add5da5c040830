"""The orthogonal map from small to large embeddings: exact, the best, and of too few images."""

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.models.adapter import adapt, procrustes

F64 = torch.float64


def rows(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=generator, dtype=F64), dim=1)


def rotation(dim: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(rows(dim, dim, seed)).Q


def test_a_quarter_turn_by_hand() -> None:
    small = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
    large = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    assert procrustes(small, large) == pytest.approx(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))


def test_a_rotation_is_found_and_undone() -> None:
    large = rows(40, 6)
    turn = rotation(6)
    small = large @ turn.T
    found = procrustes(small, large)
    torch.testing.assert_close(found, turn)
    torch.testing.assert_close(adapt(small, found), large)
    torch.testing.assert_close(adapt(3 * small, found), large)  # of unit length


def test_no_other_orthogonal_map_is_nearer() -> None:
    small, large = rows(50, 5, seed=1), rows(50, 5, seed=2)
    best = procrustes(small, large)
    torch.testing.assert_close(best.T @ best, torch.eye(5, dtype=F64))

    def distance(matrix: torch.Tensor) -> float:
        return float((small @ matrix - large).square().sum())

    others = [rotation(5, seed) for seed in range(200)]
    near = [torch.linalg.qr(best + 0.01 * one).Q for one in others]
    signs = [best @ torch.diag(q.sign()) for q in torch.eye(5, dtype=F64) - 0.5]
    tried = [*others, *(near if distance(near[0]) > 0 else []), *signs]
    assert len(tried) == 405
    assert all(distance(best) <= distance(one) + 1e-9 for one in tried)


def test_fewer_images_than_dimensions_still_give_an_orthogonal_map() -> None:
    small, large = rows(3, 8, seed=1).float(), rows(3, 8, seed=2).float()
    found = procrustes(small, large)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.T @ found, torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("without_shape_checks")
def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"small is \(4, 3\) and large \(4, 2\)"):
        procrustes(rows(4, 3), rows(4, 2))
