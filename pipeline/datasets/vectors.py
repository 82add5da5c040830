"""The one form of vectors on disk.

A folder of Parquet files with the columns `id` (text), `vector` (fixed-size list of float16 or
float32, unit length) and `content` (hash of the image's bytes, or empty), and a `card.json`.
Vectors are read and written in batches; beside one, memory holds 8 bytes an id.

Files once written never change: new images come in new files. A row that no longer holds, of an
image that was deleted or changed, stays where it is and stands in `tombstones.parquet`, with the
columns `id`, `content` and `file`, the name of the file whose row it is. So an image may have a row
in several files, of which one holds at the most; an index that has taken in some files is brought
up to date by the files that it lacks and the tombstones that it lacks. The card counts them.
Lists beside the vectors (`LISTS`) may be there or not.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.datasets.vector_batches import (
    Findings,
    VectorBatch,
    VectorsError,
    checked,
    parquet_batches,
    without_ids,
)
from pipeline.files import replacing_folder, write_text

CARD = "card.json"
TOMBSTONES, UNREADABLE, MANIFEST = "tombstones.parquet", "unreadable.parquet", "manifest.parquet"
LISTS = (TOMBSTONES, UNREADABLE, MANIFEST)  # Parquet files of the folder that hold no vectors
ROWS_PER_FILE = 1 << 18


class VectorsCard(BaseModel):
    """What is known of the vectors of a folder.

    network: digest of the network and the preprocessing that made them; empty where nobody knows.
    tombstones: how many rows of the files no longer hold; `tombstones.parquet` has them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    dim: Annotated[int, Field(gt=0)]
    network: str = ""
    tombstones: Annotated[int, Field(ge=0)] = 0

    @field_validator("tombstones", mode="before")
    @classmethod
    def _count(cls, given: object) -> object:
        """Earlier cards held a list, always an empty one."""
        return 0 if given == [] else given


@dataclass(frozen=True)
class Vectors:
    """The open folder of vectors, wherever it lies; `batches` reads it anew each time.

    folder: as messages name it. files: the names of those that hold vectors. fetched: gives the
    path of a file for as long as a block runs; of a store a file at a time is on the disk.
    """

    folder: str
    card: VectorsCard
    files: tuple[str, ...]
    fetched: Callable[[str], AbstractContextManager[Path]]

    def tombstones(self) -> dict[str, frozenset[str]]:
        """By the name of a file the ids of its rows that no longer hold. Raises VectorsError."""
        if not self.card.tombstones:
            return {}
        with self._file(TOMBSTONES) as file:
            return _read_tombstones(file)

    def batches(self, *, may_be_empty: bool = False) -> Iterator[VectorBatch]:
        """The rows that are not deleted, in order, unit vectors in float32. Raises VectorsError,
        of no such row too, unless they may all be deleted.
        """
        gone = self.tombstones()
        kept = (
            batch
            for name in self.files
            for batch in without_ids(self._rows(name), gone.get(name, frozenset()))
        )
        for batch in checked(kept, self.folder, Findings(), may_be_empty=may_be_empty):
            if (length := batch.vectors.shape[1]) != self.card.dim:
                raise VectorsError(
                    f"{self.folder}: its vectors have {length} numbers, {CARD} says {self.card.dim}"
                )
            yield batch

    def _rows(self, name: str) -> Iterator[VectorBatch]:
        with self._file(name) as file:
            yield from parquet_batches(file, "id", "vector")

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        """A file, or a copy of it; what is wrong with it is said of the file."""
        with self.fetched(name) as copy:
            try:
                yield copy
            except VectorsError as error:
                said = str(error).replace(str(copy), f"{self.folder}/{name}")
                raise VectorsError(said) from error


def read_vectors(folder: Path) -> Vectors:
    """Open a folder of vectors. Raises VectorsError as `open_folder` does."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return open_folder(str(folder), names, lambda name: nullcontext(folder / name))


def open_folder(
    folder: str, names: Iterable[str], fetched: Callable[[str], AbstractContextManager[Path]]
) -> Vectors:
    """Open what holds files of these names: `Vectors` says the rest.

    Raises VectorsError for a folder that has no such card, or no Parquet file.
    """
    names = set(names)
    if CARD not in names:
        raise VectorsError(
            f"{folder}/{CARD}: there is no such file: {folder} is no folder of vectors"
        )
    try:
        with fetched(CARD) as card:
            found = VectorsCard.model_validate_json(card.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all"
        raise VectorsError(f"{folder}/{CARD}: {place}: {first['msg']}") from error
    files = tuple(sorted(name for name in names if name.endswith(".parquet") and name not in LISTS))
    if not files:
        raise VectorsError(f"{folder}: holds no .parquet file")
    return Vectors(folder, found, files, fetched)


def _read_tombstones(file: Path) -> dict[str, frozenset[str]]:
    """By the name of a file of vectors the ids of its rows that no longer hold.

    Raises VectorsError for what is no such list.
    """
    try:
        rows = pq.read_table(file, columns=["file", "id"])
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise VectorsError(f"{file}: cannot be read as tombstones: {reason}") from error
    listed = rows.group_by("file").aggregate([("id", "list")])
    files, ids = listed["file"].to_pylist(), listed["id_list"].to_pylist()
    return {name: frozenset(found) for name, found in zip(files, ids, strict=True)}


def write_vectors(
    folder: Path,
    batches: Iterable[VectorBatch],
    *,
    network: str = "",
    number: Literal["float16", "float32"] = "float32",
) -> Findings:
    """Replace `folder` by vectors, normalised, as they come; what they looked like.

    network: as in `VectorsCard`. Raises VectorsError as `checked` does; the folder then stays.
    """
    findings = Findings()
    with replacing_folder(folder) as new:
        names = (new / f"part-{number:05}.parquet" for number in count())
        rows = checked(batches, str(folder), findings)
        batch = next(rows, None)
        while batch is not None:
            dim = batch.vectors.shape[1]
            vector = pa.list_(pa.float16() if number == "float16" else pa.float32(), dim)
            schema = pa.schema([("id", pa.string()), ("vector", vector), ("content", pa.string())])
            written = 0
            with pq.ParquetWriter(next(names), schema) as writer:
                while batch is not None and written < ROWS_PER_FILE:
                    values = pa.array(batch.vectors.astype(number).ravel())
                    listed = pa.FixedSizeListArray.from_arrays(values, dim)
                    columns = [pa.array(batch.ids), listed, pa.array(batch.content, pa.string())]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    written += len(batch.ids)
                    batch = next(rows, None)
        card = VectorsCard(dim=findings.dim, network=network)
        write_text(new / CARD, card.model_dump_json(indent=2) + "\n")
    return findings
