"""Families of backbones with random weights: each builds, trains a step and embeds.

Their sizes are of the smallest member or cut down by the library, and the images are tiny.
"""

import pytest
import torch
from torchvision.models import get_model

from pipeline.models.backbones import TokenMap, UnknownBackboneError, build_backbone
from pipeline.models.checks import size_fault
from pipeline.models.embedder import Embedder, freeze_batch_norm
from pipeline.models.torchvision_heads import headless
from pipeline.models.weights import build_embedder

# The families that the study names, each with a size that it takes; transformers in patches.
FAMILIES = {
    "timm/resnet50": 64,
    "torchvision/resnet50": 64,
    "timm/mobilenetv2_050": 64,
    "torchvision/mobilenet_v2": 64,
    "timm/mobilenetv3_small_050": 64,
    "torchvision/mobilenet_v3_small": 64,
    "timm/efficientnet_b0": 64,
    "torchvision/efficientnet_b0": 64,
    "timm/convnext_atto": 64,
    "timm/vit_small_patch16_224": 48,
    "timm/vit_small_patch14_dinov2": 42,
    "timm/vit_small_patch14_reg4_dinov2": 42,
    "timm/vit_small_patch16_dinov3": 48,
    "timm/swin_tiny_patch4_window7_224": 64,
    "torchvision/shufflenet_v2_x0_5": 64,
    "torchvision/mnasnet0_5": 64,
    "torchvision/regnet_y_400mf": 64,
}
DIM = 8


@pytest.mark.parametrize(("name", "size_px"), FAMILIES.items())
def test_a_family_builds_trains_a_step_and_embeds(name: str, size_px: int) -> None:
    network = build_embedder(name, DIM, weights="random", seed=0)
    images = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    with torch.no_grad():
        before = network.eval()(images)
    freeze_batch_norm(network.train())
    loss = (network(images)[0] - torch.eye(DIM)[0]).square().sum()
    loss.backward()
    missing = [key for key, value in network.named_parameters() if value.grad is None]
    assert not [key for key in missing if "mask_token" not in key]
    optimiser.step()
    with torch.no_grad():
        after = network.eval()(images)
    assert after.shape == (2, DIM)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(2))
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", ["timm/vit_small_patch14_dinov2", "timm/vit_small_patch16_dinov3"])
def test_one_transformer_takes_every_multiple_of_its_patch(name: str) -> None:
    """The same network embeds the database and, in the naive rows, small queries."""
    with torch.device("meta"):
        backbone = build_backbone(name, pretrained=False)
        for patches in (2, 4, 16, 32):
            side = patches * backbone.patch_px
            output = backbone.features.eval()(torch.empty(1, 3, side, side))
            assert output.shape == (1, backbone.channels, patches, patches)


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch16_224", "timm/vit_small_patch14_reg4_dinov2"]
)
def test_tokens_that_are_no_patches_are_dropped(name: str) -> None:
    """Without them the pooled vector is that of the patch tokens alone."""
    backbone = build_backbone(name, pretrained=False)
    network = backbone.features.eval()
    side = 2 * backbone.patch_px
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = network.network(image)  # class and registers first, then patches row by row
        output = network(image)
    extra = tokens.shape[1] - 4
    assert extra == (5 if "reg4" in name else 1)
    expected = torch.stack([tokens[0, extra + place] for place in range(4)], dim=1)
    torch.testing.assert_close(output[0].flatten(1), expected, rtol=0, atol=0)


def test_channels_that_stand_last_are_put_first() -> None:
    backbone = build_backbone("timm/swin_tiny_patch4_window7_224", pretrained=False)
    network = backbone.features.eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = network.network(image)
        output = network(image)
    assert last.shape == (1, 2, 2, backbone.channels)
    for row in range(2):
        for column in range(2):
            torch.testing.assert_close(output[0, :, row, column], last[0, row, column])


