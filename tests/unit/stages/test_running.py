"""How a stage runs and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages import run_stage
from tests.integration.workspace import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_a_message_that_names_the_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def stage(_: str) -> None:
        raise error

    monkeypatch.setattr("resource.getrlimit", lambda _: (2 << 30, -1))
    assert run_with(monkeypatch, ["cub"], stage) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: too little memory ({str(error) or 'MemoryError'})")
    assert told.endswith("; `ulimit -v` allows a process 2048 MiB: raise it\n")


def test_the_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(_: str) -> None:
        raise ValueError("wrong")

    monkeypatch.setenv("L2S_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["stages/made.py", "key"])
    with pytest.raises(ValueError, match="wrong"):
        run_stage(stage)


@pytest.mark.parametrize("error", [TypeError, RuntimeError, ImportError, KeyError])
def test_an_error_of_our_own_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def stage(_: str) -> None:
        raise error("ours")

    monkeypatch.setattr(sys, "argv", ["stages/made.py", "key"])
    with pytest.raises(error, match="ours"):
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


def test_a_stage_that_is_stopped_shows_no_traceback(tmp_path: Path) -> None:
    """Wherever it is, among the imports too; its end is that of the signal."""
    for number, stop in enumerate(("raise KeyboardInterrupt", "os.kill(os.getpid(), 2)")):
        name = f"stopped{number}"
        (tmp_path / f"{name}.py").write_text(f"import os\nimport stages\n{stop}\n")
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv[0] = '-m'; import {name}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (-signal.SIGINT, "stopped\n")
