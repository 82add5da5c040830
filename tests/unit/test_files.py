"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from pipeline.files import replacing, write_json, write_text


def test_text_and_json_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for text in ("first\n", "zweiter: ä\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    write_json(path, {"b": [1, 2.5], "a": None})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": None, "b": [1, 2.5]}
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": 2})
    write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise error

    with pytest.raises(error), replacing(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"map": float("nan")})
    assert list(tmp_path.iterdir()) == []
