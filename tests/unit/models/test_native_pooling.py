"""Networks with the pooling of their own library, and networks without a projection."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import normalize
from torchvision.models import get_model

from pipeline.models.backbones import UnknownBackboneError, build_backbone
from pipeline.models.checks import size_fault
from pipeline.models.embedder import Embedder
from pipeline.models.folding import folded
from pipeline.models.onnx import write_onnx
from pipeline.models.query_encoder import QueryEncoder
from pipeline.models.weights import (
    NetworkCard,
    build_embedder,
    load_network,
    read_card,
    save_network,
)
from tests.made_training import CPU, equal_states

# The foundation models that users have vectors of, with their patch and channels.
FOUNDATION = {
    "timm/vit_small_patch14_dinov2": (14, 384),
    "timm/vit_small_patch14_reg4_dinov2": (14, 384),
    "timm/vit_small_patch16_dinov3": (16, 384),
    "timm/convnext_tiny.dinov3_lvd1689m": (1, 768),
    "timm/vit_base_patch16_siglip_224.v2_webli": (16, 768),
    "timm/vit_pe_core_tiny_patch16_384": (16, 192),
}


def random_images(count: int, size_px: int) -> torch.Tensor:
    return torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "size_px"),
    [
        ("test_vit", 160),  # class token
        ("test_vit2", 160),  # average, with a norm behind it
        ("test_vit3", 160),  # attention pooling, as SigLIP's
        ("test_vit", 48),  # the position embedding is interpolated
        ("test_vit3", 48),
        ("test_resnet", 32),
        ("mobilenetv3_small_050", 32),  # a convolution behind its pooling
        ("swin_tiny_patch4_window7_224", 224),
    ],
)
def test_timms_pooling_is_what_its_own_classifier_takes(name: str, size_px: int) -> None:
    own = {"dynamic_img_size": True} if "vit" in name else {}
    torch.manual_seed(3)
    whole = timm.create_model(name, **own).eval()
    backbone = build_backbone(f"timm/{name}", pretrained=False, pooling="native")
    backbone.features.load_state_dict(whole.state_dict(), strict=False)
    images = random_images(2, size_px)
    with torch.no_grad():
        pooled = backbone.features.eval()(images)
        torch.testing.assert_close(whole.get_classifier()(pooled), whole(images))
    assert pooled.shape == (2, backbone.channels)


@pytest.mark.parametrize(
    ("name", "size_px"),
    [
        ("resnet18", 64),
        ("mobilenet_v3_small", 64),
        ("shufflenet_v2_x0_5", 64),
        ("densenet121", 64),
        ("googlenet", 64),
        ("swin_t", 64),
        ("vit_b_32", 224),
    ],
)
def test_torchvisions_pooling_is_what_its_own_classifier_takes(name: str, size_px: int) -> None:
    own = {"init_weights": True} if name == "googlenet" else {}
    torch.manual_seed(3)
    whole = get_model(name, **own).eval()
    children = dict(whole.named_children())
    classifier = next(
        children[key] for key in ("fc", "classifier", "head", "heads") if key in children
    )
    backbone = build_backbone(f"torchvision/{name}", pretrained=False, pooling="native")
    backbone.features.load_state_dict(whole.state_dict(), strict=False)
    images = random_images(2, size_px)
    with torch.no_grad():
        pooled = backbone.features.eval()(images)
        torch.testing.assert_close(classifier(pooled), whole(images))
    assert pooled.shape == (2, backbone.channels)
    trained = backbone.features.train()(images)  # no auxiliary outputs either
    assert trained.shape == pooled.shape


def test_what_is_no_vector_is_refused() -> None:
    """Of MaxViT the pooling belongs to the classifier."""
    with torch.device("meta"), pytest.raises(UnknownBackboneError, match="take pooling gem"):
        build_backbone("torchvision/maxvit_t", pretrained=False, pooling="native")


def test_a_vector_whose_length_is_that_of_the_image_is_refused() -> None:
    fault = size_fault("torchvision/squeezenet1_1", 224, "native")
    assert fault is not None
    assert "another length at each size: take pooling gem" in fault
    assert size_fault("torchvision/squeezenet1_1", 224, "gem") is None


@pytest.mark.parametrize("name", FOUNDATION)
def test_foundation_models_build_and_embed(name: str) -> None:
    patch_px, channels = FOUNDATION[name]
    with torch.device("meta"):
        backbone = build_backbone(name, pretrained=False, pooling="native")
        network = Embedder(backbone, None).eval()
        assert (backbone.patch_px, backbone.channels) == (patch_px, channels)
        for patches in (4, 8):
            side_px = patches * max(patch_px, 8)
            assert network(torch.empty(1, 3, side_px, side_px)).shape == (1, channels)


def test_sizes_are_multiples_of_the_patch_with_either_pooling() -> None:
    name = "timm/vit_small_patch14_dinov2"
    for pooling in ("gem", "native"):
        assert size_fault(name, 64, pooling) == f"must be a multiple of 14 for {name}"
        assert size_fault(name, 70, pooling) is None


def test_a_vector_is_brought_to_unit_length_and_projected() -> None:
    network = build_embedder("timm/test_vit", 8, weights="random", seed=0, pooling="native").eval()
    images = random_images(2, 32)
    with torch.no_grad():
        pooled = network.features((images - network.mean) / network.std)
        expected = normalize(network.projection(normalize(pooled)))
        torch.testing.assert_close(network(images), expected)
    assert network.p is None


@pytest.mark.parametrize("pooling", ["gem", "native"])
def test_without_a_projection_the_unit_features_are_the_embedding(
    tmp_path: Path, pooling: str
) -> None:
    network = build_embedder("timm/test_resnet", None, weights="random", seed=0, pooling=pooling)
    images = random_images(2, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), normalize(network.pooled(images)))
    path = tmp_path / "network.safetensors"
    card = NetworkCard("timm/test_resnet", network.channels, 32, pooling=pooling, projection=False)
    save_network(path, network, card)
    loaded, read = load_network(path, CPU)
    assert read == card == read_card(path)
    assert equal_states(loaded, network)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
        torch.testing.assert_close(folded(loaded, 32)(images), network(images))
    save_network(path, network, replace(card, dim=7))
    with pytest.raises(ValueError, match=r"dim is 7, timm/test_resnet gives \d+"):
        load_network(path, CPU)


def test_a_card_of_before_is_of_gem_with_a_projection() -> None:
    assert NetworkCard("timm/test_resnet", 8, 32) == NetworkCard(
        "timm/test_resnet", 8, 32, None, None, "gem", True
    )


def test_position_embeddings_are_interpolated_in_onnx_as_well(tmp_path: Path) -> None:
    """Made for 160 px: ten patches a side, here three; attention pools them."""
    network = build_embedder(
        "timm/test_vit3", None, weights="random", seed=0, pooling="native"
    ).eval()
    with torch.no_grad():
        embedding = network.features.get_parameter("pos_embed")
        embedding.copy_(torch.randn(embedding.shape, generator=torch.Generator().manual_seed(2)))
    path = tmp_path / "encoder.onnx"
    write_onnx(path, network, 48)
    views = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    vectors = torch.from_numpy(QueryEncoder(path, threads=1).embed(views.numpy()))
    with torch.no_grad():
        expected = network(views.permute(0, 3, 1, 2) / 255)
        nn.init.zeros_(embedding)
        without = network(views.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    assert (expected - without).abs().max() > 1e-2
