"""GeM and the embedding network."""

import math
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from pipeline.models.embedder import Embedder, freeze_batch_norm, gem, unit_range
from tests.made_training import CPU, tiny_embedder


def random_features(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("key", "p"), [("gem_p3", 3), ("gem_p2.2", 2.2)])
def test_gem_equals_the_authors_code(shared: Path, key: str, p: float) -> None:
    # Origin: pavelsuma/raml, run on `gem_input`.
    with np.load(shared / "reference" / "losses.npz") as file:
        features, expected = torch.from_numpy(file["gem_input"]), torch.from_numpy(file[key])
    torch.testing.assert_close(gem(features, p), expected, rtol=1e-12, atol=0)


def test_gem_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    assert gem(features, 3).item() == pytest.approx(25 ** (1 / 3), rel=1e-12)
    assert gem(features, 1).item() == pytest.approx(2.5, rel=1e-12)


def test_gem_equals_plain_loops_with_a_learned_exponent() -> None:
    features = random_features(2, 3, 4, 5)
    pooled = gem(features, torch.tensor(2.7, dtype=torch.float64))
    cases = 0
    for image in range(2):
        for channel in range(3):
            values = [max(v, 1e-6) for v in features[image, channel].flatten().tolist()]
            expected = (sum(v**2.7 for v in values) / 20) ** (1 / 2.7)
            assert pooled[image, channel].item() == pytest.approx(expected, rel=1e-12)
            cases += 1
    assert cases == 6


def test_gem_lies_between_mean_and_maximum_and_scales() -> None:
    features = random_features(2, 3, 4, 5).abs() + 0.1
    pooled = gem(features, 3)
    assert (pooled > features.mean((2, 3))).all()
    assert (pooled < features.amax((2, 3))).all()
    torch.testing.assert_close(gem(7 * features, 3), 7 * pooled, rtol=1e-12, atol=0)
    torch.testing.assert_close(gem(features.flip(-1), 3), pooled, rtol=1e-12, atol=0)
    torch.testing.assert_close(gem(features, 200), features.amax((2, 3)), rtol=0.02, atol=0)


def test_gem_of_nothing_positive_is_the_epsilon_with_a_finite_gradient() -> None:
    features = (-random_features(1, 2, 3, 3).abs()).requires_grad_()
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    pooled = gem(features, p)
    assert pooled.flatten().tolist() == pytest.approx([1e-6, 1e-6])
    pooled.sum().backward()
    assert features.grad is not None
    assert p.grad is not None
    assert torch.isfinite(features.grad).all()
    assert math.isfinite(p.grad.item())


def test_gem_gradient_by_differences() -> None:
    features = random_features(1, 2, 2, 3).abs() + 0.5
    p = torch.tensor(3.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(gem, (features.requires_grad_(), p.requires_grad_()))


def test_gem_refuses_a_shape_without_channels() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        gem(torch.ones(4), 3)


def test_embeddings_are_unit_vectors_composed_as_the_method_says() -> None:
    network = tiny_embedder().double()
    images = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        features = network.features((images - 0.5) / 0.5)
        pooled = features.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        pooled = pooled / pooled.norm(dim=1, keepdim=True)
        projected = pooled @ network.projection.weight.T + network.projection.bias
        expected = projected / projected.norm(dim=1, keepdim=True)
        embedded = network(images)
    torch.testing.assert_close(embedded, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3).double(), rtol=1e-12, atol=0)
    assert network.p.item() == 3
    assert network.projection.bias is not None


def test_an_embedder_normalises_with_its_backbones_figures() -> None:
    network = tiny_embedder()
    grey = network.features(torch.zeros(1, 3, 16, 16))
    # Both networks have mean 0.5: a picture of that grey reaches the backbone as 0.
    pooled = network.pooled(torch.full((1, 3, 16, 16), 0.5))
    torch.testing.assert_close(pooled, torch.nn.functional.normalize(gem(grey, 3)))
    assert "mean" not in network.state_dict()


def test_every_parameter_of_an_embedder_learns() -> None:
    network: Embedder = tiny_embedder(batch_norm=True)
    network(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    gradients = {name: value.grad for name, value in network.named_parameters()}
    assert len(gradients) == 9
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert "p" in gradients


def test_unit_range_by_hand() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    moved = unit_range(images, CPU)
    assert moved.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert images.flatten().tolist() == [0, 51, 255]  # the input is left alone


def test_frozen_batch_norm_ignores_the_batch() -> None:
    network = tiny_embedder(batch_norm=True).train()
    freeze_batch_norm(network)
    modes = {type(module).__name__: module.training for module in network.features}
    assert modes == {"Conv2d": True, "BatchNorm2d": False, "ReLU": True}
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))
