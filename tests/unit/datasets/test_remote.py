"""Object storage as a folder: fetched once, kept up to date, and no secret anywhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.datasets.reader import DatasetError
from pipeline.datasets.remote import RECORD, bring_up_to_date, fetch_address
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vector_stores import open_store
from pipeline.datasets.vectors import LISTS, write_vectors
from tests import made_archives as made
from tests.made_bucket import KEY, S3, loopback_bucket

NAMES = ["a.jpg", "deep/b.png", "deep/er/c.jpg"]
PICTURES = {name: made.encode_picture(number) for number, name in enumerate(NAMES)}
OTHERS = {"notes.pdf": b"x", ".hidden.jpg": b"x", "deep/.thumbs/d.jpg": b"x"}


class Gs(MemoryFileSystem):
    """Stands for a gs:// store, of which there is no emulator here: scheme and paths alone."""

    protocol = "gs"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("gs://")))


@pytest.fixture(params=["memory", "gs"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    fsspec.register_implementation("gs", Gs, clobber=True)
    store = fsspec.filesystem(request.param)
    for name, content in (PICTURES | OTHERS).items():
        store.pipe_file(f"/photos/birds/{name}", content)
    yield f"{request.param}://photos/birds"
    store.rm("/photos", recursive=True)


def files_of(folder: Path) -> dict[str, bytes]:
    files = [one for one in folder.rglob("*") if one.is_file() and one.name != RECORD]
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in files}


def test_a_folder_has_the_images_below_an_address(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "remote"
    assert fetch_address(address, folder) == folder
    assert files_of(folder) == PICTURES
    assert json.loads((folder / RECORD).read_text())["address"] == address


def test_only_what_changed_is_fetched_and_what_is_gone_is_deleted(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fetched = tmp_path / "remote", []
    fetch_address(address, folder)
    store = fsspec.filesystem(address.partition(":")[0])
    plain = type(store).get_file

    def get_file(self: MemoryFileSystem, path: str, target: str) -> None:
        fetched.append(path)
        plain(self, path, target)

    monkeypatch.setattr(type(store), "get_file", get_file)
    bring_up_to_date([str(folder), str(tmp_path), "nowhere"])
    assert fetched == []
    store.pipe_file("/photos/birds/a.jpg", PICTURES["deep/b.png"])
    store.rm_file("/photos/birds/deep/b.png")
    (folder / "deep/er/c.jpg").unlink()
    bring_up_to_date([str(folder)])
    assert sorted(fetched) == ["/photos/birds/a.jpg", "/photos/birds/deep/er/c.jpg"]
    kept = {"a.jpg": PICTURES["deep/b.png"], "deep/er/c.jpg": PICTURES["deep/er/c.jpg"]}
    assert files_of(folder) == kept


def test_an_interrupted_fetch_keeps_what_it_has(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem(address.partition(":")[0])
    plain = type(store).get_file

    def get_file(self: MemoryFileSystem, path: str, target: str) -> None:
        if path.endswith("c.jpg"):
            raise ConnectionError("key=SECRET")
        plain(self, path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "get_file", get_file)
        with pytest.raises(
            DatasetError, match=r"birds: the store cannot be reached, or refuses \(Conn"
        ) as caught:
            fetch_address(address, tmp_path / "remote")
    assert "SECRET" not in str(caught.value)
    assert files_of(tmp_path / "remote").keys() == {"a.jpg", "deep/b.png"}
    fetch_address(address, tmp_path / "remote")
    assert files_of(tmp_path / "remote") == PICTURES


def test_another_address_replaces_what_was_fetched(tmp_path: Path, address: str) -> None:
    fetch_address(address, tmp_path / "remote")
    single = fetch_address(f"{address}/deep/b.png", tmp_path / "remote")
    assert single == tmp_path / "remote/b.png"
    assert files_of(tmp_path / "remote") == {"b.png": PICTURES["deep/b.png"]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://photos/birds", r"https://photos/birds: must be SCHEME://BUCKET/NAME of"),
        ("file:///etc", r"must be SCHEME://BUCKET/NAME"),
        ("memory://user:SECRET@photos", r"memory://photos: holds a name or password"),
        ("memory://photos?token=SECRET", r"memory://photos: must be SCHEME"),
        ("memory://photos/nothing", r"memory://photos/nothing: (there is nothing|holds 0 images)"),
    ],
)
def test_other_addresses_are_refused_in_words(tmp_path: Path, given: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        fetch_address(given, tmp_path / "remote")
    assert "SECRET" not in str(caught.value)


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path, address: str) -> None:
    (tmp_path / "own.jpg").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="holds files that were not fetched"):
        fetch_address(address, tmp_path)
    assert files_of(tmp_path) == {"own.jpg": b"mine"}


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket_is_kept_up_to_date_and_no_file_holds_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {f"birds/{name}": content for name, content in (PICTURES | OTHERS).items()}
    with loopback_bucket(monkeypatch, given | {"birds2/z.jpg": b"x", "birds/deep/": b""}) as client:
        fetch_address("s3://photos/birds", tmp_path / "remote")
        assert files_of(tmp_path / "remote") == PICTURES
        client.put_object(Bucket="photos", Key="birds/new.jpg", Body=PICTURES["a.jpg"])
        client.delete_object(Bucket="photos", Key="birds/a.jpg")
        bring_up_to_date([str(tmp_path / "remote")])
        assert files_of(tmp_path / "remote").keys() == {*NAMES, "new.jpg"} - {"a.jpg"}
        with pytest.raises(DatasetError, match="s3://nowhere/x: there is nothing"):
            fetch_address("s3://nowhere/x", tmp_path / "other")
    assert KEY not in (tmp_path / "remote" / RECORD).read_text()


def test_vectors_of_a_store_come_with_their_card(tmp_path: Path, address: str) -> None:
    rows = VectorBatch(["a", "b"], np.eye(2, dtype=np.float32), ["", ""])
    write_vectors(tmp_path / "made", [rows], network="n1")
    for name in LISTS:  # as `l2s embed` leaves them
        pq.write_table(pa.table({"id": ["a"]}), tmp_path / "made" / name)
    store = fsspec.filesystem(address.partition(":")[0])
    store.put(f"{tmp_path}/made/", "/photos/vectors/", recursive=True)
    found = open_store(str(fetch_address(address.replace("birds", "vectors"), tmp_path / "f")))
    assert found.network == "n1"
    assert [one for batch in found.batches() for one in batch.ids] == ["a", "b"]


def test_a_name_that_the_disk_refuses_is_no_fault_of_the_store(
    tmp_path: Path, address: str
) -> None:
    store = fsspec.filesystem(address.partition(":")[0])
    store.pipe_file(f"/photos/birds/{'x' * 300}.jpg", b"x")
    with pytest.raises(OSError, match="File name too long"):
        fetch_address(address, tmp_path / "remote")
