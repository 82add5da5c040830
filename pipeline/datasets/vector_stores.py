"""Vectors where others keep them: Parquet, NumPy, LanceDB, Qdrant. Read, and never written to.

An address is a path, lancedb://FOLDER/TABLE, qdrant://FOLDER/COLLECTION (its local mode) or
qdrant://HOST:PORT/COLLECTION of this machine, and may end in ?id=COLUMN&vector=COLUMN.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from pipeline.datasets.object_storage import shown_address
from pipeline.datasets.vector_batches import (
    ROWS_AT_ONCE,
    Findings,
    VectorBatch,
    VectorsError,
    batch_of_rows,
    checked,
    columns_read,
    parquet_batches,
)
from pipeline.datasets.vectors import CARD, read_vectors

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.http.models import Record

LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\]):[0-9]{1,5}")  # HOST:PORT, and no more
_MODULES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}
_COLUMNS = {"id": "id", "vector": "vector"}


@dataclass(frozen=True)
class VectorStore:
    """A place that gives vectors. `rows` gives them anew as they are, batch by batch.

    network: what a card says of what made them; empty where nobody does.
    """

    address: str
    rows: Callable[[], Iterator[VectorBatch]]
    network: str = ""

    def batches(self, findings: Findings | None = None) -> Iterator[VectorBatch]:
        """The rows checked and normalised. Raises VectorsError as `checked` does."""
        return checked(self.rows(), self.address, findings or Findings())


def open_store(address: str) -> VectorStore:
    """The store at an address, whose vectors are not read yet.

    Raises VectorsError for an address of no known kind, a store that is not there, and a library
    that is not installed.
    """
    place, columns = _parsed(address)
    scheme, sign, rest = place.partition("://")
    if sign and scheme not in _MODULES:
        kinds = " or ".join(f"{one}://" for one in _MODULES)
        raise VectorsError(f"{shown_address(address)}: must be a file, or begin with {kinds}")
    if sign:
        if find_spec(_MODULES[scheme]) is None:
            raise VectorsError(
                f"{address}: {_MODULES[scheme]} is not installed: "
                "pip install 'large-to-small[vectors]'"
            )
        read = {"lancedb": _lancedb_batches, "qdrant": _qdrant_batches}[scheme]
        folder, _, name = rest.rpartition("/")
        if not folder or not name:
            raise VectorsError(f"{address}: must be {scheme}://PLACE/NAME")
        return VectorStore(place, partial(read, place, folder, name, columns))
    path = Path(place)
    if path.is_dir() and (path / CARD).exists():
        vectors = read_vectors(path)
        return VectorStore(place, vectors.batches, vectors.card.network)
    if not path.exists():
        raise VectorsError(f"{place}: there is no such file or folder")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    files = files or [one for one in path.glob("*.npy") if not one.name.endswith(".ids.npy")]
    if len(files) == 1 and files[0].suffix == ".npy":
        return VectorStore(place, partial(_npy_batches, files[0], _ids_beside(files[0])))
    if not files or files[0].suffix != ".parquet":
        raise VectorsError(f"{place}: must be .parquet, .npy or a folder of .parquet or one .npy")
    return VectorStore(place, partial(_of_files, files, columns))


def _parsed(address: str) -> tuple[str, dict[str, str]]:
    """The address without its end, and the columns of ids and vectors. Raises VectorsError."""
    place, _, query = address.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := [key for key, value in given.items() if key not in _COLUMNS or not value]:
        allowed = "?id=COLUMN&vector=COLUMN"
        raise VectorsError(f"{place}: ?{', '.join(unknown)}: the end of an address is {allowed}")
    return place, given


def _of_files(files: list[Path], columns: dict[str, str]) -> Iterator[VectorBatch]:
    named = _COLUMNS | columns
    for file in files:
        yield from parquet_batches(file, named["id"], named["vector"])


def _ids_beside(path: Path) -> Path:
    """The ids of the rows of NAME.npy: NAME.ids.txt, one a line, or NAME.ids.npy."""
    beside = [path.with_suffix(end) for end in (".ids.txt", ".ids.npy")]
    found = [file for file in beside if file.is_file()]
    if len(found) != 1:
        raise VectorsError(
            f"{path}: needs the ids of its rows beside it, in {beside[0].name} (one a line) or "
            f"{beside[1].name}; {len(found)} of them are there"
        )
    return found[0]


def _npy_batches(path: Path, ids_file: Path) -> Iterator[VectorBatch]:
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")
        if ids_file.suffix == ".txt":
            lines = ids_file.read_text(encoding="utf-8-sig").removesuffix("\n")
            ids = lines.split("\n") if lines else []
        else:
            given = np.lib.format.open_memmap(ids_file, mode="r")
            kept = np.char.decode(given, "utf-8") if given.dtype.kind == "S" else given
            ids = [str(one) for one in kept.tolist()]
    except (OSError, ValueError, EOFError, TypeError, TokenError) as error:
        raise VectorsError(f"{path} and {ids_file.name}: cannot be read: {error}") from error
    if vectors.ndim != 2 or len(vectors) != len(ids):
        shape = " x ".join(map(str, vectors.shape))
        raise VectorsError(f"{path}: {shape} numbers, and {len(ids)} ids in {ids_file.name}")
    for start in range(0, len(ids), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        yield VectorBatch(ids[some], np.asarray(vectors[some]), [""] * len(ids[some]))


def _lancedb_batches(
    address: str, folder: str, name: str, columns: dict[str, str]
) -> Iterator[VectorBatch]:
    import lancedb

    if not Path(folder, f"{name}.lance").is_dir():
        raise VectorsError(f"{address}: there is no table {name!r} in {folder}")
    named = _COLUMNS | columns
    ids_and_vectors = named["id"], named["vector"]
    with _faults_in_words(address):
        table = lancedb.connect(folder).open_table(name)
        wanted = columns_read(address, address, table.schema.names, ids_and_vectors)
        for batch in table.search().select(wanted).to_batches(ROWS_AT_ONCE):
            yield batch_of_rows(batch, *ids_and_vectors, address)


@contextmanager
def _faults_in_words(address: str) -> Iterator[None]:
    """Whatever a database's library raises, as VectorsErrors: of damaged files anything comes."""
    try:
        yield
    except (VectorsError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VectorsError(f"{address}: cannot be read: {reason}") from error


def _qdrant_batches(
    address: str, place: str, name: str, columns: dict[str, str]
) -> Iterator[VectorBatch]:
    """Ids are those of the points, or of their payload's key `id` where the address names it."""
    from qdrant_client import QdrantClient

    if Path(place).is_dir():
        if not Path(place, "collection", name).is_dir():
            raise VectorsError(f"{address}: there is no collection {name!r} in {place}")
        with tempfile.TemporaryDirectory(prefix="l2s-qdrant-") as copy:  # opening one locks it
            shutil.copytree(place, copy, dirs_exist_ok=True, ignore=lambda *_: [".lock"])
            yield from _scrolled(partial(QdrantClient, path=copy), address, name, columns)
        return
    if not LOOPBACK.fullmatch(place):
        raise VectorsError(
            f"{shown_address(address)}: must be a folder of this machine, or localhost:PORT, "
            "without a name or password; a server elsewhere is read from its own machine, into a "
            "Parquet file"
        )
    yield from _scrolled(
        partial(QdrantClient, url=f"http://{place}", check_compatibility=False),
        address,
        name,
        columns,
    )


def _scrolled(
    opened: Callable[[], "QdrantClient"], address: str, name: str, columns: dict[str, str]
) -> Iterator[VectorBatch]:
    key, vector_name = columns.get("id"), columns.get("vector")
    offset, first = None, True
    with _faults_in_words(address), closing(opened()) as client:
        if not client.collection_exists(name):
            raise VectorsError(f"{address}: there is no collection {name!r}")
        while first or offset is not None:
            points, offset = client.scroll(
                name,
                limit=ROWS_AT_ONCE,
                offset=offset,
                with_payload=[key] if key else False,
                with_vectors=[vector_name] if vector_name else True,
            )
            first = False
            yield _batch_of_points(points, address, key, vector_name)


def _batch_of_points(
    points: "Sequence[Record]", address: str, key: str | None, vector_name: str | None
) -> VectorBatch:
    ids, rows = [], []
    for point in points:
        if key and (point.payload or {}).get(key) is None:
            raise VectorsError(f"{address}: the payload of point {point.id} has no {key!r}")
        ids.append(str((point.payload or {})[key] if key else point.id))
        vector: Any = point.vector
        if isinstance(vector, dict):  # of several vectors a point, by their names
            if vector_name is None and len(vector) != 1:
                known = ", ".join(vector) or "none"
                raise VectorsError(f"{address}: points have the vectors {known}: ?vector=NAME")
            vector = vector.get(vector_name or next(iter(vector)))
        if not isinstance(vector, list) or not vector or isinstance(vector[0], list):
            raise VectorsError(f"{address}: point {point.id} has no plain vector")
        rows.append(vector)
    if len({len(row) for row in rows}) > 1:
        raise VectorsError(f"{address}: its points have vectors of several lengths")
    vectors = np.array(rows, dtype=np.float32).reshape(len(rows), len(rows[0]) if rows else 0)
    return VectorBatch(ids, vectors, [""] * len(ids))
