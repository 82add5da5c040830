"""Checkpoints: the old one or the new one, never half of one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.schedule import build_optimiser
from tests.made_training import schedule, tiny_embedder


def trained(rows: int) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """A network, its optimiser and schedule after a step, and a history of `rows` epochs."""
    network = tiny_embedder(seed=rows)
    optimiser, rates = build_optimiser(network, schedule(), steps=5)
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    optimiser.step()
    rates.step()
    parts = {"network": network, "optimiser": optimiser, "schedule": rates}
    return parts, [{"epoch": n + 1} for n in range(rows)]


def test_nothing_yet(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_round_trip(tmp_path: Path) -> None:
    first, second = trained(1), trained(2)
    for parts, history in (first, second):
        save_checkpoint(tmp_path, parts, history)
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        assert loaded["history"] == history
        assert loaded["schedule"] == parts["schedule"].state_dict()
        groups = parts["optimiser"].state_dict()["param_groups"]
        assert loaded["optimiser"]["param_groups"] == groups
        state = parts["network"].state_dict()
        assert loaded["network"].keys() == state.keys()
        for name, value in state.items():
            assert torch.equal(loaded["network"][name], value)
    projections = [parts["network"].projection.weight for parts, _ in (first, second)]
    assert not torch.equal(*projections)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_save_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, *trained(1))

    def fail(_: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, *trained(2))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert len(loaded["history"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
