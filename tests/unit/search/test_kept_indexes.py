"""What readers say of an index that is damaged, lost, half made, or written while they look."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.search import upkeep
from pipeline.search.upkeep import add_vectors, build_index, verify_index
from pipeline.search.vector_index import Kind

ROWS, DIM = 20, 8
IDS = [f"{number}.jpg" for number in range(ROWS)]
SERVER = "localhost:6333/birds"
LIBRARIES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


def unit_vectors(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "vectors", [VectorBatch(IDS, unit_vectors(), [""] * ROWS)])
    return tmp_path / "vectors"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "i"


def build(index: Path, source: Path, kind: Kind = "exact") -> None:
    pytest.importorskip(LIBRARIES.get(kind, "faiss"))
    assert build_index(index, source, kind).vectors == ROWS


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("exact", "parts.json"),
        ("hnsw", "parts.json"),
        ("lancedb", "vectors.lance"),
        ("lancedb", "vectors.lance/_versions"),
        ("qdrant", "qdrant"),
        ("qdrant", "qdrant/meta.json"),
        ("qdrant", "qdrant/collection"),
        ("qdrant", "qdrant/collection/vectors/storage.sqlite"),
    ],
)
def test_an_index_that_has_lost_its_vectors_is_not_an_empty_one(
    tmp_path: Path, source: Path, index: Path, kind: Kind, file: str
) -> None:
    build(index, source, kind)
    (index / file).rename(tmp_path / "elsewhere")
    for asked in (verify_index, partial(add_vectors, source=source)):
        with pytest.raises(ValueError, match=f"{index}: has lost its vectors: build it anew"):
            asked(index)
    assert not (index / file).exists()
    build(index, source, kind)
    assert verify_index(index).faults == []


def test_an_empty_file_of_points_is_not_an_empty_index(source: Path, index: Path) -> None:
    build(index, source, "qdrant")
    (index / "qdrant" / "collection" / "vectors" / "storage.sqlite").write_bytes(b"")
    with pytest.raises(ValueError, match="has lost its vectors"):
        verify_index(index)


def test_a_collection_that_a_server_has_lost_is_not_made_by_a_reader(
    source: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")

    @contextmanager
    def server(*given: object, **is_new: bool) -> Iterator[Any]:
        yield client

    monkeypatch.setattr(upkeep, "qdrant_client", server)
    build_index(index, source, "qdrant", server=SERVER)
    client.delete_collection("birds")
    for asked in (verify_index, partial(add_vectors, source=source)):
        with pytest.raises(ValueError, match=f"{SERVER}: has lost its vectors: build it anew"):
            asked(index)
    assert not client.collection_exists("birds")
