"""What a part holds after a reply, by the bytes on the disk and the origin beside them."""

import io
import json
from pathlib import Path

import pytest

from pipeline.datasets import parts
from pipeline.datasets.parts import (
    CannotResumeError,
    PartOrigin,
    Reply,
    TransferError,
    drop_part,
    fill_part,
    known_bytes,
    read_origin,
)

OLD = PartOrigin("http://old", '"1"', 10)
NEW = PartOrigin("http://new", None, 10)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The first four bytes of ten."""
    path = tmp_path / "name.part"
    path.write_bytes(b"0123")
    (tmp_path / "name.part.json").write_text(json.dumps(OLD.__dict__))
    return path


def fill(part: Path, start: int, content: bytes, origin: PartOrigin = NEW) -> Path:
    reply = Reply(origin, start, io.BytesIO(content).read)
    return fill_part(part, reply, size_bytes=None, on_progress=None)


def holds(part: Path, content: bytes, origin: PartOrigin) -> bool:
    files = sorted(path.name for path in part.parent.iterdir())
    return (
        part.read_bytes() == content
        and read_origin(part) == origin
        and files == ["name.part", "name.part.json"]
    )


def test_a_reply_goes_on_from_the_part(part: Path) -> None:
    assert fill(part, 4, b"456789") == part
    assert holds(part, b"0123456789", NEW)


def test_a_cut_reply_stays_where_it_made_the_part_longer(part: Path) -> None:
    with pytest.raises(TransferError, match="cut off after 6 of 10 bytes"):
        fill(part, 4, b"45")
    assert holds(part, b"012345", NEW)
    for content in (b"", b"ab", b"abcdef"):
        with pytest.raises(TransferError, match=f"cut off after {len(content)} of 10 bytes"):
            fill(part, 0, content, OLD)
        assert holds(part, b"012345", NEW)
    with pytest.raises(TransferError, match="cut off after 7 of 10 bytes"):
        fill(part, 0, b"abcdefg", OLD)
    assert holds(part, b"abcdefg", OLD)


def test_a_reply_that_is_too_long_to_belong_to_the_part(part: Path) -> None:
    with pytest.raises(CannotResumeError, match="sends more than 10 bytes"):
        fill(part, 4, b"0123456789")
    assert holds(part, b"0123", OLD)


def test_a_whole_reply_that_is_too_long_leaves_nothing(part: Path) -> None:
    with pytest.raises(TransferError, match="sends more than 10 bytes"):
        fill(part, 0, b"0123456789?")
    assert holds(part, b"0123", OLD)  # its first chunk was too long already
    drop_part(part)
    with pytest.raises(TransferError, match="sends more than 10 bytes"):
        fill(part, 0, b"0123456789?")
    assert list(part.parent.iterdir()) == []


def test_a_whole_reply_that_is_shorter_lies_beside_the_part(part: Path) -> None:
    short = PartOrigin("http://short", None, 3)
    successor = fill(part, 0, b"new", short)
    assert successor.name == "name.part.new"
    assert successor.read_bytes() == b"new"
    assert part.read_bytes() == b"0123"
    assert read_origin(part) == OLD
    drop_part(part)
    assert list(part.parent.iterdir()) == []


def test_whoever_is_stopped_while_the_part_gives_way_leaves_none_described(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_write_origin", stop)
    with pytest.raises(KeyboardInterrupt):
        fill(part, 0, b"abcdefghij")
    assert read_origin(part) is None
    assert known_bytes(part) == 0
    assert not part.with_name("name.part.new").exists()
