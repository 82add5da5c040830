"""Where things lie."""

from pathlib import Path

import pytest

from pipeline.paths import DatasetPaths, history_path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_paths_of_a_data_set_are_its_own() -> None:
    first, second = DatasetPaths("a"), DatasetPaths("b")
    for kind in ("source", "pack", "teacher", "database", "index", "results"):
        assert getattr(first, kind) != getattr(second, kind)
    assert first.student("x") != first.baseline("x")
    assert history_path(first.student("x-32")) == Path("models/a/students/x-32.csv")
