"""dvc.lock: order, pruning, and repair of what a killed DVC left."""

import json
import os
import random
from pathlib import Path

import pytest

from pipeline.flows import lockfile
from pipeline.paths import LockConflictError, locked_outputs
from tests.sleepy_study import make_sleepy_study, serial_lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lock") / "study"
    make_sleepy_study(folder, seconds=0.0)
    serial_lock(folder)
    return folder


@pytest.fixture
def project(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project as the working folder; its dvc.lock is put back afterwards."""
    monkeypatch.chdir(finished)
    return finished


def names_of(text: str) -> list[str]:
    return [line[2:-1] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_is_brought_back_to_the_serial_bytes(project: Path, seed: int) -> None:
    serial = (project / "dvc.lock").read_text()
    order = names_of(serial)
    assert len(order) == 6
    mixed = list(order)
    random.Random(seed).shuffle(mixed)  # noqa: S311
    other = lockfile.sorted_lock(serial, mixed)
    assert names_of(other) == mixed
    assert lockfile.sorted_lock(other, order) == serial


def test_unknown_entries_come_last_and_named_ones_go(project: Path) -> None:
    serial = (project / "dvc.lock").read_text()
    order = names_of(serial)
    kept = lockfile.sorted_lock(serial, order[2:], without=order[4:5])
    assert names_of(kept) == [*order[2:4], *order[5:], *order[:2]]


def test_locked_outputs_have_their_hashes(project: Path) -> None:
    outputs = locked_outputs()
    assert list(outputs["prepare@a"]) == ["data/a/pack"]
    assert len(outputs["prepare@a"]["data/a/pack"]) == 32


def test_no_lock_is_no_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locked_outputs() == {}
    assert lockfile.heal_locks() == []
    lockfile.normalise_lock(["a"])
    assert not Path("dvc.lock").exists()


@pytest.mark.parametrize("end", [0, 30, 200, 701])
def test_lock_written_half_is_restored(project: Path, end: int) -> None:
    whole = Path("dvc.lock").read_text()
    lockfile.heal_locks()
    Path("dvc.lock").write_text(whole[:end] + ("\n  x: [" if end > 30 else ""))
    try:
        healed = lockfile.heal_locks()
        assert len(healed) == 1
        assert Path("dvc.lock").read_text() == whole
    finally:
        Path("dvc.lock").write_text(whole)


def test_conflict_markers_are_called_so_and_left_to_the_user(project: Path) -> None:
    whole = Path("dvc.lock").read_text()
    lockfile.heal_locks()
    merged = f"<<<<<<< HEAD\n{whole}=======\n{whole}>>>>>>> other\n"
    Path("dvc.lock").write_text(merged)
    try:
        with pytest.raises(LockConflictError, match=r"dvc\.lock: holds conflict markers"):
            lockfile.heal_locks()
        assert Path("dvc.lock").read_text() == merged
        with pytest.raises(LockConflictError, match="git checkout --ours"):
            locked_outputs()
    finally:
        Path("dvc.lock").write_text(whole)
    assert lockfile.GOOD_COPY.read_text() == whole


def test_broken_lock_is_not_kept_as_the_good_one(project: Path) -> None:
    whole = Path("dvc.lock").read_text()
    lockfile.heal_locks()
    Path("dvc.lock").write_text("stages: [")
    try:
        lockfile.heal_locks()
    finally:
        Path("dvc.lock").write_text(whole)
    assert lockfile.GOOD_COPY.read_text() == whole


def test_path_locks_written_half_are_removed(project: Path) -> None:
    lockfile.PATH_LOCKS.write_text('{"write": {"a":')
    assert len(lockfile.heal_locks()) == 1
    assert not lockfile.PATH_LOCKS.exists()


def test_path_locks_of_the_dead_go_and_of_the_living_stay(project: Path) -> None:
    arguments = Path("/proc/self/cmdline").read_bytes().decode().split("\0")
    mine = {"pid": os.getpid(), "cmd": "anything " + " ".join(arguments[-2:]).strip()}
    dead = {"pid": 2**22 + 1, "cmd": "dvc repro"}
    reused = {"pid": os.getppid(), "cmd": "dvc repro -s another"}
    text = json.dumps({"write": {"a": dead, "b": mine}, "read": {"c": [dead, mine]}})
    lockfile.PATH_LOCKS.write_text(text)
    assert lockfile.heal_locks() == []
    assert lockfile.PATH_LOCKS.read_text() == text
    for held in ({"write": {"a": dead}, "read": {}}, {"read": {"c": [dead], "d": [reused]}}):
        lockfile.PATH_LOCKS.write_text(json.dumps(held))
        assert lockfile.heal_locks() == ["released what a run that was stopped here had locked"]
        assert not lockfile.PATH_LOCKS.exists()
    lockfile.PATH_LOCKS.write_text('{"write": {}, "read": {}}')
    assert lockfile.heal_locks() == []
