"""Downloads that are cut, resumed, or sent anew."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.datasets import fetching
from pipeline.datasets.fetching import FetchError, fetch_file
from pipeline.datasets.published import PublishedFile
from tests.loopback_web import CONTENT, Website, names_in, published


def leave_part(folder: Path, content: bytes, address: str) -> None:
    """What an earlier call left: the beginning of a file that came from an address."""
    (folder / "file.bin.part").write_bytes(content)
    origin = {"address": address, "validator": '"v1"'}
    (folder / "file.bin.part.json").write_text(json.dumps(origin))


def test_a_cut_transfer_is_resumed(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "cut:200000"]
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert names_in(tmp_path) == ["file.bin"]


def test_the_next_call_resumes_what_the_last_left(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    website.behaviours = ["cut:400000"]
    file = published(website.address())
    with pytest.raises(FetchError, match="cut off after 400000 of 1048576 bytes"):
        fetch_file(file, tmp_path)
    assert names_in(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT
    assert website.ranges[-1] == "bytes=400000-"


def test_a_server_without_ranges_begins_anew(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "no_range"]
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_changed_since_is_brought_anew(
    told: bool, website: Website, tmp_path: Path
) -> None:
    """By the ETag the server begins anew; where that lies, the checksum finds the mixture."""
    leave_part(tmp_path, bytes(300000), website.address())
    website.etag = '"v2"' if told else '"v1"'
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == (["bytes=300000-"] if told else ["bytes=300000-", None])


def test_a_file_that_became_shorter_is_brought_anew(website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, CONTENT[:300000], website.address())
    website.content = b"new"
    sha256 = hashlib.sha256(b"new").hexdigest()
    file = PublishedFile("file.bin", website.address(), sha256=sha256)
    assert fetch_file(file, tmp_path).path.read_bytes() == b"new"
    assert website.ranges == ["bytes=300000-", None]


@pytest.mark.parametrize(("etag", "place"), [(None, "file.bin"), ('"v1"', "elsewhere")])
def test_a_part_that_no_server_vouches_for_is_brought_anew(
    etag: str | None, place: str, website: Website, tmp_path: Path
) -> None:
    website.etag = etag
    website.behaviours = ["cut:300000"]
    if etag:
        leave_part(tmp_path, bytes(9), website.address(place))
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == ([None, "bytes=300000-"] if etag else [None, None])


def test_a_server_that_resumes_elsewhere(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "wrong_place"]
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", None]


def test_a_part_of_unknown_origin_is_not_resumed(website: Website, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [None]


def test_a_complete_part_is_not_brought_again(website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, CONTENT, website.address())
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [f"bytes={len(CONTENT)}-"]


def test_attempts_that_bring_something_are_not_counted(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cuts each reply after a tenth of the file."""
    website.behaviours = ["cut:104858"] * 10
    monkeypatch.setattr(fetching, "ATTEMPTS", 2)
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None] + [f"bytes={104858 * tenth}-" for tenth in range(1, 10)]


def test_the_waits_begin_anew_after_progress(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("pipeline.datasets.fetching.time.sleep", waits.append)
    website.behaviours = ["500", "500", "cut:1000", "500", "cut:0", "500"]
    monkeypatch.setattr(fetching, "ATTEMPTS", 5)
    monkeypatch.setattr(fetching, "BACKOFF_S", 1.0)
    fetch_file(published(website.address()), tmp_path)
    assert waits == [1.0, 2.0, 1.0, 2.0, 4.0, 8.0]


def test_a_part_that_grows_again_is_no_progress(website: Website, tmp_path: Path) -> None:
    """Wrong bytes in two pieces, for ever: dropped and brought again to the same length."""
    website.content = bytes(len(CONTENT))
    website.behaviours = ["cut:600000", "ok"] * 50
    with pytest.raises(FetchError, match="cut off"):
        fetch_file(published(website.address()), tmp_path)
    assert website.ranges == [None, "bytes=600000-", None]


def test_progress_is_told_from_where_the_part_ends(
    website: Website, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    website.content = CONTENT * 5
    website.behaviours = ["cut:3000000"]
    file = published(website.address(), content=website.content)
    assert fetch_file(file, tmp_path).size_bytes == 5 << 20
    assert "downloading file.bin: 5/5 MB" in capsys.readouterr().err
    (tmp_path / "file.bin").unlink()
    website.behaviours = ["no_length"]
    fetch_file(PublishedFile("file.bin", website.address(), md5=file.md5), tmp_path)
    assert "downloading file.bin: 5/5 MB" in capsys.readouterr().err


def test_a_server_that_never_tells_the_length_is_resumed(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["no_length:300000", "no_length:200000", "no_length"]
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_page_taken_for_a_part_costs_one_round(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["page"]
    fetched = fetch_file(published(website.address()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, None]
    assert names_in(tmp_path) == ["file.bin"]


def test_a_part_longer_than_the_file_is_dropped(website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, CONTENT, website.address())
    with (tmp_path / "file.bin.part").open("ab") as part:
        part.write(b"more")
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [f"bytes={len(CONTENT) + 4}-", None]
