"""Vectors by image id as they come, batch by batch, and what is checked of them."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from pipeline.datasets.parquet import BUFFER_BYTES
from pipeline.datasets.reader import enumerate_names

ROWS_AT_ONCE = 4096
UNIT_TOLERANCE = 2e-3  # of a norm: float16 rounds each number by 5e-4 of itself at the most
_NAMES_SHOWN = 5


class VectorsError(ValueError):
    """Vectors that cannot be read, or are not what their ids and their card say."""


@dataclass(frozen=True)
class VectorBatch:
    """Some rows: the ids of images, a vector each, and hashes of their bytes, empty if unknown."""

    ids: list[str]
    vectors: np.ndarray
    content: list[str]


@dataclass
class Findings:
    """What vectors looked like as they came: told, since normalising mends it."""

    rows: int = 0
    dim: int = 0
    numbers: set[str] = field(default_factory=set)
    least_norm: float = float("inf")
    largest_norm: float = 0.0

    def lines(self) -> list[str]:
        """A line for number types, and one for norms that are not 1."""
        lines = [f"{self.rows} vectors of {self.dim} numbers, {' and '.join(sorted(self.numbers))}"]
        if max(abs(self.least_norm - 1), abs(self.largest_norm - 1)) > UNIT_TOLERANCE:
            norms = f"norms from {self.least_norm:.4g} to {self.largest_norm:.4g}"
            lines.append(f"not of unit length ({norms}): they are normalised here")
        return lines


def checked(
    batches: Iterable[VectorBatch], source: str, findings: Findings, *, may_be_empty: bool = False
) -> Iterator[VectorBatch]:
    """The batches with unit vectors in float32; `findings` is filled on the way.

    source: named in messages. Raises VectorsError: as many ids as vectors are not there, an empty
    id or one that comes twice, vectors of several lengths or of numbers that cannot be scaled, NaN,
    infinite numbers and zero vectors, and no vector at all unless it `may_be_empty`.
    """
    seen: list[np.ndarray] = []
    for batch in batches:
        ids, given = batch.ids, batch.vectors
        if given.ndim != 2 or len(given) != len(ids) or len(batch.content) != len(ids):
            shape = " x ".join(map(str, given.shape))
            raise VectorsError(f"{source}: {len(ids)} ids and {shape} numbers do not fit")
        if given.dtype.kind not in "fi":
            raise VectorsError(
                f"{source}: its numbers are {given.dtype}: must be floating-point, or signed "
                "integers, whose zero is known"
            )
        if not ids:
            continue
        findings.dim = findings.dim or given.shape[1]
        if given.shape[1] != findings.dim or not findings.dim:
            raise VectorsError(
                f"{source}: vectors have {findings.dim} and {given.shape[1]} numbers"
            )
        _check_ids(source, ids, seen)
        with np.errstate(over="ignore"):  # what becomes infinite is told
            vectors = given.astype(np.float32)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        for what, faulty in (
            ("numbers that are not finite", ~np.isfinite(norms)),
            ("nothing but zeros", norms == 0),
        ):
            if faulty.any():
                named = enumerate_names(np.array(ids)[faulty], _NAMES_SHOWN)
                raise VectorsError(f"{source}: vectors hold {what}: {named}: remove or mend them")
        findings.rows += len(ids)
        findings.numbers.add(str(given.dtype))
        findings.least_norm = min(findings.least_norm, float(norms.min()))
        findings.largest_norm = max(findings.largest_norm, float(norms.max()))
        unit = (vectors / norms[:, None]).astype(np.float32)
        yield VectorBatch(ids, unit, batch.content)
    if not findings.rows and not may_be_empty:
        raise VectorsError(f"{source}: holds no vector")


def _check_ids(source: str, ids: list[str], seen: list[np.ndarray]) -> None:
    """Note the ids as seen. Raises VectorsError for an empty one, and for one that was there.

    seen: hashes of 64 bits in ascending runs, each of half the length of the one before it or
    less: 8 bytes an id. That two of 10^7 ids have one hash happens in 3 of 10^6 processes.
    """
    if "" in ids:
        raise VectorsError(f"{source}: a row has no id")
    run = hashes(ids)
    is_known = np.zeros(len(ids), np.bool_)
    for earlier in seen:
        is_known |= are_in(run, earlier)
    _, first = np.unique(run, return_index=True)
    is_known[np.setdiff1d(np.arange(len(ids)), first)] = True
    if is_known.any():
        named = enumerate_names(np.array(ids, object)[is_known], _NAMES_SHOWN)
        raise VectorsError(f"{source}: ids come twice: {named}: which vector holds?")
    seen.append(np.sort(run))
    while len(seen) > 1 and len(seen[-2]) <= 2 * len(seen[-1]):
        seen[-2:] = [np.sort(np.concatenate(seen[-2:]), kind="stable")]


def hashes(ids: Sequence[str]) -> Int[np.ndarray, " id"]:
    """64 bits for each id, the same for equal ones in one process, and never -1."""
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def are_in(
    asked: Int[np.ndarray, " id"], known: Int[np.ndarray, " known"]
) -> Bool[np.ndarray, " id"]:
    """Of each hash whether it is among these, which ascend; one or more."""
    return known[np.searchsorted(known, asked).clip(max=len(known) - 1)] == asked


def without_ids(batches: Iterable[VectorBatch], left_out: frozenset[str]) -> Iterator[VectorBatch]:
    """The batches without the rows of some ids."""
    for batch in batches:
        kept = [place for place, one in enumerate(batch.ids) if one not in left_out]
        content = [batch.content[place] for place in kept]
        ids = [batch.ids[place] for place in kept]
        yield (
            batch if len(kept) == len(batch.ids) else VectorBatch(ids, batch.vectors[kept], content)
        )


def vectors_of(
    ids: Sequence[str], batches: Iterable[VectorBatch], source: str
) -> Float[np.ndarray, "image dim"]:
    """The vectors of some ids, in their order, out of checked batches, of which one is held.

    Of names with accents any form of these is the same (`id_key`).

    Raises VectorsError for ids that are not there, with what the stored ones look like, and for one
    that is there in two forms.
    """
    places = {id_key(one): place for place, one in enumerate(ids)}
    found: dict[int, np.ndarray] = {}
    others: list[str] = []
    for batch in batches:
        for one, vector in zip(batch.ids, batch.vectors, strict=True):
            if (place := places.get(id_key(one))) is not None:
                if place in found:
                    raise VectorsError(
                        f"{source}: ids come twice, in two forms of their accents: {one}: which "
                        "vector holds?"
                    )
                found[place] = vector.copy()  # a row alone would hold its whole batch
            elif len(others) < _NAMES_SHOWN:
                others.append(one)
    if missing := [one for place, one in enumerate(ids) if place not in found]:
        stored = f"; others are there: {', '.join(others)}" if others else ""
        raise VectorsError(
            f"{source}: {len(missing)} of {len(ids)} images have no vector: "
            f"{enumerate_names(missing, _NAMES_SHOWN)}{stored}: an image's id is its path "
            "below the folder of images, or the column `id` of a table of images"
        )
    return np.stack([found[place] for place in range(len(ids))])


def id_key(one: str) -> str:
    """What an id is known by: a file's name may have another form of accents than a table."""
    return unicodedata.normalize("NFC", one)


