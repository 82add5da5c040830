"""Networks on disk, and networks from a seed."""

import hashlib
import json
import math
import socket
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.models import weights
from pipeline.models.weights import (
    NetworkCard,
    build_embedder,
    load_network,
    read_card,
    save_network,
)
from tests.made_training import CPU, equal_states

BACKBONE = "timm/test_resnet"
CARD = NetworkCard(BACKBONE, 16, 32)


def test_a_seed_fixes_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_embedder(BACKBONE, 16, weights="random", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = build_embedder(BACKBONE, 16, weights="random", seed=1)
    other = build_embedder(BACKBONE, 16, weights="random", seed=2)
    assert equal_states(first, again)
    assert not torch.equal(first.projection.weight, other.projection.weight)


def test_a_saved_network_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    network = build_embedder(BACKBONE, 16, weights="random", seed=3)
    network.train()(torch.rand(4, 3, 32, 32))  # moves the running statistics
    path = tmp_path / "deep" / "network.safetensors"
    save_network(path, network, CARD)
    loaded, card = load_network(path, CPU)
    assert card == read_card(path) == CARD
    assert equal_states(network, loaded)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), loaded(images))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        network = build_embedder(BACKBONE, 16, weights="random", seed=3)
        # The layout in memory is no part of the file.
        layout = torch.channels_last if number else torch.contiguous_format
        save_network(path, network.to(memory_format=layout), CARD)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_network_of_another_shape_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    network = build_embedder(BACKBONE, 16, weights="random", seed=3)
    save_network(path, network, NetworkCard(BACKBONE, 8, 32))
    with pytest.raises(ValueError, match="size mismatch: dim is 8, the projection gives 16"):
        load_network(path, CPU)


NO_CARD = "its card says .* size_px is 1 to 1024, colours 0 to 1"
CARDS: list[tuple[str, dict[str, object]]] = [
    ("must be timm/NAME or torchvision/NAME", {"backbone": "hf_hub:evil/x"}),
    ("timm has no 'hf_hub:evil/x'", {"backbone": "timm/hf_hub:evil/x"}),
    ("timm has no 'local-dir:/etc'", {"backbone": "timm/local-dir:/etc"}),
    (NO_CARD, {"backbone": 7}),
    (NO_CARD, {"size_px": 200_000}),
    (NO_CARD, {"size_px": 0}),
    (NO_CARD, {"size_px": 32.5}),
    (NO_CARD, {"dim": True}),
    ("size mismatch: dim is 2000000000", {"dim": 2_000_000_000}),
    (NO_CARD, {"mean": [math.nan] * 3}),
    (NO_CARD, {"std": [1, 1e30, 1]}),
    (NO_CARD, {"std": [1, 1]}),
    ("is not a network of this program", {"mean": ["red", 1, 1]}),
    ("is not a network of this program", {"licence": "none"}),
    ("cannot hold the network of its card", {"backbone": "timm/vit_giant_patch14_dinov2"}),
]


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(("says", "changes"), CARDS)
def test_a_card_is_judged_before_anything_is_built(
    tmp_path: Path, says: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name is looked up in the net, and not much more is allocated than the file has."""
    path = tmp_path / "network.safetensors"
    state = build_embedder(BACKBONE, 16, weights="random", seed=3).state_dict()
    card = json.dumps(asdict(CARD) | changes)
    save_file({n: v.contiguous() for n, v in state.items()}, path, metadata={"card": card})
    monkeypatch.setattr(weights, "HEADS_BYTES", 8 << 20)

    def look_up(*_: object) -> None:
        raise AssertionError("a name is looked up")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(ValueError, match=says):
        load_network(path, CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "network.safetensors"
    network = build_embedder(BACKBONE, 16, weights="random", seed=3)
    with torch.no_grad():
        network.projection.bias[3] = value
    save_network(path, network, CARD)
    with pytest.raises(ValueError, match=r"projection\.bias holds numbers that are not finite"):
        load_network(path, CPU)


@pytest.mark.parametrize("content", [b"", b"no network", b"\xff" * 64])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a network of this program"):
        read_card(path)
    for card in ({}, {"card": "[]"}, {"card": "null"}):
        save_file({"projection.weight": torch.zeros(2, 2)}, path, card)
        with pytest.raises(ValueError, match="is not a network of this program"):
            read_card(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "network.safetensors"
    network = build_embedder(BACKBONE, 16, weights="random", seed=3)
    save_network(path, network, CARD)
    old = path.read_bytes()

    def fail(_state: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("pipeline.models.weights.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_network(path, network, CARD)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
