"""Processes that search seldom for garbage."""

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.quick_start import quick_command

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import gc
import sys
import weakref


class Cycle:
    def __init__(self):
        self.itself = self


lost = weakref.ref(Cycle())
kept = Cycle()
weakref.finalize(kept, print, "finalizers run").atexit = True
print(__name__, sys.argv[1:], sys.modules["__main__"].kept is kept)
print(gc.get_threshold()[0], lost() is None)
"""
# Says at the very end of a process how it stood with its garbage.
WITNESS = """
import atexit
import gc
import sys

@atexit.register
def say():
    sys.stderr.write(f"{gc.get_threshold()[0]} {gc.get_freeze_count() > 5000}\\n")
"""


def run(folder: Path, command: list[str]) -> tuple[int, list[str], str]:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_a_module_runs_as_by_python_itself(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(MODULE)
    code, lines, errors = run(tmp_path, [*quick_command("made"), "a", "-b"])
    assert (code, errors) == (0, "")
    # Its garbage was not looked for, and what it asked to do at its end was done.
    assert lines == ["__main__ ['a', '-b'] True", "100000 False", "finalizers run"]
    _, lines, _ = run(tmp_path, [sys.executable, "-m", "made", "a", "-b"])
    assert lines == ["__main__ ['a', '-b'] True", "700 False", "finalizers run"]


@pytest.mark.parametrize(("ending", "code"), [("raise SystemExit(7)", 7), ("1 / 0", 1)])
def test_a_module_ends_as_by_python_itself(tmp_path: Path, ending: str, code: int) -> None:
    (tmp_path / "made.py").write_text(f"print('written', end='')\n{ending}\n")
    assert run(tmp_path, quick_command("made"))[:2] == (code, ["written"])


@pytest.mark.parametrize(
    ("arguments", "begins", "searches"),
    [([], "usage: python -m stages.report KEY", 100_000), (["study"], "error: params.yaml", 700)],
)
def test_a_stage_searches_seldom_until_its_imports_are_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    begins: str,
    searches: int,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    code, _, errors = run(tmp_path, [sys.executable, "-m", "stages.report", *arguments])
    first, *_, last = errors.splitlines()
    assert (code, first[: len(begins)], last) == (2, begins, f"{searches} True")


def test_importing_stages_changes_nothing() -> None:
    before = gc.get_threshold()
    importlib.reload(importlib.import_module("stages"))
    assert gc.get_threshold() == before


@pytest.mark.parametrize("other", ["json", "triton"])
def test_where_triton_is_loaded_all_is_taken_apart_at_the_end(tmp_path: Path, other: str) -> None:
    """Else it writes a hundred lines of what leaked into the output of a stage."""
    (tmp_path / "made.py").write_text(
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from pipeline.quick_start import collect_as_usual, collect_seldom\n"
        f"sys.modules[{other!r}] = sys\n"
        "collect_seldom()\n"
        "collect_as_usual()\n"
    )
    _, lines, _ = run(tmp_path, [sys.executable, "-m", "made"])
    assert lines == [str(other != "triton")]
