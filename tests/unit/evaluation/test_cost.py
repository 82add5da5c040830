"""What a query costs."""

import pytest
import torch
from torch import nn

from pipeline.evaluation.cost import query_cost
from pipeline.models.backbones import Backbone, build_backbone
from pipeline.models.embedder import Embedder
from tests.made_training import HALF, tiny_embedder


def test_counts_by_hand() -> None:
    # 16 px: conv 3 -> 8, 3 x 3, stride 2 on 8 x 8 positions; conv 8 -> 16 on 4 x 4; linear 16 -> 8.
    found = query_cost(tiny_embedder().eval(), 16)
    macs = 64 * 8 * 27 + 16 * 16 * 72 + 16 * 8
    assert found["gmacs"] == pytest.approx(macs / 1e9, rel=1e-12)
    assert found["parameters"] == (8 * 27 + 8) + (16 * 72 + 16) + (16 * 8 + 8) + 1
    assert found["input_bytes"] == 16 * 16 * 3


def test_the_cost_of_convolutions_falls_with_the_square_of_the_size() -> None:
    network = Embedder(Backbone(nn.Conv2d(3, 5, 1), 5, HALF, HALF), 2).eval()
    large, small = (query_cost(network, px) for px in (64, 16))
    projection = 5 * 2 / 1e9
    assert large["gmacs"] - projection == pytest.approx(
        16 * (small["gmacs"] - projection), rel=1e-9
    )
    assert large["parameters"] == small["parameters"]
    assert large["input_bytes"] == 16 * small["input_bytes"]


@pytest.mark.parametrize(
    ("name", "size_px", "gmacs"),
    [
        ("torchvision/resnet50", 448, 16.35),
        ("torchvision/resnet50", 112, 1.08),
        ("torchvision/resnet18", 448, 7.25),
        ("torchvision/mobilenet_v2", 224, 0.30),
        ("timm/efficientnet_b0", 448, 1.54),
    ],
)
def test_figures_of_known_networks(name: str, size_px: int, gmacs: float) -> None:
    # Origin: METHOD section 2, to its two digits (backbones; the projection adds 0.001).
    with torch.device("meta"):
        network = Embedder(build_backbone(name, pretrained=False), 512).eval()
        found = query_cost(network, size_px)
    assert found["gmacs"] == pytest.approx(gmacs, rel=0.02, abs=0.006)


def test_counting_changes_nothing() -> None:
    network = tiny_embedder(batch_norm=True).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert query_cost(network, 16) == query_cost(network, 16)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("size_px", [160, 48])
def test_attention_counts_by_the_formula(size_px: int) -> None:
    """timm's test_vit: 6 blocks of 64 numbers, hidden layers thrice as wide, patches of 16 px."""
    network = Embedder(build_backbone("timm/test_vit", pretrained=False, pooling="native"), None)
    patches, width = (size_px // 16) ** 2, 64
    tokens = patches + 1  # and the class token
    linear = tokens * width * width * (3 + 1 + 3 + 3)  # queries, keys and values; output; hidden
    attention = 2 * tokens * tokens * width  # the products with keys, and with values
    macs = patches * width * 3 * 16 * 16 + 6 * (linear + attention)
    found = query_cost(network.eval(), size_px)
    assert found["gmacs"] == pytest.approx(macs / 1e9, rel=1e-12)
