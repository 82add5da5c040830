"""What makes a fingerprint change."""

from pathlib import Path

import pytest

from pipeline.tracking.record import fingerprint


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


def test_a_missing_input_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        fingerprint({}, [tmp_path / "absent"])
