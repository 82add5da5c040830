"""Checkpoints: the old one or the new one, never half of one."""

from pathlib import Path

import pytest
import torch

from pipeline.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    take_checkpoint,
)
from pipeline.training.schedule import build_optimiser
from tests.made_training import tiny_embedder


def taken(rows: int) -> Checkpoint:
    network = tiny_embedder(seed=rows)
    optimiser, rates = build_optimiser(
        network,
        steps=5,
        learning_rate=0.1,
        weight_decay=0.0,
        warmup_share=0.3,
        initial_division=10,
    )
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    optimiser.step()
    rates.step()
    return take_checkpoint(network, optimiser, rates, [{"epoch": n + 1} for n in range(rows)])


def test_nothing_yet(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_round_trip(tmp_path: Path) -> None:
    first, second = taken(1), taken(2)
    for checkpoint in (first, second):
        save_checkpoint(tmp_path, checkpoint)
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        assert loaded.epochs == len(loaded.history) == checkpoint.epochs
        assert loaded.schedule == checkpoint.schedule
        assert loaded.optimiser["param_groups"] == checkpoint.optimiser["param_groups"]
        assert loaded.network.keys() == checkpoint.network.keys()
        for name, value in checkpoint.network.items():
            assert torch.equal(loaded.network[name], value)
    assert not torch.equal(first.network["projection.weight"], second.network["projection.weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_save_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, taken(1))

    def fail(_: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, taken(2))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.epochs == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
