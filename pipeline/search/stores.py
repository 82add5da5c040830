"""Indexes that other programs keep: LanceDB in a folder, Qdrant on this machine or in a folder.

`pipeline.datasets.vector_stores` reads them as they lie: lancedb://INDEX/vectors, and
qdrant://PLACE/COLLECTION?id=id.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pickle import PickleError
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from pipeline.datasets.vector_batches import ROWS_AT_ONCE, VectorBatch, batch_of_rows
from pipeline.datasets.vector_stores import LOOPBACK
from pipeline.search.vector_index import Neighbours, VectorIndexCard, contents

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

TABLE = "vectors"  # of LanceDB, and the collection of Qdrant's local mode
LOCAL = "qdrant"  # the folder of that mode
IDS_AT_ONCE = 1000
LEAST_SQLITE_BYTES = 512
POINTS_AT_ONCE = 256  # a request to a server has a bounded size
# What Qdrant's local mode raises that opens damaged JSON, SQLite or pickles.
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, EOFError, PickleError, sqlite3.Error)


class LanceIndex:
    """`VectorIndex` by a table of LanceDB in the index's folder.

    It compares with all vectors unless an index was made in the table, which `exhaustive` passes.
    is_new: the table is made. Raises ValueError where else it is gone.
    """

    def __init__(self, folder: Path, card: VectorIndexCard, *, is_new: bool = False) -> None:
        _require("lancedb")
        import lancedb

        self.card, self.folder = card, folder
        if not is_new and not any(folder.glob(f"{TABLE}.lance/_versions/*")):
            raise _lost(folder)
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("vector", pa.list_(pa.float32(), card.dim)),
                ("content", pa.string()),
            ]
        )
        self.schema = schema
        self.table: Any
        with _lance_words(folder):
            database = lancedb.connect(str(folder))
            if is_new:
                self.table = database.create_table(TABLE, schema=schema)
            else:
                self.table = database.open_table(TABLE)

    def __len__(self) -> int:
        with _lance_words(self.folder):
            return self.table.count_rows()

    def upsert(self, batches: Iterable[VectorBatch]) -> int:
        """As `VectorIndex.upsert`; each batch is a version of the table."""
        added = 0
        for batch in batches:
            values = pa.array(batch.vectors.astype(np.float32).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(values, self.card.dim)
            columns = [pa.array(batch.ids, pa.string()), vectors, pa.array(contents(batch))]
            rows = pa.Table.from_arrays(columns, schema=self.schema)
            merged = self.table.merge_insert("id").when_matched_update_all()
            with _lance_words(self.folder):
                merged.when_not_matched_insert_all().execute(rows)
            added += len(batch.ids)
        return added

    def delete(self, ids: Sequence[str]) -> int:
        """As `VectorIndex.delete`; an earlier version of the table still has the rows."""
        before = len(self)
        for some in _some(ids, IDS_AT_ONCE):
            with _lance_words(self.folder):
                self.table.delete(_among(some))
        return before - len(self)

    def search(
        self, queries: Float[np.ndarray, "query dim"], k: int, *, exhaustive: bool = False
    ) -> Neighbours:
        """As `VectorIndex.search`."""
        found: list[list[str]] = []
        similarities: list[list[float]] = []
        for query in queries:
            asked = self.table.search(query.astype(np.float32)).distance_type("dot").limit(k)
            asked = asked.bypass_vector_index() if exhaustive else asked
            with _lance_words(self.folder):
                rows = asked.select(["id", "_distance"]).to_arrow()
            found.append(rows["id"].to_pylist())
            similarities.append([1 - one for one in rows["_distance"].to_pylist()])
        return Neighbours(found, similarities)

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[VectorBatch]:
        """As `VectorIndex.rows`."""
        for some in [None] if ids is None else _some(ids, IDS_AT_ONCE):
            asked = self.table.search().select(["id", "vector", "content"])
            asked = asked if some is None else asked.where(_among(some))
            with _lance_words(self.folder):
                for batch in asked.to_batches(ROWS_AT_ONCE):
                    if len(batch):
                        yield batch_of_rows(batch, "id", "vector", TABLE)


@contextmanager
def _lance_words(folder: Path) -> Iterator[None]:
    """What LanceDB raises of files, as ValueError, without the place in its own source."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r", \S+\.rs:\d+:\d+$", "", str(error).removeprefix("lance error: "))
        raise ValueError(f"{folder}: LanceDB says: {reason}: if damaged, build it anew") from error


def _among(ids: Sequence[str]) -> str:
    """The condition of SQL that a row has one of these ids."""
    quoted = ("'" + one.replace("'", "''") + "'" for one in ids)
    return f"id IN ({', '.join(quoted)})"


