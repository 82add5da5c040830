"""Batch norms folded into convolutions."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from pipeline.models.backbones import Backbone
from pipeline.models.embedder import Embedder
from pipeline.models.folding import folded
from pipeline.models.weights import build_embedder

TOLERANCE = 1e-5


def with_lived_in_norms(network: Embedder) -> Embedder:
    """Statistics and affine parameters as training leaves them: none is its initial value."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.1, 0.1, generator=generator)
    return network.eval()


def of_layers(features: nn.Module) -> Embedder:
    torch.manual_seed(0)
    backbone = Backbone(features, channels=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return with_lived_in_norms(Embedder(backbone, dim=8))


def embed(network: Embedder, layers: nn.Module | None = None) -> torch.Tensor:
    """What `network`, or these layers of it, make of three images."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return (layers or network)(images)


def norms_of(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        ("torchvision/mobilenet_v2", 52),
        ("torchvision/resnet18", 20),
        ("timm/resnet18", 20),
        ("timm/efficientnet_b0", 49),
        ("timm/mobilenetv3_small_100", 34),
    ],
)
def test_the_folded_network_embeds_alike_without_norms(backbone: str, norms: int) -> None:
    network = with_lived_in_norms(build_embedder(backbone, 32, weights="random", seed=0))
    before, maps = embed(network), embed(network, network.features)
    lighter = folded(network, 64)
    assert (norms_of(network), norms_of(lighter)) == (norms, 0)
    torch.testing.assert_close(embed(lighter), before, rtol=0, atol=TOLERANCE)
    largest = maps.abs().max().item()  # embeddings of random weights are all alike, maps are not
    torch.testing.assert_close(
        embed(lighter, lighter.features), maps, rtol=0, atol=TOLERANCE * largest
    )
    torch.testing.assert_close(embed(network), before, rtol=0, atol=0)


def test_a_network_without_batch_norms_embeds_alike() -> None:
    network = of_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()))
    torch.testing.assert_close(embed(folded(network, 64)), embed(network), rtol=0, atol=0)


def test_a_norm_that_follows_no_convolution_stays() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    network = of_layers(layers)
    lighter = folded(network, 64)
    assert norms_of(lighter) == 2
    torch.testing.assert_close(embed(lighter), embed(network), rtol=0, atol=0)


class Reused(nn.Module):
    """One convolution and one norm, run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 4, 1)
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        once = relu(self.norm(self.convolution(self.widen(images))))
        return relu(self.norm(once))


class Tapped(nn.Module):
    """What the convolution gives goes round its norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        return relu(features + self.norm(features))


class Branched(nn.Module):
    """Two norms of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.one = nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        return relu(self.one(features)) + self.other(features).abs()


@pytest.mark.parametrize(("features", "norms"), [(Reused, 1), (Tapped, 1), (Branched, 2)])
def test_a_norm_that_cannot_be_folded_stays(features: type[nn.Module], norms: int) -> None:
    network = of_layers(features())
    lighter = folded(network, 64)
    assert norms_of(lighter) == norms
    torch.testing.assert_close(embed(lighter), embed(network), rtol=0, atol=TOLERANCE)


def test_a_copy_of_a_network_in_training_is_folded_as_it_would_evaluate() -> None:
    network = with_lived_in_norms(build_embedder("timm/resnet18", 32, weights="random", seed=0))
    before = embed(network)
    lighter = folded(network.train(), 64)
    assert network.training
    torch.testing.assert_close(embed(lighter), before, rtol=0, atol=TOLERANCE)