def parquet_batches(file: Path, id_column: str, vector_column: str) -> Iterator[VectorBatch]:
    """The rows of a Parquet file as they are. Raises VectorsError, also where a column lacks."""
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES) as opened:
            names = opened.schema_arrow.names
            columns = columns_read(str(file), file.name, names, (id_column, vector_column))
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield batch_of_rows(batch, id_column, vector_column, str(file))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names and ids are decoded
        reason = " ".join(str(error).split())
        raise VectorsError(f"{file}: cannot be read as Parquet: {reason}") from error


def columns_read(
    source: str, shown: str, there: Sequence[str], wanted: tuple[str, str]
) -> list[str]:
    """The columns to read of those that are `there`: ids, vectors and, if there, contents.

    Raises VectorsError for ids or vectors that are not, and says how to name others of `shown`, and
    for a name that two columns have.
    """
    columns = [*wanted, *({"content"} & set(there))]
    if twice := [name for name in columns if there.count(name) > 1]:
        raise VectorsError(f"{source}: has two columns {enumerate_names(map(repr, twice))}")
    if missing := [name for name in wanted if name not in there]:
        raise VectorsError(
            f"{source}: has no column {' and no column '.join(map(repr, missing))}; it has "
            f"{', '.join(there)}: name others as {shown}?id=COLUMN&vector=COLUMN"
        )
    return columns


def batch_of_rows(
    rows: pa.RecordBatch, id_column: str, vector_column: str, source: str
) -> VectorBatch:
    """Rows of a table as they are, ids as text. Raises VectorsError for no ids or no vectors."""
    ids = rows.column(id_column)
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if not (pa.types.is_integer(ids.type) or _is_text(ids.type)):
        raise VectorsError(f"{source}: the column {id_column!r} holds {ids.type}, no ids")
    texts = [one or "" for one in ids.cast(pa.string()).to_pylist()]
    content = [""] * len(texts)
    if "content" in rows.schema.names and _is_text(rows.column("content").type):
        content = [one or "" for one in rows.column("content").to_pylist()]
    vectors = _vector_rows(rows.column(vector_column), f"{source}: the column {vector_column!r}")
    return VectorBatch(texts, vectors, content)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)  # pandas writes the latter


def _vector_rows(column: pa.Array, what: str) -> np.ndarray:
    """A column of lists of numbers as one array [row, dim]. Raises VectorsError."""
    kinds = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise VectorsError(f"{what} holds {column.type}, no lists of numbers")
    number = column.type.value_type
    if not (pa.types.is_floating(number) or pa.types.is_integer(number)):
        raise VectorsError(f"{what} holds lists of {number}, no numbers")
    if column.null_count:
        raise VectorsError(f"{what} is empty in {column.null_count} rows")
    lengths = sorted(pc.unique(pc.list_value_length(column)).to_pylist())
    if len(lengths) > 1:
        raise VectorsError(f"{what} holds vectors of {' and '.join(map(str, lengths[:3]))} numbers")
    values = column.flatten()
    if values.null_count:
        raise VectorsError(f"{what} holds {values.null_count} empty numbers")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
