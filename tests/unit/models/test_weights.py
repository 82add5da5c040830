"""Networks on disk, and networks from a seed."""

import hashlib
from pathlib import Path

import pytest
import torch

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
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_network(path, CPU)


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
