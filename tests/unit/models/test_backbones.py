"""Backbones by name: any library's, and never one whose feature map is not what it is taken for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.models.backbones import UnknownBackboneError, build_backbone, check_backbone
from pipeline.models.checks import size_fault
from pipeline.models.embedder import Embedder

# Families whose last feature map differs in kind: plain, with a head convolution, without one,
# tokens, channels in the last place.
NAMES = {
    "timm/test_resnet": 64,
    "timm/resnet18": 64,
    "timm/convnext_atto": 64,
    "timm/efficientnet_b0": 64,
    "timm/mobilenetv3_small_100": 64,
    "timm/ghostnet_100": 64,
    "timm/vit_tiny_patch16_224": 96,
    "timm/swin_tiny_patch4_window7_224": 224,
    "torchvision/resnet18": 64,
    "torchvision/mobilenet_v2": 64,
    "torchvision/swin_t": 64,
}


@pytest.mark.parametrize(("name", "size_px"), NAMES.items())
def test_channels_are_those_of_the_feature_map(name: str, size_px: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, pretrained=False)
        features = backbone.features.eval()(torch.empty(2, 3, size_px, size_px))
    assert features.ndim == 4
    assert features.shape[:2] == (2, backbone.channels)
    assert features.shape[2] == features.shape[3] < size_px
    assert len(backbone.mean) == len(backbone.std) == 3


def test_tokens_are_laid_out_as_their_patches_lie() -> None:
    """Changing one patch of a one-layer transformer changes its own place most."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone("timm/vit_tiny_patch16_224", pretrained=False)
    network = backbone.features.eval()
    image = torch.zeros(1, 3, 48, 64)
    changed = image.clone()
    changed[:, :, 16:32, 32:48] = 1
    with torch.no_grad():
        difference = (network(changed) - network(image)).abs().sum(1)[0]
    assert difference.shape == (3, 4)
    assert divmod(int(difference.argmax()), 4) == (1, 2)


@pytest.mark.parametrize(
    "name", ["torchvision/fasterrcnn_resnet50_fpn", "torchvision/quantized_mobilenet_v2"]
)
def test_networks_that_are_no_classifiers_are_refused(name: str) -> None:
    assert "torchvision has no" in str(size_fault(name, 224))


def test_a_backbone_that_reads_its_weights_while_it_is_built_can_be_checked() -> None:
    assert size_fault("torchvision/regnet_y_400mf", 64) is None


def test_the_figures_of_the_librarys_weights_are_used() -> None:
    with torch.device("meta"):
        plain = build_backbone("timm/resnet18", pretrained=False)
        own = build_backbone("timm/test_resnet", pretrained=False)
    assert plain.mean == (0.485, 0.456, 0.406)
    assert own.mean == (0.5, 0.5, 0.5)


def test_unknown_names_are_refused_with_similar_ones() -> None:
    for name, message in (
        ("timm/resnet81", r"timm has no 'resnet81'; similar: .*resnet18"),
        ("torchvision/resnet81", r"torchvision has no 'resnet81'; similar: .*resnet18"),
        ("resnet18", "must be timm/NAME or torchvision/NAME"),
        ("hub/resnet18", "must be timm/NAME or torchvision/NAME"),
        ("timm/", "timm has no ''"),
        ("timm/hf_hub:someone/network", "timm has no 'hf_hub:someone/network'"),  # asks no hub
        ("timm/local-dir:/tmp/network", "timm has no 'local-dir:/tmp/network'"),
    ):
        for reject in (check_backbone, lambda name: build_backbone(name, pretrained=False)):
            with pytest.raises(UnknownBackboneError, match=message):
                reject(name)


def test_known_names_pass_with_and_without_a_tag() -> None:
    check_backbone("timm/resnet18")
    check_backbone("timm/resnet18.a1_in1k")
    check_backbone("torchvision/mobilenet_v2")


def test_imagenet_weights_fit_the_torchvision_backbone(shared: Path) -> None:
    """Origin: ../shared/weights, trained on ImageNet, under torchvision's own key names."""
    backbone = build_backbone("torchvision/mobilenet_v2", pretrained=False)
    state = load_file(shared / "weights" / "mobilenet_v2_imagenet.safetensors")
    own = backbone.features.state_dict()
    trained = {
        name.removeprefix("features."): value
        for name, value in state.items()
        if name.removeprefix("features.") in own
    }
    assert own.keys() - trained.keys() <= {
        name for name in own if name.endswith("num_batches_tracked")
    }
    backbone.features.load_state_dict(trained, strict=False)
    network = Embedder(backbone, 16).eval()
    with torch.no_grad():
        pooled = network.pooled(torch.rand(2, 3, 64, 64))
    assert backbone.channels == 1280
    assert pooled.shape == (2, 1280)
    assert torch.isfinite(pooled).all()
