"""The one form of vectors on disk.

A folder of Parquet files with the columns `id` (text), `vector` (fixed-size list of float16 or
float32, unit length) and `content` (hash of the image's bytes, or empty), and a `card.json`.
Vectors are read and written in batches; beside one, memory holds the ids.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
ROWS_PER_FILE = 1 << 18


class VectorsCard(BaseModel):
    """What is known of the vectors of a folder.

    network: digest of the network and the preprocessing that made them; empty where nobody knows.
    tombstones: ids that were deleted; their rows may still lie in the files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    dim: Annotated[int, Field(gt=0)]
    network: str = ""
    tombstones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vectors:
    """The open folder of vectors; `batches` reads it anew each time."""

    folder: Path
    card: VectorsCard
    files: tuple[Path, ...]

    def batches(self) -> Iterator[VectorBatch]:
        """The rows that are not deleted, in order, unit vectors in float32. Raises VectorsError."""
        found = (batch for file in self.files for batch in parquet_batches(file, "id", "vector"))
        kept = without_ids(found, frozenset(self.card.tombstones))
        for batch in checked(kept, str(self.folder), Findings()):
            if batch.vectors.shape[1] != self.card.dim:
                length = batch.vectors.shape[1]
                raise VectorsError(
                    f"{self.folder}: its vectors have {length} numbers, {CARD} says {self.card.dim}"
                )
            yield batch


def read_vectors(folder: Path) -> Vectors:
    """Open a folder of vectors.

    Raises VectorsError for a folder that has no such card, or no Parquet file.
    """
    card = folder / CARD
    if not card.is_file():
        raise VectorsError(f"{card}: there is no such file: {folder} is no folder of vectors")
    try:
        found = VectorsCard.model_validate_json(card.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all"
        raise VectorsError(f"{card}: {place}: {first['msg']}") from error
    files = tuple(sorted(folder.glob("*.parquet")))
    if not files:
        raise VectorsError(f"{folder}: holds no .parquet file")
    return Vectors(folder, found, files)


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
