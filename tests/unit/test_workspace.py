"""Fingerprints, work folders, and how a stage ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import workspace
from pipeline.workspace import (
    DatasetPaths,
    close_work_folder,
    fingerprint,
    history_path,
    open_work_folder,
    run_stage,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_fingerprint_changes_with_parameters_and_inputs(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("one")
    second.write_text("two")
    settings = {"seed": 0, "nested": {"a": 1.0, "b": [1, 2]}}
    mark = fingerprint(settings, [first, second])
    assert len(mark) == 20
    assert mark == fingerprint({"nested": {"b": [1, 2], "a": 1.0}, "seed": 0}, [second, first])
    marks = {
        mark,
        fingerprint(settings | {"seed": 1}, [first, second]),
        fingerprint(settings | {"nested": {"a": 1.0, "b": [2, 1]}}, [first, second]),
        fingerprint(settings, [first]),
        fingerprint(settings, []),
    }
    first.write_text("two")
    marks.add(fingerprint(settings, [first, second]))
    first.write_text("one")
    first.rename(tmp_path / "third")
    marks.add(fingerprint(settings, [tmp_path / "third", second]))
    assert len(marks) == 7


def test_a_fingerprint_changes_with_the_code_that_is_loaded(tmp_path: Path) -> None:
    """In a repository of its own: an edit of a loaded module matters, of an idle one not."""
    (tmp_path / "stages").mkdir()
    for name in ("__init__", "loaded", "idle"):
        (tmp_path / "stages" / f"{name}.py").write_text("value = 1\n")
    (tmp_path / "program.py").write_text(
        "import stages.loaded, pipeline.workspace as w; print(w.fingerprint({}, []))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "program.py"]

    def mark() -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    first = mark()
    (tmp_path / "stages" / "idle.py").write_text("value = 2\n")
    assert mark() == first
    (tmp_path / "stages" / "loaded.py").write_text("value = 2\n")
    assert mark() != first


def test_a_missing_input_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        fingerprint({}, [tmp_path / "absent"])


def test_an_interrupted_run_finds_its_folder_again() -> None:
    folder = open_work_folder("distill", "a", "mark1")
    (folder / "checkpoint.pt").write_text("state")
    assert folder == Path(".work/distill/a/mark1")
    assert open_work_folder("distill", "a", "mark1") == folder
    assert (folder / "checkpoint.pt").read_text() == "state"


def test_other_fingerprints_are_cleared_and_other_keys_are_not() -> None:
    old = open_work_folder("distill", "a", "mark1")
    other_key, other_stage = (
        open_work_folder("distill", "b", "mark1"),
        open_work_folder("train_teacher", "a", "mark1"),
    )
    new = open_work_folder("distill", "a", "mark2")
    assert not old.exists()
    assert all(folder.is_dir() for folder in (new, other_key, other_stage))


def test_a_finished_run_starts_anew_only_once_its_result_is_locked() -> None:
    result = Path("model.safetensors")
    result.write_bytes(b"weights")
    folder = open_work_folder("distill", "a", "mark1")
    (folder / "checkpoint.pt").write_text("state")
    close_work_folder(folder, result)
    # Killed before DVC took note of the result: the work is not done twice.
    assert (open_work_folder("distill", "a", "mark1") / "checkpoint.pt").exists()
    Path("dvc.lock").write_text("outs:\n  md5: 00000000000000000000000000000000\n")
    assert (open_work_folder("distill", "a", "mark1") / "checkpoint.pt").exists()
    Path("dvc.lock").write_text("outs:\n  md5: 67b0acc2afc0ff1e9051b2f6af88a2e3\n")
    md5 = (folder / "result.md5").read_text()
    Path("dvc.lock").write_text(f"outs:\n  md5: {md5}\n")
    again = open_work_folder("distill", "a", "mark1")
    assert again == folder
    assert list(again.iterdir()) == []


def test_paths_of_a_data_set_are_its_own() -> None:
    first, second = DatasetPaths("a"), DatasetPaths("b")
    for kind in ("source", "pack", "teacher", "database", "index", "results"):
        assert getattr(first, kind) != getattr(second, kind)
    assert first.student("x") != first.baseline("x")
    assert history_path(first.student("x-32")) == Path("models/a/students/x-32.csv")


def run_with(monkeypatch: pytest.MonkeyPatch, arguments: list[str], stage) -> int:
    monkeypatch.setattr(sys, "argv", ["stages/made.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_stage(stage)
    return caught.value.code


@pytest.mark.parametrize("error", [ValueError, ArithmeticError, OSError, FileNotFoundError])
def test_a_users_error_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    def stage(key: str) -> None:
        raise error(f"{key} is wrong")

    assert run_with(monkeypatch, ["cub"], stage) == 2
    assert capsys.readouterr().err == "error: cub is wrong\n"


def test_the_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(_: str) -> None:
        raise ValueError("wrong")

    monkeypatch.setenv("L2S_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["stages/made.py", "key"])
    with pytest.raises(ValueError, match="wrong"):
        run_stage(stage)


def test_an_error_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(_: str) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(sys, "argv", ["stages/made.py", "key"])
    with pytest.raises(TypeError, match="ours"):
        run_stage(stage)


def test_a_stage_runs_for_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "argv", ["stages/made.py", "emblems-32"])
    run_stage(seen.append)
    assert seen == ["emblems-32"]


def test_a_key_that_params_yaml_does_not_have_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(key: str) -> None:
        assert {"emblems-64": 64}[key]

    assert run_with(monkeypatch, ["emblems-65"], stage) == 2
    assert capsys.readouterr().err == "error: params.yaml has no 'emblems-65'\n"
    with pytest.raises(KeyError):  # another key that is missing is a fault of ours
        run_with(monkeypatch, ["emblems-65"], lambda _: {}["other"])


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_wrong_usage_is_told_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run_with(monkeypatch, arguments, lambda _: None) == 2
    assert "usage: python -m stages.made KEY" in capsys.readouterr().err


def test_code_is_that_of_the_two_packages() -> None:
    assert workspace.CODE == ("pipeline", "stages")


def test_a_fingerprint_can_be_made_at_a_prompt() -> None:
    program = "import pipeline.workspace as w; print(w.fingerprint({}, []))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 20
