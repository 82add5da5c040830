"""Images by a table, in every format and place; every fault of one in words."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pipeline.config.sources import TableSource
from pipeline.datasets import archives, tables
from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.own_images import list_own_images
from pipeline.datasets.reader import DatasetError, DatasetReader
from tests import made_archives as made
from tests.made_bucket import S3, loopback_bucket

IDS = [f"picture-{number}" for number in range(8)]
CONTENT = {one: made.encode_picture(number) for number, one in enumerate(IDS)}


def written(folder: Path, name: str, columns: dict[str, object]) -> Path:
    table, file = pa.table(columns), folder / name
    if file.suffix == ".parquet":
        pq.write_table(table, file, row_group_size=3)
    elif file.suffix == ".csv":
        pyarrow.csv.write_csv(table, file)
    else:
        pyarrow.feather.write_feather(table, file, compression="uncompressed")
    return file


def listed(folder: Path, name: str, *allow: str) -> DatasetReader:
    source = TableSource(kind="table", table=name, allow=allow, skip_unreadable=False)
    return list_own_images(folder, source)


def files_below(folder: Path) -> list[str]:
    (folder / "pictures").mkdir()
    for one, content in CONTENT.items():
        (folder / "pictures" / f"{one}.jpg").write_bytes(content)
    return [f"pictures/{one}.jpg" for one in IDS]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather", "t.csv"])
def test_paths_of_each_format(tmp_path: Path, name: str) -> None:
    written(tmp_path, name, {"id": IDS, "path": files_below(tmp_path)})
    reader = listed(tmp_path, name)
    assert [image.name for image in reader.images] == IDS
    assert {(i.class_name, i.class_number, i.split) for i in reader.images} == {("", 0, None)}
    assert {one: reader.read(one) for one in IDS} == CONTENT


def test_texts_as_pandas_writes_them(tmp_path: Path) -> None:
    paths = pa.array(files_below(tmp_path), pa.large_string())
    written(tmp_path, "t.parquet", {"id": pa.array(IDS, pa.large_string()), "path": paths})
    assert [image.name for image in listed(tmp_path, "t.parquet").images] == IDS


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_of_a_compressed_file_one_batch_is_in_memory(tmp_path: Path, compression: str) -> None:
    count, size_bytes = 40, 1 << 20
    ids = [f"{number}" for number in range(count)]
    images = [bytes([number]) * size_bytes for number in range(count)]
    table = pa.table({"image": images, "id": ids})
    pyarrow.feather.write_feather(
        table, tmp_path / "t.feather", compression=compression, chunksize=2
    )
    del table
    before = pa.total_allocated_bytes()
    reader, held = listed(tmp_path, "t.feather"), []
    assert [image.name for image in reader.images] == ids
    for number in (*range(count), 7, 0, 39):
        assert reader.read(str(number)) == images[number]
        held.append(pa.total_allocated_bytes() - before)
    assert len(held) == 43
    assert 2 * size_bytes < max(held) < 6 * size_bytes


def test_a_damaged_batch_of_images_is_told_in_words(tmp_path: Path) -> None:
    table, file = pa.table({"id": IDS, "image": [bytes(5000)] * len(IDS)}), tmp_path / "t.arrow"
    pyarrow.feather.write_feather(table, file, compression="zstd")
    before, frame, last = file.read_bytes().rpartition(b"\x28\xb5\x2f\xfd")
    file.write_bytes(before + bytes(len(frame)) + last)
    with pytest.raises(DatasetError, match=r"t\.arrow: cannot be read: "):
        listed(tmp_path, "t.arrow").read(IDS[0])


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(IDS)] * 3, names=["id", "path", "path"])
    pyarrow.feather.write_feather(table, tmp_path / "t.arrow", compression="uncompressed")
    with pytest.raises(DatasetError, match="has two columns called path"):
        listed(tmp_path, "t.arrow")


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_bytes_in_any_order(tmp_path: Path, name: str) -> None:
    written(tmp_path, name, {"id": IDS, "image": list(CONTENT.values()), "vector": [[1.0]] * 8})
    reader = listed(tmp_path, name)
    for one in (*IDS, IDS[0], IDS[0], IDS[5], IDS[2], IDS[7]):
        assert reader.read(one) == CONTENT[one]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_row_without_bytes_is_an_unreadable_image(tmp_path: Path, name: str) -> None:
    contents: list[bytes | None] = list(CONTENT.values())
    written(tmp_path, name, {"id": IDS, "image": [*contents[:2], None, *contents[3:]]})
    reader = listed(tmp_path, name)
    with pytest.raises(UnreadableImage, match=rf"its row of {name} holds no bytes"):
        reader.read(IDS[2])
    assert [reader.read(one) for one in (IDS[3], IDS[1])] == [contents[3], contents[1]]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_images_are_bounded_one_by_one_and_not_in_all(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an archive may unpack to is no bound of the user's own images."""
    contents = list(CONTENT.values())
    large = bytes(2 * max(map(len, contents)))
    written(tmp_path, name, {"id": IDS, "image": [*contents[:2], large, *contents[3:]]})
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 3 * len(large))
    monkeypatch.setattr(archives, "MEMBER_BYTES", len(large) - 1)
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", len(large) - 1)
    reader = listed(tmp_path, name)
    assert [reader.read(one) for one in IDS[:2]] == contents[:2]
    with pytest.raises(UnreadableImage, match=rf"has {len(large)} bytes, more than "):
        reader.read(IDS[2])
    assert [reader.read(one) for one in IDS[3:]] == contents[3:]


