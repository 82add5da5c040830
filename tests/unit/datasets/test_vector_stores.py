"""The same vectors out of every store; what is not there is told, and nothing is written."""

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import vector_stores
from pipeline.datasets.vector_batches import VectorBatch, VectorsError
from pipeline.datasets.vector_stores import open_store
from pipeline.datasets.vectors import write_vectors

ROWS = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
IDS = [f"image-{number}" for number in range(9)]
LANCEDB = pytest.mark.skipif(find_spec("lancedb") is None, reason="needs lancedb")
QDRANT = pytest.mark.skipif(find_spec("qdrant_client") is None, reason="needs qdrant-client")


def found_in(address: str) -> dict[str, np.ndarray]:
    batches = list(open_store(address).batches())
    return {
        one: vector for part in batches for one, vector in zip(part.ids, part.vectors, strict=True)
    }


def assert_all(found: dict[str, np.ndarray]) -> None:
    assert sorted(found) == IDS
    np.testing.assert_allclose([found[one] for one in IDS], UNIT, atol=1e-6)


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_of_the_form_has_the_network_of_its_card(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", [VectorBatch(IDS, ROWS, [""] * 9)], network="n1")
    assert_all(found_in(str(tmp_path / "v")))
    assert open_store(str(tmp_path / "v")).network == "n1"


def test_a_parquet_file_and_a_folder_of_them(tmp_path: Path) -> None:
    for name, some in (("a", slice(0, 5)), ("b", slice(5, 9))):
        table = pa.table({"path": IDS[some], "embedding": ROWS[some].tolist()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert_all(found_in(f"{tmp_path}?id=path&vector=embedding"))
    assert list(found_in(f"{tmp_path / 'a.parquet'}?id=path&vector=embedding")) == IDS[:5]


@pytest.mark.parametrize("ids", ["text", "array"])
def test_an_array_with_its_ids_beside_it(tmp_path: Path, ids: str) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    if ids == "text":
        (tmp_path / "v.ids.txt").write_text("\n".join(IDS) + "\n")
    else:
        np.save(tmp_path / "v.ids.npy", np.array(IDS))
    assert_all(found_in(str(tmp_path / "v.npy")))
    assert_all(found_in(str(tmp_path)))  # as what is fetched from object storage lies
    np.save(tmp_path / "w.npy", ROWS)
    with pytest.raises(VectorsError, match=r"must be .* or a folder of \.parquet or one \.npy"):
        found_in(str(tmp_path))


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    with pytest.raises(VectorsError, match=r"needs the ids of its rows .* v\.ids\.txt"):
        open_store(str(tmp_path / "v.npy"))
    (tmp_path / "v.ids.txt").write_text("one\n")
    with pytest.raises(VectorsError, match=r"9 x 4 numbers, and 1 ids in v\.ids\.txt"):
        found_in(str(tmp_path / "v.npy"))
    np.save(tmp_path / "v.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(VectorsError, match=r"v\.npy and v\.ids\.txt: cannot be read: "):
        found_in(str(tmp_path / "v.npy"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere.parquet", "there is no such file"),
        ("s3://bucket/v.parquet", "must be a file, or begin with lancedb:// or qdrant://"),
        ("v.parquet?key=x", r"\?key: the end of an address is \?id=COLUMN&vector=COLUMN"),
        ("v.csv", r"must be \.parquet, \.npy or a folder"),
    ],
)
def test_addresses_of_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text("id\n")
    with pytest.raises(VectorsError, match=words):
        open_store(address)


@pytest.mark.parametrize("scheme", ["lancedb", "qdrant"])
def test_a_library_that_is_not_installed_is_told_with_its_command(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_stores, "find_spec", lambda _: None)
    with pytest.raises(VectorsError, match=r"is not installed: pip install 'large-to-small\[vec"):
        open_store(f"{scheme}://folder/name")


def test_ids_of_odd_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS[:2])
    (tmp_path / "v.ids.txt").write_text("a\u2028b.jpg\nc\x85.jpg\n")
    assert list(found_in(str(tmp_path / "v.npy"))) == ["a\u2028b.jpg", "c\x85.jpg"]
    (tmp_path / "v.ids.txt").unlink()
    np.save(tmp_path / "v.ids.npy", np.array(["é.jpg".encode(), b"c.jpg"]))
    assert list(found_in(str(tmp_path / "v.npy"))) == ["é.jpg", "c.jpg"]


@pytest.mark.parametrize("damage", ["an archive", "a bracket in its head"])
def test_a_damaged_array_is_told_in_words(tmp_path: Path, damage: str) -> None:
    array = tmp_path / "v.npy"
    (tmp_path / "v.ids.txt").write_text("\n".join(IDS))
    if damage == "an archive":
        with array.open("wb") as file:
            np.savez(file, ROWS)
    else:
        np.save(array, ROWS)
        array.write_bytes(array.read_bytes().replace(b" ", b"(", 1))
    with pytest.raises(VectorsError, match=r"v\.npy and v\.ids\.txt: cannot be read: "):
        found_in(str(array))


@LANCEDB
@pytest.mark.parametrize(
    ("kind", "is_gone"), [("data", False), ("data", True), ("_versions", True)]
)
def test_a_damaged_lancedb_is_told_in_words(tmp_path: Path, kind: str, *, is_gone: bool) -> None:
    import lancedb

    table = {"id": IDS, "vector": pa.array(ROWS.tolist(), pa.list_(pa.float32(), 4))}
    lancedb.connect(str(tmp_path)).create_table("pictures", pa.table(table))
    for file in (tmp_path / "pictures.lance" / kind).iterdir():
        file.unlink()
        if not is_gone:
            file.write_bytes(bytes(100))
    with pytest.raises(VectorsError, match=r"^lancedb://.*/pictures: cannot be read: "):
        found_in(f"lancedb://{tmp_path}/pictures")


@LANCEDB
def test_lancedb_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    import lancedb

    database = lancedb.connect(str(tmp_path / "db"))
    table = {"id": IDS, "vector": pa.array(ROWS.tolist(), pa.list_(pa.float32(), 4))}
    database.create_table("pictures", pa.table(table))
    before = content_of(tmp_path)
    assert_all(found_in(f"lancedb://{tmp_path}/db/pictures"))
    with pytest.raises(VectorsError, match="there is no table 'other'"):
        found_in(f"lancedb://{tmp_path}/db/other")
    with pytest.raises(VectorsError, match=r"has no column 'path'; it has id, vector"):
        found_in(f"lancedb://{tmp_path}/db/pictures?id=path")
    assert content_of(tmp_path) == before


def make_qdrant(folder: Path, paths: list[str | None]) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    size = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("pictures", size)
    points = [
        models.PointStruct(id=number, vector=ROWS[number].tolist(), payload={"path": path})
        for number, path in enumerate(paths)
    ]
    client.upsert("pictures", points)
    client.close()


@QDRANT
@pytest.mark.parametrize("file", ["meta.json", "collection/pictures/storage.sqlite"])
def test_a_damaged_qdrant_is_told_in_words(tmp_path: Path, file: str) -> None:
    make_qdrant(tmp_path / "db", ["a"])
    damaged = tmp_path / "db" / file
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(VectorsError, match=r"^qdrant://.*/db/pictures: cannot be read: "):
        found_in(f"qdrant://{tmp_path}/db/pictures")


@QDRANT
def test_a_payload_that_is_null_is_no_id(tmp_path: Path) -> None:
    make_qdrant(tmp_path / "db", ["a", None])
    with pytest.raises(VectorsError, match="the payload of point 1 has no 'path'"):
        found_in(f"qdrant://{tmp_path}/db/pictures?id=path")


@QDRANT
@pytest.mark.parametrize("name", [None, "image"])
def test_qdrant_local_mode_is_read_and_left_as_it_is(tmp_path: Path, name: str | None) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(tmp_path / "db"))
    size = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("pictures", size if name is None else {name: size})
    points = [
        models.PointStruct(id=n, vector=row if name is None else {name: row}, payload={"path": one})
        for n, (one, row) in enumerate(zip(IDS, ROWS.tolist(), strict=True))
    ]
    client.upsert("pictures", points)
    client.close()
    before = content_of(tmp_path)
    address = f"qdrant://{tmp_path}/db/pictures"
    assert_all(found_in(f"{address}?id=path"))
    assert list(found_in(address)) == [str(number) for number in range(9)]
    with pytest.raises(VectorsError, match="there is no collection 'other'"):
        found_in(f"qdrant://{tmp_path}/db/other")
    with pytest.raises(VectorsError, match="the payload of point 0 has no 'file'"):
        found_in(f"{address}?id=file")
    assert content_of(tmp_path) == before


@pytest.mark.parametrize(
    "address", ["https://key:SECRET@host/v.npy", "qdrant://key:SECRET@localhost:6333/pictures"]
)
def test_an_address_is_told_without_its_password(address: str) -> None:
    with pytest.raises(
        VectorsError, match=r"://(host/v\.npy|localhost:6333/pictures): must"
    ) as told:
        found_in(address)
    assert "SECRET" not in str(told.value)


@QDRANT
def test_a_qdrant_server_elsewhere_or_silent() -> None:
    with pytest.raises(VectorsError, match="a folder of this machine, or localhost:PORT"):
        found_in("qdrant://example.org:6333/pictures")
    with pytest.raises(VectorsError, match=r"localhost:1/pictures: cannot be read: "):
        found_in("qdrant://localhost:1/pictures")
