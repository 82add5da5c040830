"""What makes a fingerprint change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking import record
from pipeline.tracking.record import fingerprint

ROOT = Path(__file__).resolve().parents[3]


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
        "import stages.loaded, pipeline.tracking.record as w; print(w.fingerprint({}, []))"
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


def test_code_is_that_of_the_two_packages() -> None:
    assert record.CODE == ("pipeline", "stages")


def test_a_fingerprint_can_be_made_at_a_prompt() -> None:
    program = "import pipeline.tracking.record as w; print(w.fingerprint({}, []))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 20
