"""Sources of many images: what they list, in which order, and what tells a change."""

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.picture_sources import PictureSource, picture_source
from pipeline.datasets.reader import DatasetError
from tests.made_bucket import S3, loopback_bucket

CONTENT = {"a/2.jpg": b"second", "a/b/1.png": b"deep", "c.jpg": b"flat"}


def rows(source: PictureSource) -> dict[str, tuple[int, str]]:
    table = pa.concat_tables(source.listing()).to_pydict()
    assert len(set(table["id"])) == len(table["id"])
    return {one: (n, s) for one, n, s in zip(*table.values(), strict=True)}


def check(source: PictureSource) -> None:
    read = source.open()
    assert {name: read(name) for name in rows(source)} == CONTENT
    assert list(rows(source)) == list(rows(source))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "images"


def test_a_folder_at_any_depth(folder: Path) -> None:
    for name in (".hidden.jpg", "Thumbs.db", "notes.txt", ".git/x.jpg", "@eaDir/x.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no")
    source = picture_source("images", folder.parent)
    assert source.address == str(folder)
    check(source)
    assert rows(source)["a/2.jpg"][0] == len(b"second")
    before = rows(source)
    os.utime(folder / "c.jpg", (5, 5))
    changed = rows(source)
    assert {name for name in before if before[name] != changed[name]} == {"c.jpg"}


def test_a_large_folder_is_listed_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.datasets.picture_sources.ROWS_AT_ONCE", 3)
    for number in range(10):
        (tmp_path / f"{9 - number}.jpg").write_bytes(b"x")
    assert list(rows(PictureSource(str(tmp_path)))) == [f"{n}.jpg" for n in range(10)]


def test_what_a_folder_must_not_hold(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "a")
    with pytest.raises(DatasetError, match=r"link: is a link to a folder"):
        rows(PictureSource(str(folder)))
    (folder / "link").unlink()
    (folder / "nowhere.jpg").symlink_to(folder / "gone")
    source = PictureSource(str(folder))
    assert rows(source)["nowhere.jpg"] == (0, "")
    with pytest.raises(UnreadableImage, match=r"nowhere\.jpg: there is no such file"):
        source.open()("nowhere.jpg")
    with pytest.raises(DatasetError, match=r"must be|there is no such|is not a file"):
        rows(PictureSource(str(folder / "absent")))


