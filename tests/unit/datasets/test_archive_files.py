"""An archive's files together: downloaded with a bar, or given; described without this machine."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.datasets.cars196 import read_cars_halves
from pipeline.datasets.fetching import FetchError, describe_files, download_files, given_files
from pipeline.datasets.published import Archive, PublishedFile

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
            (address + name,) if address else (),
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