class QdrantIndex:
    """`VectorIndex` by a collection of Qdrant, whose points are known by the UUID of an id.

    Its local mode compares with all vectors, a server by its graph unless `exhaustive`. is_new: the
    collection is made, unless it is there. Raises ValueError where else it is gone.
    """

    def __init__(
        self, client: "QdrantClient", folder: Path, card: VectorIndexCard, *, is_new: bool = False
    ) -> None:
        from qdrant_client.models import Distance, VectorParams

        self.client, self.card = client, card
        self.name = split_server(card.server)[1] if card.server else TABLE
        if not client.collection_exists(self.name):
            if not is_new:
                raise _lost(card.server or folder)
            shape = VectorParams(size=card.dim, distance=Distance.DOT)
            client.create_collection(self.name, vectors_config=shape)

    def __len__(self) -> int:
        return self.client.count(self.name, exact=True).count

    def upsert(self, batches: Iterable[VectorBatch]) -> int:
        """As `VectorIndex.upsert`; each of some points is put in force by itself."""
        from qdrant_client.models import PointStruct

        added = 0
        for batch in batches:
            points = [
                PointStruct(
                    id=_point_id(one),
                    vector=vector.astype(np.float32).tolist(),
                    payload={"id": one, "content": content},
                )
                for one, vector, content in zip(
                    batch.ids, batch.vectors, contents(batch), strict=True
                )
            ]
            for some in _some(points, POINTS_AT_ONCE):
                self.client.upsert(self.name, some, wait=True)
            added += len(points)
        return added

    def delete(self, ids: Sequence[str]) -> int:
        """As `VectorIndex.delete`."""
        before = len(self)
        for some in _some(ids, IDS_AT_ONCE):
            self.client.delete(self.name, [_point_id(one) for one in some], wait=True)
        return before - len(self)

    def search(
        self, queries: Float[np.ndarray, "query dim"], k: int, *, exhaustive: bool = False
    ) -> Neighbours:
        """As `VectorIndex.search`."""
        from qdrant_client.models import SearchParams

        found: list[list[str]] = []
        similarities: list[list[float]] = []
        for query in queries:
            points = self.client.query_points(
                self.name,
                query=query.tolist(),
                limit=k,
                search_params=SearchParams(exact=exhaustive) if self.card.server else None,
                with_payload=["id"],
            ).points
            found.append([(point.payload or {})["id"] for point in points])
            similarities.append([point.score for point in points])
        return Neighbours(found, similarities)

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[VectorBatch]:
        """As `VectorIndex.rows`."""
        if ids is not None:
            for some in _some(ids, IDS_AT_ONCE):
                named = [_point_id(one) for one in some]
                yield from _batches(self.client.retrieve(self.name, named, with_vectors=True))
            return
        offset, first = None, True
        while first or offset is not None:
            points, offset = self.client.scroll(
                self.name, limit=IDS_AT_ONCE, offset=offset, with_vectors=True
            )
            first = False
            yield from _batches(points)


def _batches(points: Sequence[Any]) -> Iterator[VectorBatch]:
    """The points as one batch, or none where there is no point."""
    if points:
        vectors = np.array([point.vector for point in points], dtype=np.float32)
        ids, content = ([point.payload[key] for point in points] for key in ("id", "content"))
        yield VectorBatch(ids, vectors, content)


@contextmanager
def qdrant_client(folder: Path, server: str, *, is_new: bool = False) -> "Iterator[QdrantClient]":
    """The client of a server of this machine, or without one of the local mode in a folder, whose
    files are made where it `is_new`.

    Raises ValueError for a server elsewhere, one that does not answer, files that are gone, and an
    absent library.
    """
    _require("qdrant_client")
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

    if server:
        place, _ = split_server(server)
        client = QdrantClient(url=f"http://{place}", check_compatibility=False)
    else:
        kept = folder / LOCAL
        points = kept / "collection" / TABLE / "storage.sqlite"
        # Less than a page of SQLite is to it a file that is to be made, as is none.
        is_whole = points.is_file() and points.stat().st_size >= LEAST_SQLITE_BYTES
        if not is_new and not (is_whole and (kept / "meta.json").is_file()):
            raise _lost(folder)
        try:
            client = QdrantClient(path=str(kept))
        except RuntimeError as error:  # the local mode knows one process at a time
            raise ValueError(f"{folder}: another process has it open: try again") from error
        except DAMAGED as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{folder}: is damaged: build it anew (Qdrant says: {reason})"
            ) from error
    try:
        yield client
    except (ApiException, ResponseHandlingException, sqlite3.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{server or folder}: Qdrant says: {reason}") from error
    finally:
        client.close()


def split_server(server: str) -> tuple[str, str]:
    """HOST:PORT and the collection of a server. Raises ValueError for one elsewhere."""
    place, _, name = server.partition("/")
    if not LOOPBACK.fullmatch(place) or not name:
        raise ValueError(f"--server {server}: must be localhost:PORT/COLLECTION, of this machine")
    return place, name


def _lost(place: Path | str) -> ValueError:
    return ValueError(f"{place}: has lost its vectors: build it anew")


def _point_id(one: str) -> str:
    return str(uuid5(NAMESPACE_URL, one))


def _some(items: Sequence[Any], count: int) -> Iterator[list[Any]]:
    """The items, `count` at a time."""
    for start in range(0, len(items), count):
        yield list(items[start : start + count])


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise ValueError(f"{module} is not installed: pip install 'large-to-small[vectors]'")
