"""Weights from a file: those of the backbone and no others, or a message that names the keys."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config.params import Params, load_params
from pipeline.models import WeightsError
from pipeline.models.backbones import build_backbone
from pipeline.models.requirements import network_faults
from pipeline.models.weights import (
    NetworkCard,
    build_embedder,
    load_network,
    save_network,
    starting_file,
)
from tests.made_params import edited_params
from tests.made_training import CPU, equal_states

State = dict[str, Tensor]


def library_state(name: str, seed: int) -> State:
    """The state of the library's own network, its classifier included."""
    import timm
    from torchvision.models import get_model

    library, _, model = name.partition("/")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(model) if library == "timm" else get_model(model)
    return {key: value.clone().contiguous() for key, value in network.state_dict().items()}


def write_state(folder: Path, state: State) -> Path:
    path = folder / "weights.safetensors"
    save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("timm/test_resnet", "conv1.0.weight"),
        ("timm/test_vit", "patch_embed.proj.weight"),
        ("torchvision/mobilenet_v3_small", "features.0.0.weight"),
        ("torchvision/resnet18", "conv1.weight"),
    ],
)
def test_a_librarys_file_fills_the_backbone(tmp_path: Path, name: str, first: str) -> None:
    """With its classifier or without, and with that of other classes."""
    state = library_state(name, seed=4)
    heads = [key for key in state if key.startswith(("fc.", "head.", "classifier."))]
    assert heads
    body = {key: value for key, value in state.items() if key not in heads}
    other = {key: torch.zeros(3, *value.shape[1:]) for key, value in state.items() if key in heads}
    filled = []
    for given in (state, body, body | other):
        path = write_state(tmp_path, given)
        built = build_embedder(name, 8, weights=str(path), seed=0)
        filled.append(built)
        own = dict(built.features.named_parameters())
        assert any(torch.equal(value, state[first]) for value in own.values())
    assert equal_states(filled[0], filled[1])
    assert equal_states(filled[0], filled[2])
    random = build_embedder(name, 8, weights="random", seed=0)
    assert not equal_states(filled[0], random)


def test_the_file_decides_the_backbone_and_the_seed_the_rest(tmp_path: Path) -> None:
    path = write_state(tmp_path, library_state("timm/test_resnet", seed=4))
    one, two = (
        build_embedder("timm/test_resnet", 8, weights=str(path), seed=seed) for seed in (1, 2)
    )
    assert equal_states(one.features, two.features)
    assert not torch.equal(one.projection.weight, two.projection.weight)


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


# How the state of timm/test_resnet is changed, and what the message says besides the file's name.
DAMAGE: dict[str, tuple[Callable[[State], State], str]] = {
    "a missing key": (without("layer1.0.conv1.weight"), r"misses layer1\.0\.conv1\.weight: is"),
    "missing statistics": (without("bn1.running_mean"), r"misses bn1\.running_mean: is"),
    "a surplus key": (
        lambda s: s | {"layer9.weight": torch.zeros(2)},
        r"has besides layer9\.weigh",
    ),
    "another shape": (
        lambda s: s | {"bn1.weight": torch.ones(3)},
        r"has another shape of bn1\.wei",
    ),
    "prefixed keys": (
        lambda s: {f"module.{name}": value for name, value in s.items()},
        r"misses .* and \d+ more; has besides module\..* and \d+ more: is",
    ),
    "nothing": (lambda _: {"x": torch.zeros(1)}, "has besides x: is"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_other_keys_are_refused_by_name_and_fill_nothing(tmp_path: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    path = write_state(tmp_path, change(library_state("timm/test_resnet", seed=4)))
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(WeightsError, match=message) as caught:
            build_backbone("timm/test_resnet", pretrained=False, weights_file=path)
        assert str(caught.value).startswith(f"{path}: is not of this backbone: ")


def test_the_count_of_batches_may_be_missing(tmp_path: Path) -> None:
    """Older files lack it, and it changes no result."""
    state = library_state("timm/test_resnet", seed=4)
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters
    kept = {name: value for name, value in state.items() if name not in counters}
    built = build_embedder("timm/test_resnet", 8, weights=str(write_state(tmp_path, kept)), seed=0)
    assert torch.equal(built.features.get_parameter("conv1.0.weight"), state["conv1.0.weight"])


@pytest.mark.parametrize("content", [b"", b"no safetensors", bytes(200), None])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.safetensors: (there is no|is not a safet)"):
        build_embedder("timm/test_resnet", 8, weights=str(path), seed=0)


@pytest.mark.parametrize("weights", ["imagenet", "weights.pth", ""])
def test_other_words_are_no_weights(weights: str) -> None:
    with pytest.raises(
        ValueError, match=r"must be random, pretrained, package or the path of a \.saf"
    ):
        build_embedder("timm/test_resnet", 8, weights=weights, seed=0)


def params_with(folder: Path, weights: str, backbone: str = "timm/test_resnet") -> Params:
    changes = {
        "weights.emblems": weights,
        "datasets.emblems.network.weights": "file",
        "datasets.emblems.network.backbone": backbone,
    }
    return load_params(edited_params(folder, changes))


def test_files_are_checked_before_anything_runs(tmp_path: Path) -> None:
    path = write_state(tmp_path, library_state("timm/test_resnet", seed=4))
    assert network_faults(params_with(tmp_path, str(path))) == []
    (fault,) = network_faults(params_with(tmp_path, str(path), "timm/resnet18"))
    key = f"datasets.emblems.network.weights = 'file': {path}: "
    assert fault.startswith(f"{key}is not of this backbone: misses ")
    path.unlink()
    (fault,) = network_faults(params_with(tmp_path, str(path)))
    assert fault == f"{key}there is no such file"


def test_only_a_path_is_a_file() -> None:
    name = "timm/test_resnet"
    assert starting_file(name, "random") is starting_file(name, "pretrained") is None
    assert starting_file(name, "a/b.safetensors") == Path("a/b.safetensors")


def test_a_trained_network_does_not_need_the_file_again(tmp_path: Path) -> None:
    path = write_state(tmp_path, library_state("timm/test_resnet", seed=4))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.5, 1.0)
    network = build_embedder("timm/test_resnet", 8, weights=str(path), seed=0, mean=mean, std=std)
    card = NetworkCard("timm/test_resnet", 8, 32, mean, std)
    save_network(tmp_path / "network.safetensors", network, card)
    path.unlink()
    loaded, read = load_network(tmp_path / "network.safetensors", CPU)
    assert read == card
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), network.eval()(images))


def test_the_shared_imagenet_weights_fill_mobilenet_v2(shared: Path) -> None:
    """Origin: ../shared/weights; batch norms are folded, so that their statistics are 0 and 1."""
    path = shared / "weights" / "mobilenet_v2_imagenet.safetensors"
    built = build_embedder(
        "torchvision/mobilenet_v2", 8, weights=str(path), seed=0, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    state = load_file(path)
    own = built.features.state_dict()
    assert len(own) == 312 == len(state) - 2  # the classifier
    assert all(torch.equal(value, state[f"features.{name}"]) for name, value in own.items())
    assert own["18.1.running_mean"].abs().max() == 0
    with pytest.raises(WeightsError, match="is not of this backbone"):
        build_embedder("timm/mobilenetv2_100", 8, weights=str(path), seed=0)