def test_an_entry_that_is_broken_is_an_image_at_most(folder: Path) -> None:
    """No entry ends the listing of the others, unless it may hold images that nobody would see."""
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "loop").symlink_to("loop")
    (folder / ".latest").symlink_to("a")
    (folder / os.fsdecode(b"\xff.txt")).touch()
    source = PictureSource(str(folder))
    assert set(rows(source)) == {*CONTENT, "loop.jpg"}
    with pytest.raises(UnreadableImage, match=r"loop\.jpg: there is no such file"):
        source.open()("loop.jpg")
    (folder / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(DatasetError, match=r"is no name in UTF-8: rename it"):
        rows(source)


def write_tars(folder: Path) -> None:
    for number, (name, content) in enumerate(CONTENT.items()):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_tar_shards(tmp_path: Path) -> None:
    write_tars(tmp_path)
    source = PictureSource(str(tmp_path))
    read = source.open()
    found = rows(source)
    assert [read(name) for name in found] == list(CONTENT.values())
    os.utime(tmp_path / "0.tar", (5, 5))
    assert all(rows(source)[name] != found[name] for name in found)


def test_what_is_called_as_a_shard_and_is_none(tmp_path: Path, folder: Path) -> None:
    """A folder is one of images, and what macOS puts beside a shard is passed over."""
    (folder / "a").rename(folder / "trip.tar")
    assert list(rows(PictureSource(str(folder)))) == ["c.jpg", "trip.tar/2.jpg", "trip.tar/b/1.png"]
    (tmp_path / "tars").mkdir()
    write_tars(tmp_path / "tars")
    (tmp_path / "tars" / "._0.tar").write_bytes(b"\0\5\x16\7")
    assert len(rows(PictureSource(str(tmp_path / "tars")))) == 3


def test_a_flat_folder_is_opened_without_its_list(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.jpg").touch()
    tracemalloc.start()
    PictureSource(str(tmp_path)).open()
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes < 100_000


def test_a_table_of_bytes_and_one_of_paths(folder: Path) -> None:
    pq.write_table(
        pa.table({"id": list(CONTENT), "image": list(CONTENT.values())}), folder / "bytes.parquet"
    )
    check(PictureSource(str(folder / "bytes.parquet")))
    pq.write_table(pa.table({"id": list(CONTENT), "path": list(CONTENT)}), folder / "paths.parquet")
    source = PictureSource(str(folder / "paths.parquet"))
    check(source)
    before = rows(source)
    os.utime(folder / "c.jpg", (5, 5))
    assert {name for name in before if before[name] != rows(source)[name]} == {"c.jpg"}


def test_a_table_of_images_is_held_to_no_rule_of_a_study(folder: Path) -> None:
    """Neither splits nor classes say anything here, and of a missing file the others are read."""
    names = [*CONTENT, "gone.jpg"]
    columns = {"id": names, "path": names, "class": [None] * 4, "split": ["train"] * 3 + ["val"]}
    pq.write_table(pa.table(columns), folder / "t.parquet")
    source = PictureSource(str(folder / "t.parquet"))
    assert list(rows(source)) == names
    assert source.open()("c.jpg") == b"flat"
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: there is no such file"):
        source.open()("gone.jpg")


@pytest.fixture
def memory() -> Iterator[Callable[[str, bytes], None]]:
    store = fsspec.filesystem("memory")
    for name, content in CONTENT.items():
        store.pipe(f"/photos/below/{name}", content)
    yield lambda name, content: store.pipe(f"/photos/below/{name}", content)
    store.rm("/photos", recursive=True)


def test_a_store(memory: Callable[[str, bytes], None], tmp_path: Path) -> None:
    source = picture_source("memory://photos/below/", tmp_path)
    check(source)
    before = rows(source)
    memory("c.jpg", b"other")
    assert {name for name in before if before[name] != rows(source)[name]} == {"c.jpg"}
    with pytest.raises(DatasetError, match=r"memory://photos/no: there is nothing at this address"):
        rows(PictureSource("memory://photos/no"))


@pytest.mark.parametrize("name", ["a::b.jpg", "c::file:d.jpg", "e#f?g=h&[*].jpg"])
def test_odd_names_in_a_store(
    memory: Callable[[str, bytes], None], tmp_path: Path, name: str
) -> None:
    memory(name, b"content")
    source = picture_source("memory://photos/below/", tmp_path)
    assert name in rows(source)
    assert source.open()(name) == b"content"


def test_a_table_of_addresses_needs_them_allowed(
    memory: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    uris = [f"memory://photos/below/{name}" for name in CONTENT]
    pq.write_table(pa.table({"id": list(CONTENT), "uri": uris}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"is not allowed"):
        rows(picture_source("t.parquet", tmp_path))
    check(picture_source("t.parquet", tmp_path, ["memory://photos"]))


@pytest.mark.parametrize("address", ["https://host/x", "s3://key:secret@bucket/x", "s3://b/x?a=1"])
def test_addresses_that_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"must be SCHEME|holds a name or password") as caught:
        picture_source(address, tmp_path)
    assert "secret" not in str(caught.value)


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_empty_names_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a console leaves for a folder is passed over; two slashes in a row are refused."""
    content = {"in/": b"", "in/a/": b"", "in/a/b.jpg": b"x"}
    with loopback_bucket(monkeypatch, content) as client:
        source = PictureSource("s3://photos/in")
        assert list(rows(source)) == ["a/b.jpg"]
        client.put_object(Bucket="photos", Key="in/a//c.jpg", Body=b"y")
        with pytest.raises(DatasetError, match=r"^photos/in/a: holds objects with // in their na"):
            rows(source)
