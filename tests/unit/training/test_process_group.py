"""Several processes train as one does: real ones, over gloo."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline.training.process_group import ProcessGroup, joined_group, start_processes
from tests.group_training import run
from tests.made_training import CPU, made_pack

ROOT = Path(__file__).resolve().parents[3]


def trained(folder: Path, pack: Path, processes: int) -> dict[str, Any]:
    folder.mkdir()
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "tests.group_training", str(folder), str(pack)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("training: ") == 5  # one process tells, of each training
    return torch.load(folder / "states.pt", weights_only=True)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    made_pack(folder, 4, 3)
    return folder / "pack.arrow"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    run(folder, pack)
    return torch.load(folder / "states.pt", weights_only=True)


@pytest.mark.parametrize("processes", [2, 3])
def test_a_group_ends_where_one_process_does(
    tmp_path: Path, pack: Path, alone: dict[str, Any], processes: int
) -> None:
    together = trained(tmp_path / "group", pack, processes)
    assert together.keys() == alone.keys() == {"batch", "dataset", "student", "rival", "proxies"}
    for name, ours in together.items():
        expected = alone[name]
        for ours_row, row in zip(ours["history"], expected["history"], strict=True):
            assert ours_row == pytest.approx(row, rel=1e-5)
        for key, value in ours["network"].items():
            torch.testing.assert_close(value, expected["network"][key], rtol=1e-5, atol=1e-5)


def test_the_networks_have_learned(alone: dict[str, Any]) -> None:
    """Else the test above compares initial weights."""
    moved = [alone[name]["network"]["projection.weight"] for name in ("batch", "student")]
    assert (moved[0] - moved[1]).abs().max() > 1e-3
    for result in alone.values():
        first, last = (row["loss"] for row in result["history"])
        assert abs(first - last) > 1e-6


def test_parts_are_a_partition() -> None:
    for size in (1, 2, 3, 7):
        for images in (0, 1, 2, 5, 12):
            parts = [range(images)[ProcessGroup(rank, size).part(images)] for rank in range(size)]
            assert [image for part in parts for image in part] == list(range(images))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert ProcessGroup().is_main
    assert not ProcessGroup(1, 2).is_main


def test_another_number_of_processes_than_recorded_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"compute.processes = 2 in params.yaml, but 4"):
        joined_group(2, CPU).__enter__()


def test_a_stage_starts_its_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append(command))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "stages.distill", "a-16"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    start_processes(1)
    assert started == []
    start_processes(3)
    assert started == [
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
        + ["-m", "stages.distill", "a-16"]
    ]
    monkeypatch.setenv("L2S_TORCHRUN", "--nnodes=2 --nproc-per-node=2")
    start_processes(4)
    assert started[1][2:5] == ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    start_processes(3)
    assert len(started) == 2


def test_a_group_on_gpus_exchanges_what_lies_in_memory_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pool of embeddings and a checkpoint lie on the CPU, which NCCL cannot carry."""
    begun: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: begun.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for device in ("cuda", "cpu"):
        with joined_group(2, torch.device(device)) as group:
            assert group == ProcessGroup(1, 2)
    gpus, cpus = (dist.BackendConfig(dist.Backend(name)) for name in begun)
    assert gpus.get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}
    assert cpus.get_device_backend_map()["cpu"] == "gloo"
