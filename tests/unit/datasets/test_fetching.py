"""Published files: given, downloaded from a loopback server, or refused for a reason."""

import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.datasets.cars196 import read_cars_halves
from pipeline.datasets.fetching import (
    FetchError,
    describe_files,
    download_files,
    fetch_file,
    given_files,
    take_file,
)
from pipeline.datasets.published import Archive, PublishedFile
from pipeline.datasets.sources import DATASETS
from tests.loopback_web import CONTENT, Website, names_in, published


def test_a_whole_download(website: Website, tmp_path: Path) -> None:
    fetched = fetch_file(published(website.address()), tmp_path / "new")
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.path == tmp_path / "new" / "file.bin"
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert not fetched.subset
    assert names_in(tmp_path / "new") == ["file.bin"]


def test_an_earlier_download_is_verified_and_kept(website: Website, tmp_path: Path) -> None:
    file = published(website.address())
    fetch_file(file, tmp_path)
    assert fetch_file(file, tmp_path).path == tmp_path / "file.bin"
    assert len(website.ranges) == 1
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1] + b"?")
    assert fetch_file(file, tmp_path).path.read_bytes() == CONTENT
    assert len(website.ranges) == 2


def test_slow_is_no_failure(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["slow"]
    fetch_file(published(website.address()), tmp_path)
    assert website.ranges == [None]


def test_a_silent_server_is_given_up_and_the_next_attempt_succeeds(
    website: Website, tmp_path: Path
) -> None:
    website.behaviours = ["stall"]
    assert fetch_file(published(website.address()), tmp_path).size_bytes
    assert len(website.ranges) == 2


def test_unknown_length(website: Website, tmp_path: Path) -> None:
    website.behaviours = ["no_length"]
    file = PublishedFile("file.bin", website.address(), md5=published().md5)
    assert fetch_file(file, tmp_path).size_bytes == len(CONTENT)


def test_wrong_bytes_leave_nothing_and_are_not_asked_for_again(
    website: Website, tmp_path: Path
) -> None:
    website.content = bytes(len(CONTENT))
    file = published(website.address())
    with pytest.raises(FetchError) as caught:
        fetch_file(file, tmp_path)
    assert names_in(tmp_path) == []
    assert len(website.ranges) == 1
    message = str(caught.value)
    assert f"{file.address}: gave another file: md5 " in message
    assert "\n" not in message


def test_the_address_and_the_reason_are_named(website: Website, tmp_path: Path) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    dead = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    closed.close()
    website.content = b"an error page"
    for behaviours, address, reason, requests in (
        (["404"], website.address(), "HTTP 404 Not Found", 1),
        (["503"] * 3, website.address(), "HTTP 503 Service Unavailable", 3),
        ([], website.address(), "offers 13 bytes, expected 1048576", 1),
        ([], dead, "[Errno 111] Connection refused", 0),
    ):
        website.behaviours, before = behaviours, len(website.ranges)
        with pytest.raises(FetchError) as caught:
            fetch_file(published(address), tmp_path)
        assert f"{address}: {reason}; " in str(caught.value)
        assert len(website.ranges) - before == requests
        assert not (tmp_path / "file.bin").exists()


def test_more_bytes_than_published_are_refused_early(website: Website, tmp_path: Path) -> None:
    website.content = CONTENT * 2
    website.behaviours = ["no_length"]
    with pytest.raises(FetchError, match="sends more than 1048576 bytes"):
        fetch_file(published(website.address()), tmp_path)
    assert names_in(tmp_path) == []


def test_backoff_doubles(website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("pipeline.datasets.fetching.time.sleep", waits.append)
    monkeypatch.setattr("pipeline.datasets.fetching.ATTEMPTS", 4)
    monkeypatch.setattr("pipeline.datasets.fetching.BACKOFF_S", 1.5)
    website.behaviours = ["500"] * 3
    fetch_file(published(website.address()), tmp_path)
    assert waits == [1.5, 3.0, 6.0]


def test_a_full_disk_is_noticed_first(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 7})
    monkeypatch.setattr("pipeline.datasets.fetching.shutil.disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match="1048576 bytes are needed, 7 are free"):
        fetch_file(published(website.address()), tmp_path)
    assert website.ranges == []


def test_a_file_on_disk_is_used_where_it_lies(tmp_path: Path) -> None:
    copy = tmp_path / "copy.bin"
    copy.write_bytes(CONTENT)
    for accepted in (False, True):  # the published file is no subset even if one is accepted
        found = take_file(published(), copy, accept_subset=accepted)
        assert (found.path, found.subset) == (copy, False)


def test_an_altered_archive_is_refused_or_a_subset(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for content, reason in (
        (CONTENT[:-1], "size_bytes 1048575, expected 1048576"),
        (CONTENT[:-1] + b"?", "md5 "),
    ):
        path.write_bytes(content)
        with pytest.raises(FetchError, match=f"not the published file.bin: {reason}"):
            take_file(published(), path, accept_subset=False)
        part = take_file(published(), path, accept_subset=True)
        assert part.subset
        assert part.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_archives_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no such file"):
        take_file(published(), tmp_path / "absent.tgz", accept_subset=True)
    with pytest.raises(FetchError, match="no address is known"):
        fetch_file(published(), tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(FetchError, match=r"empty: is empty \(0 bytes\)"):
        take_file(published(), tmp_path / "empty", accept_subset=True)


def test_the_data_sets_are_complete() -> None:
    assert set(DATASETS) == {"cub200", "cars196", "sop"}
    archives = [one for dataset in DATASETS.values() for one in dataset.archives.values()]
    files = [file for archive in archives for file in archive.files]
    assert len(files) == 1 + 2 + 4 + 1 + 8
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert file.md5 is not None or file.sha256 is not None
        assert (file.address or "https://").startswith(("https://", "http://"))
    counts = DATASETS["cars196"].counts
    assert counts is not None
    assert counts.train_images + counts.test_images == 16185


CONTENTS = {"cars_train.tgz": b"train" * 500_000, "cars_test.tgz": b"test" * 10}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing on stderr, where the bar is looked for."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback that offers CONTENTS."""
    monkeypatch.setenv("no_proxy", "*")
    site = tmp_path / "site"
    site.mkdir()
    for name, content in CONTENTS.items():
        (site / name).write_bytes(content)
    handler = partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def archive_at(address: str | None) -> Archive:
    files = tuple(
        PublishedFile(
            name,
            address + name if address else None,
            size_bytes=len(content),
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        )
        for name, content in CONTENTS.items()
    )
    return Archive(read_cars_halves, files, pages=("https://a.example", "https://b.example"))


def test_files_are_downloaded_once_and_described_alike(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "archives"
    first = download_files(archive_at(address), folder, archives_dir=None, accept_subset=False)
    told = capsys.readouterr().err
    assert re.search(r"downloading cars_train\.tgz: 2/2 MB, .* MB/s", told)
    assert {name: file.path.read_bytes() for name, file in first.items()} == CONTENTS
    again = download_files(archive_at(None), folder, archives_dir=None, accept_subset=False)
    assert describe_files(again) == describe_files(first)
    assert capsys.readouterr().err == ""
    assert str(tmp_path) not in str(describe_files(first))
    assert not describe_files(first)["subset"]


def test_the_users_archives_come_first_and_are_not_copied(tmp_path: Path) -> None:
    shelf, folder = tmp_path / "shelf", tmp_path / "archives"
    shelf.mkdir()
    for name, content in CONTENTS.items():
        (shelf / name).write_bytes(content)
    found = download_files(archive_at(None), folder, archives_dir=shelf, accept_subset=False)
    assert [file.path.parent for file in found.values()] == [shelf, shelf]
    assert not folder.exists()
    with pytest.raises(FetchError, match="absent: the folder of archives is not a folder"):
        download_files(
            archive_at(None), folder, archives_dir=tmp_path / "absent", accept_subset=False
        )


def test_what_cannot_be_had_is_told_with_its_pages(tmp_path: Path) -> None:
    message = r"cars_train\.tgz: could not be had: no address .* https://a\.example and https://b"
    with pytest.raises(FetchError, match=message):
        download_files(archive_at(None), tmp_path, archives_dir=None, accept_subset=False)
    nothing = Archive(read_cars_halves, pages=("https://a.example",))
    with pytest.raises(FetchError, match="no files that could be downloaded: get them from"):
        download_files(nothing, tmp_path, archives_dir=None, accept_subset=False)


def test_given_files_may_be_a_folder_or_the_only_file(tmp_path: Path) -> None:
    archive = archive_at(None)
    with pytest.raises(FetchError, match=r"must be the folder that holds cars_train\.tgz, cars"):
        given_files(archive, tmp_path / "cars_train.tgz", accept_subset=False)
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    assert set(given_files(archive, tmp_path, accept_subset=False)) == set(CONTENTS)
    only = Archive(read_cars_halves, archive.files[:1])
    renamed = (tmp_path / "cars_train.tgz").rename(tmp_path / "my.tgz")
    found = given_files(only, renamed, accept_subset=False)
    assert list(found) == ["cars_train.tgz"]  # its published name, whatever it is called here
    renamed.write_bytes(b"another")
    with pytest.raises(FetchError, match="needs accept_subset"):
        given_files(only, renamed, accept_subset=False)
    assert describe_files(given_files(only, renamed, accept_subset=True))["subset"]