def test_after_a_fault_a_table_is_read_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "t.parquet", {"id": IDS, "image": list(CONTENT.values())})
    reader = listed(tmp_path, "t.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(tables, "read_images", lambda _: iter([b"one"]))
        for one in IDS[1:3]:
            with pytest.raises(DatasetError, match=r"t\.parquet: has fewer images than ids"):
                reader.read(one)
    assert reader.read(IDS[2]) == CONTENT[IDS[2]]


def test_names_of_columns_that_are_no_text(tmp_path: Path) -> None:
    file = written(tmp_path, "t.arrow", {"id": IDS, "path": IDS, "ZZZZ": IDS})
    file.write_bytes(file.read_bytes().replace(b"ZZZZ", b"\xff\xff\xff\xff"))
    with pytest.raises(DatasetError, match=r"t\.arrow: cannot be read: "):
        listed(tmp_path, "t.arrow")


def test_classes_splits_and_numbers_as_ids(tmp_path: Path) -> None:
    columns: dict[str, object] = {
        "id": list(range(8)),
        "path": files_below(tmp_path),
        "class": ["b", "b", "a", "a", "c", "c", "d", "d"],
        "split": ["train"] * 4 + ["test"] * 4,
    }
    written(tmp_path, "t.parquet", columns)
    reader = listed(tmp_path, "t.parquet")
    found = [(i.name, i.class_name, i.class_number, i.split) for i in reader.images]
    assert found[0] == ("0", "b", 1, "train")
    assert found[2] == ("2", "a", 2, "train")
    assert found[7] == ("7", "d", 4, "test")


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"path": IDS}, r"needs the column id and one of path, uri, image; it has path"),
    ({"id": IDS}, r"needs the column id and one of .*; it has id"),
    ({"id": IDS, "path": IDS, "uri": IDS}, r"one of path, uri, image; it has id, path, uri"),
    ({"id": ["", *IDS[1:]], "path": IDS}, r"the column 'id' is empty in row 1"),
    ({"id": IDS, "path": [None, *IDS[1:]]}, r"the column 'path' is empty in row 1"),
    ({"id": [IDS[1], *IDS[1:]], "image": [b""] * 8}, r"more than once: picture-1"),
    ({"id": IDS, "path": IDS}, r"files are missing, or are no regular files: picture-0, "),
    ({"id": IDS, "path": ["../x.jpg"] * 8}, r"names files outside of .*: \.\./x\.jpg"),
    ({"id": IDS, "path": ["/etc/passwd"] * 8}, r"names files outside of .*: /etc/passwd"),
    ({"id": IDS, "image": [b""] * 8, "split": ["dev"] * 8}, r"split is 'dev', must be train or"),
]


