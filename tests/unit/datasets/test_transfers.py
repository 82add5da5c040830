"""Downloads that are cut, resumed, or sent anew: a longer part gives way to no worse source."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.datasets import transfers
from pipeline.datasets.fetching import FetchError, Patience, fetch_file
from pipeline.datasets.published import PublishedFile
from tests.loopback_web import CONTENT, HASTE, Website, names_in, published


def leave_part(folder: Path, length_bytes: int, address: str) -> None:
    """What an earlier call left: the first bytes of the content, which came from an address."""
    (folder / "file.bin.part").write_bytes(CONTENT[:length_bytes])
    origin = {"address": address, "validator": '"v1"', "total_bytes": len(CONTENT)}
    (folder / "file.bin.part.json").write_text(json.dumps(origin))


def assert_left(folder: Path, length_bytes: int, address: str) -> None:
    """Nothing but a part of the content, and where it comes from."""
    assert names_in(folder) == ["file.bin.part", "file.bin.part.json"]
    assert (folder / "file.bin.part").read_bytes() == CONTENT[:length_bytes]
    origin = json.loads((folder / "file.bin.part.json").read_text())
    assert origin == {"address": address, "validator": '"v1"', "total_bytes": len(CONTENT)}


def test_a_cut_transfer_is_resumed(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "cut:200000"]
    fetched = fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert names_in(tmp_path) == ["file.bin"]


def test_the_next_call_resumes_what_the_last_left(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:400000"]
    file = published(website.address())
    with pytest.raises(FetchError, match=r"cut off after 400000 of 1048576 bytes \(1 attempt\)"):
        fetch_file(file, tmp_path, patience=Patience(attempts=1))
    assert names_in(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT
    assert website.ranges[-1] == "bytes=400000-"


def test_a_server_without_ranges_begins_anew(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "no_range"]
    fetched = fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_file_that_changes_between_attempts(
    etag: str | None, website: Website, tmp_path: Path
) -> None:
    """With an ETag the server begins anew; without, the checksum finds the mixture."""
    website.etag = etag
    website.content = bytes(len(CONTENT))
    website.behaviours = ["cut:300000"]
    file = published(website.address())
    with pytest.raises(FetchError):
        fetch_file(file, tmp_path, patience=Patience(attempts=1))
    website.content, website.etag = CONTENT, etag and '"v2"'
    assert fetch_file(file, tmp_path, patience=HASTE).path.read_bytes() == CONTENT
    whole_anew = ["bytes=300000-"] if etag else ["bytes=300000-", None]
    assert website.ranges[1:] == whole_anew


def test_a_length_that_changes_between_attempts(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000"]
    file = PublishedFile(
        "file.bin", (website.address(),), sha256=hashlib.sha256(b"new").hexdigest()
    )
    with pytest.raises(FetchError):
        fetch_file(file, tmp_path, patience=Patience(attempts=1))
    website.content = b"new"
    assert fetch_file(file, tmp_path, patience=HASTE).path.read_bytes() == b"new"


def test_a_server_that_resumes_elsewhere(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:300000", "wrong_place"]
    fetched = fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", None]


def test_a_part_of_unknown_origin_is_not_resumed(website: Website, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.bin.part.json").write_text("{")
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [None]


def test_a_complete_part_needs_no_request(website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, len(CONTENT), website.address())
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == []


def test_attempts_that_bring_something_are_not_counted(website: Website, tmp_path: Path) -> None:
    """A server that cuts each reply after a tenth of the file."""
    website.behaviours = ["cut:104858"] * 10
    patience = Patience(attempts=2, backoff_s=0.0)
    fetched = fetch_file(published(website.address()), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None] + [f"bytes={104858 * tenth}-" for tenth in range(1, 10)]


def test_the_waits_begin_anew_after_progress(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("pipeline.datasets.fetching.time.sleep", waits.append)
    website.behaviours = ["500", "500", "cut:1000", "500", "cut:0", "500"]
    patience = Patience(attempts=5, backoff_s=1.0)
    fetch_file(published(website.address()), tmp_path, patience=patience)
    assert waits == [1.0, 2.0, 1.0, 2.0, 4.0, 8.0]


def test_a_part_that_grows_again_is_no_progress(website: Website, tmp_path: Path) -> None:
    """Wrong bytes in two pieces, for ever: dropped and brought again to the same length."""
    website.content = bytes(len(CONTENT))
    website.behaviours = ["cut:600000", "ok"] * 50
    with pytest.raises(FetchError, match=r"\(3 attempts\)"):
        fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert website.ranges == [None, "bytes=600000-", None]


def test_a_login_page_leaves_the_part(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["cut:400000", "page", "page"]
    file = published(website.address())
    with pytest.raises(FetchError, match=r"cut off after 18 of 1048576 bytes \(3 attempts"):
        fetch_file(file, tmp_path, patience=HASTE)
    assert_left(tmp_path, 400000, website.address())
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [None] + ["bytes=400000-"] * 3


@pytest.mark.parametrize("page", ["page", "page_told"])
def test_a_login_page_in_place_of_a_file_of_unknown_length(
    page: str, website: Website, tmp_path: Path
) -> None:
    """It is whole by all that is known: the checksum refuses it, and it alone is removed."""
    leave_part(tmp_path, 400000, website.address())
    website.behaviours = [page]
    file = PublishedFile("file.bin", (website.address(),), md5=published().md5)
    with pytest.raises(FetchError, match=r"gave another file: md5 .* \(1 attempt\)"):
        fetch_file(file, tmp_path, patience=HASTE)
    assert_left(tmp_path, 400000, website.address())
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT


def test_a_part_gives_way_to_a_longer_one_only(website: Website, tmp_path: Path) -> None:
    """Servers without ranges, each of which cuts its reply."""
    leave_part(tmp_path, 400000, "http://first.example")
    once = Patience(attempts=1)
    for cut, left, origin in (
        (100000, 400000, "http://first.example"),
        (400000, 400000, "http://first.example"),
        (500000, 500000, website.address("longer")),
    ):
        website.behaviours = ["no_range:" + str(cut)]
        with pytest.raises(FetchError, match=f"cut off after {cut} of 1048576 bytes"):
            fetch_file(published(website.address("longer")), tmp_path, patience=once)
        assert_left(tmp_path, left, origin)
    fetch_file(published(website.address("last")), tmp_path)
    assert website.ranges[-1] == "bytes=500000-"


def test_progress_is_told_from_where_the_part_ends(
    website: Website, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    website.content = CONTENT * 5
    website.behaviours = ["cut:3000000"]
    file = published(website.address(), content=website.content)
    assert fetch_file(file, tmp_path, patience=HASTE).size_bytes == 5 << 20
    assert "downloading file.bin: 5/5 MB" in capsys.readouterr().err
    (tmp_path / "file.bin").unlink()
    website.behaviours = ["no_length"]
    fetch_file(PublishedFile("file.bin", (website.address(),), md5=file.md5), tmp_path)
    assert "downloading file.bin: 5/5 MB" in capsys.readouterr().err


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_server_that_never_tells_the_length_is_resumed(
    etag: str | None, website: Website, tmp_path: Path
) -> None:
    website.etag = etag
    website.behaviours = ["no_length:300000", "no_length:200000", "no_length"]
    fetched = fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_page_taken_for_a_part_costs_one_round(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["page"]
    fetched = fetch_file(published(website.address()), tmp_path, patience=HASTE)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=18-", None]
    assert names_in(tmp_path) == ["file.bin"]


def test_a_page_of_one_address_costs_the_next_one_round(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["page"] * 2
    file = published(website.address("page"), website.address("good"))
    patience = Patience(attempts=2, backoff_s=0.0)
    fetched = fetch_file(file, tmp_path, patience=patience)
    assert fetched.path.read_bytes() == CONTENT
    assert website.ranges == [None, "bytes=18-", "bytes=18-", None]


@pytest.mark.parametrize("lie", ["whole_again", "wrong_place"])
def test_a_lie_about_the_place_leaves_the_part(lie: str, website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, 400000, "http://first.example")
    website.behaviours = [lie, "no_range:1000"]
    file = published(website.address())
    with pytest.raises(FetchError, match="cut off after 1000 of 1048576"):
        fetch_file(file, tmp_path, patience=Patience(attempts=1))
    assert_left(tmp_path, 400000, "http://first.example")
    assert website.ranges == ["bytes=400000-", None]


def test_a_part_longer_than_the_file_is_dropped(website: Website, tmp_path: Path) -> None:
    leave_part(tmp_path, len(CONTENT), website.address())
    with (tmp_path / "file.bin.part").open("ab") as part:
        part.write(b"more")
    assert fetch_file(published(website.address()), tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [None]


def test_a_server_that_denies_what_follows_is_asked_for_the_whole(
    website: Website, tmp_path: Path
) -> None:
    """A part that was whole, of a server that tells no length, when its reader was stopped."""
    leave_part(tmp_path, len(CONTENT), website.address())
    origin = {"address": website.address(), "validator": '"v1"', "total_bytes": None}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(origin))
    website.behaviours = ["no_length", "no_length"]
    file = PublishedFile("file.bin", (website.address(),), md5=published().md5)
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT
    assert website.ranges == [f"bytes={len(CONTENT)}-", None]
    assert names_in(tmp_path) == ["file.bin"]


def test_whoever_is_stopped_while_the_part_gives_way_leaves_none_described(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    leave_part(tmp_path, 4, "http://first.example")
    monkeypatch.setattr(transfers, "write_json", stop)
    website.behaviours = ["no_range:1000"]
    with pytest.raises(KeyboardInterrupt):
        fetch_file(published(website.address()), tmp_path)
    assert names_in(tmp_path) == ["file.bin.part"]