def test_a_seed_fixes_a_transformer_and_its_images_need_not_be_square() -> None:
    first, again = (build_embedder("timm/test_vit", DIM, weights="random", seed=3) for _ in "ab")
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(first.eval()(images), again.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "size_px", "patch_px"),
    [
        ("timm/vit_small_patch14_dinov2", 450, 14),
        ("timm/vit_small_patch16_dinov3", 100, 16),
        ("timm/vit_small_patch16_224", 225, 16),
    ],
)
def test_a_size_that_is_no_multiple_of_the_patch_is_told(
    name: str, size_px: int, patch_px: int
) -> None:
    assert size_fault(name, size_px) == f"must be a multiple of {patch_px} for {name}"
    assert size_fault(name, size_px // patch_px * patch_px) is None


def test_a_network_of_one_size_only_is_refused_at_others() -> None:
    assert size_fault("timm/beit_base_patch16_224", 224) is None
    fault = size_fault("timm/beit_base_patch16_224", 112)
    assert fault is not None
    assert "doesn't match model (224)" in fault


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/coat_tiny", "gives a list, not one map"),
        ("timm/pit_ti_224", "gives 1 tokens"),
    ],
)
def test_a_network_without_one_map_is_refused(name: str, reason: str) -> None:
    with torch.device("meta"), pytest.raises(UnknownBackboneError, match=reason):
        build_backbone(name, pretrained=False)


@pytest.mark.parametrize(
    ("name", "size_px", "prefix_tokens", "stride_px"),
    [
        ("timm/mixer_s32_224", 224, 0, 32),
        ("timm/levit_128s", 224, 0, 56),
        ("timm/volo_d1_224", 224, 1, 16),
        ("timm/xcit_nano_12_p8_224", 96, 1, 8),
        ("timm/vit_small_r26_s32_224", 224, 1, 32),
        ("timm/deit_tiny_distilled_patch16_224", 224, 2, 16),
        ("torchvision/vit_b_32", 224, 1, 32),
    ],
)
def test_tokens_are_told_from_patches_by_their_number(
    name: str, size_px: int, prefix_tokens: int, stride_px: int
) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, pretrained=False)
        features = backbone.features.eval()
        shape = features(torch.empty(1, 3, size_px, size_px)).shape
    assert isinstance(features, TokenMap)
    assert (features.prefix_tokens, features.stride_px) == (prefix_tokens, stride_px)
    assert shape == (1, backbone.channels, size_px // stride_px, size_px // stride_px)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mnasnet0_5", "googlenet", "resnet18"])
def test_torchvisions_map_is_what_its_own_classifier_pools(name: str) -> None:
    """The library's pooling and classifier on top of the map give the library's own scores."""
    torch.manual_seed(0)
    own = {"init_weights": True} if name == "googlenet" else {}
    network = get_model(name, **own).eval()
    features, _ = headless(network)
    images = torch.rand(2, 3, 64, 64)
    classifier = dict(network.named_children()).get("classifier") or network.get_submodule("fc")
    with torch.no_grad():
        scores = classifier(features(images).mean((2, 3)))
        torch.testing.assert_close(scores, network(images))


@pytest.mark.parametrize("name", ["swin_t", "vit_b_32"])
def test_torchvisions_transformers_give_what_their_heads_read(name: str) -> None:
    torch.manual_seed(0)
    network = get_model(name).eval()
    images = torch.rand(1, 3, 224, 224)
    features, _ = headless(network)
    with torch.no_grad():
        given = features(images)
        own = given[:, 0] if given.ndim == 3 else given.mean((1, 2))
        head = dict(network.named_children()).get("head") or network.get_submodule("heads")
        torch.testing.assert_close(head(own), network(images))


def test_inputs_between_minus_one_and_one_where_the_weights_want_them() -> None:
    with torch.device("meta"):
        assert build_backbone("torchvision/googlenet", pretrained=False).mean == (0.5, 0.5, 0.5)


def test_own_figures_of_the_input_replace_those_of_the_backbone() -> None:
    plain = build_embedder("timm/test_resnet", DIM, weights="random", seed=0)
    own = build_embedder(
        "timm/test_resnet", DIM, weights="random", seed=0, mean=(0.1, 0.2, 0.3), std=(1, 2, 4)
    )
    assert plain.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(own.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = (image - own.mean) / own.std * plain.std + plain.mean
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(image), plain.eval()(moved))


def test_the_embedder_of_a_map_pools_every_place() -> None:
    """GeM of one place is the feature itself where it is positive, 1e-6 elsewhere."""
    backbone = build_backbone("timm/test_vit", pretrained=False)
    network = Embedder(backbone, DIM).eval()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        feature = network.features((image - network.mean) / network.std).flatten().clamp(min=1e-6)
        torch.testing.assert_close(network.pooled(image)[0], feature / feature.norm())