@pytest.mark.parametrize(("columns", "words"), FAULTS, ids=lambda _: "")
def test_faults_in_words(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    written(tmp_path, "t.parquet", columns)
    with pytest.raises(DatasetError, match=words):
        listed(tmp_path, "t.parquet")


@pytest.mark.parametrize(
    ("column", "names", "words"),
    [
        ("class", ["Dog", "dog"], "names of classes differ by case or by the form"),
        ("class", ["caf\u00e9", "cafe\u0301"], "names of classes differ by case or by the form"),
        ("id", ["caf\u00e9", "cafe\u0301"], "names differ by the form of their accents only"),
    ],
)
def test_names_that_look_alike_are_refused(
    tmp_path: Path, column: str, names: list[str], words: str
) -> None:
    columns = {"id": ["1", "2"], "path": files_below(tmp_path)[:2], column: names}
    written(tmp_path, "t.parquet", columns)
    with pytest.raises(DatasetError, match=rf"t\.parquet: {words}"):
        listed(tmp_path, "t.parquet")


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv: is not a file"):
        listed(tmp_path, "t.csv")
    for name, words in (
        ("t.txt", r"must be \.parquet, \.arrow"),
        ("t.arrow", r"t\.arrow: cannot be read: "),
        ("t.parquet", r"has no readable parquet schema"),
    ):
        (tmp_path / name).write_bytes(b"id,path\n1,x.jpg\n")
        with pytest.raises(DatasetError, match=words):
            listed(tmp_path, name)
    written(tmp_path, "u.csv", {"id": IDS, "image": IDS})
    with pytest.raises(DatasetError, match="a CSV file holds no bytes"):
        listed(tmp_path, "u.csv")


@pytest.fixture
def memory() -> Iterator[list[str]]:
    """The images in memory, by their addresses."""
    store = fsspec.filesystem("memory")
    for one, content in CONTENT.items():
        store.pipe_file(f"/photos/{one}.jpg", content)
    yield [f"memory://photos/{one}.jpg" for one in IDS]
    store.rm("/photos", recursive=True)


def test_addresses_that_are_allowed_are_read(tmp_path: Path, memory: list[str]) -> None:
    written(tmp_path, "t.csv", {"id": IDS, "uri": memory})
    reader = listed(tmp_path, "t.csv", "memory://photos")
    assert {one: reader.read(one) for one in IDS} == CONTENT
    fsspec.filesystem("memory").rm("/photos/picture-3.jpg")
    with pytest.raises(UnreadableImage, match=r"picture-3: there is no memory://photos/picture-3"):
        reader.read("picture-3")


REFUSED = [
    ("memory://others/a.jpg", r"is not allowed: source\.allow .* now: memory://photos"),
    ("s3://photos/a.jpg", r"s3://photos/a\.jpg: is not allowed"),
    ("file:///etc/passwd", r"file:///etc/passwd: must be SCHEME://BUCKET/NAME"),
    ("/etc/passwd", r"must be SCHEME://BUCKET/NAME"),
    ("simplecache::memory://photos/a.jpg", r"must be SCHEME://BUCKET/NAME"),
    ("memory://photos::file:///etc/passwd", r"must be SCHEME://BUCKET/NAME"),
    ("s3://photos/a.jpg?X-Amz-Signature=SECRET", r"s3://photos/a\.jpg: must be"),
    ("s3://key:SECRET@photos/a.jpg", r"s3://photos/a\.jpg: holds a name or password"),
]


@pytest.mark.parametrize(("address", "words"), REFUSED, ids=lambda _: "")
def test_other_addresses_are_refused_without_their_secrets(
    tmp_path: Path, address: str, words: str
) -> None:
    written(tmp_path, "t.csv", {"id": ["one"], "uri": [address]})
    with pytest.raises(DatasetError, match=words) as caught:
        listed(tmp_path, "t.csv", "memory://photos")
    assert "SECRET" not in str(caught.value)


def test_allowed_are_buckets_without_passwords() -> None:
    for wrong in (
        "s3://key:secret@bucket",
        "file:///",
        "s3://bucket/folder",
        "https://example.org",
    ):
        with pytest.raises(ValueError, match="allow"):
            TableSource(kind="table", table="t.csv", allow=(wrong,), skip_unreadable=False)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The images in a bucket of a server on loopback, by their addresses."""
    with loopback_bucket(monkeypatch, {f"{one}.jpg": CONTENT[one] for one in IDS}):
        yield [f"s3://photos/{one}.jpg" for one in IDS]


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket_is_read_by_the_keys_of_the_environment(
    tmp_path: Path, bucket: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "t.parquet", {"id": [*IDS, "lost"], "uri": [*bucket, "s3://photos/lost"]})
    reader = listed(tmp_path, "t.parquet", "s3://photos/")
    assert {one: reader.read(one) for one in IDS} == CONTENT
    with pytest.raises(UnreadableImage, match="lost: there is no s3://photos/lost"):
        reader.read("lost")


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_store_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "TOPSECRET")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("no_proxy", "*")
    fsspec.filesystem("s3").clear_instance_cache()
    written(tmp_path, "t.csv", {"id": ["one"], "uri": ["s3://nowhere/a.jpg"]})
    with pytest.raises(DatasetError, match=r"s3://nowhere/a\.jpg: the store cannot be") as c:
        listed(tmp_path, "t.csv", "s3://nowhere").read("one")
    assert "TOPSECRET" not in str(c.value)
