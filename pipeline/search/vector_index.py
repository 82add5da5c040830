"""Vectors under stable ids that can be searched: one interface, whatever keeps them.

An index is a folder with a card, index.json, and the files of what keeps the vectors: FAISS
(`faiss_index`), LanceDB or Qdrant (`stores`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.datasets.vector_batches import VectorBatch
from pipeline.files import write_text

CARD = "index.json"
NUMBERS_AT_ONCE = 1 << 18
TIED = 1e-6  # cosines that differ by less are equal: float32 rounds each of its sums otherwise
Kind = Literal["exact", "hnsw", "ivfpq", "lancedb", "qdrant"]
Number = Literal["float16", "float32"]


class VectorIndexCard(BaseModel):
    """What an index is.

    network: of `VectorsCard`, of all its vectors. number: how FAISS's kinds keep them. server: of
    Qdrant, HOST:PORT/COLLECTION; empty for its local mode, in the folder. sources: the folders of
    vectors, or their addresses without a secret, that it was built from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: Kind
    dim: Annotated[int, Field(gt=0)]
    network: str
    number: Number = "float32"
    server: str = ""
    sources: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        write_text(folder / CARD, self.model_dump_json(indent=2) + "\n")


@dataclass(frozen=True)
class Neighbours:
    """What queries found, each a list of ids and their cosines, best first."""

    ids: list[list[str]]
    similarities: list[list[float]]


class VectorIndex(Protocol):
    """The four calls. Vectors are unit ones, in float32; the ids of one call differ."""

    card: VectorIndexCard

    def __len__(self) -> int: ...

    def upsert(self, batches: Iterable[VectorBatch]) -> int:
        """Put vectors in, each in the place of one of its id, if there is one; how many."""

    def delete(self, ids: Sequence[str]) -> int:
        """Take vectors out; how many were there."""

    def search(
        self, queries: Float[np.ndarray, "query dim"], k: int, *, exhaustive: bool = False
    ) -> Neighbours:
        """The `k` nearest of each query, fewer where there are fewer.

        exhaustive: compare with all vectors, in the form in which the index keeps them.
        """

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[VectorBatch]:
        """What is held under these ids, as far as it is; without ids all, in blocks."""


def read_card(folder: Path) -> VectorIndexCard:
    """The card of an index. Raises ValueError where there is none, or one of another form."""
    path = folder / CARD
    if not path.is_file():
        raise ValueError(
            f"{folder} is no index ({CARD} is not there): `l2s index build VECTORS --to {folder} "
            f"--kind {'|'.join(get_args(Kind))}` makes one"
        )
    if not is_vector_index(folder):
        raise ValueError(
            f"{folder} is an index of pictures, not of vectors: `l2s index PICTURES --name "
            f"{folder.resolve().name}` extends it, with --rebuild from that folder alone"
        )
    try:
        return VectorIndexCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all"
        raise ValueError(
            f"{path}: {place}: {first['msg']}: an index of another version is built anew"
        ) from error


def is_vector_index(folder: Path) -> bool:
    """Whether a folder has the card of such an index: those of pictures have one of other form."""
    path = folder / CARD
    with suppress(FileNotFoundError):  # a build may put another folder in its place
        return path.is_file() and '"format"' in path.read_text(encoding="utf-8", errors="replace")
    return False


def contents(batch: VectorBatch) -> list[str]:
    """What tells whether a row has changed: the hash of the image, or where nobody knows it, that
    of the vector in float16, which the normalising of one that was stored does not change.
    """
    return [
        content or f"vector-{blake2b(half.tobytes(), digest_size=8).hexdigest()}"
        for content, half in zip(batch.content, batch.vectors.astype(np.float16), strict=True)
    ]


def exact_neighbours(
    queries: Float[np.ndarray, "query dim"],
    blocks: Iterable[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]],
    k: int,
) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"]]:
    """The highest inner products of each query with the vectors of all blocks, and their rows.

    One matrix product a block; memory goes by queries, k and block, not by the number of vectors.
    Where there are fewer than `k` vectors, rows are -1. blocks: rows' numbers, and their vectors.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for rows, vectors in blocks:
        if len(rows):
            vectors = widened(vectors)
            nearest = min(k, len(rows))
            scores, places = faiss.knn(queries, vectors, nearest, faiss.METRIC_INNER_PRODUCT)
            heap.add_result(scores, rows[places])
    heap.finalize()
    return heap.D, heap.I


def widened(vectors: Float[np.ndarray, "row dim"]) -> Float32[np.ndarray, "row dim"]:
    """Finite vectors in float32, exactly: of float16 over three times as fast as numpy converts.

    Sign, exponent and fraction move to their places, and a power of two makes up for the other
    origin of exponents; by rows that stay in a core's cache.
    """
    if vectors.dtype != np.float16:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    wide = np.empty(vectors.shape, np.float32)
    bits, halves = wide.view(np.int32), np.ascontiguousarray(vectors).view(np.int16)
    rows = max(1, NUMBERS_AT_ONCE // vectors.shape[1])
    for start in range(0, len(wide), rows):
        own = slice(start, start + rows)
        np.left_shift(halves[own], 13, out=bits[own], dtype=np.int32)
        bits[own] &= ~0x70000000  # copies of the sign
        wide[own] *= np.float32(2.0**112)
    return wide


def similarities_of_others(
    similarities: Float[np.ndarray, "query found"],
    rows: Int[np.ndarray, "query found"],
    own: Int[np.ndarray, " query"],
    k: int,
) -> Float[np.ndarray, "query k"]:
    """Those of the first k of each list without the query's own row; best first, k or more."""
    lists = zip(similarities, rows != own[:, None], strict=True)
    return np.stack([one[is_other][:k] for one, is_other in lists])


def share_found(
    found: Float[np.ndarray, "query found"], nearest: Float[np.ndarray, "query k"]
) -> Float[np.ndarray, " query"]:
    """The share of the k nearest of each query that were found, by similarities: of those that are
    as near as the k-th any counts, but for no nearer one.

    found: NaN for none. nearest: best first.
    """
    last, k = nearest[:, -1:], nearest.shape[1]
    nearer = (nearest > last + TIED).sum(1)
    of_nearer = np.minimum((found > last + TIED / 2).sum(1), nearer)  # a little apart: rounding
    of_last = np.minimum((found >= last - TIED).sum(1) - of_nearer, k - nearer)
    return (of_nearer + of_last) / k


def sample_rows(batches: Iterable[VectorBatch], count: int, seed: int) -> tuple[int, VectorBatch]:
    """How many rows there are, and `count` of them, or all, drawn without replacement."""
    source = np.random.default_rng(seed)
    rows, kept, lots = 0, VectorBatch([], np.empty((0, 0), np.float32), []), np.empty(0)
    for batch in batches:
        rows += len(batch.ids)
        drawn = source.random(len(batch.ids))
        low = np.flatnonzero(drawn < lots.max()) if len(lots) == count else np.arange(len(drawn))
        if len(low):
            lots = np.concatenate([lots, drawn[low]])
            kept = joined([kept, chosen(batch, low)] if kept.ids else [chosen(batch, low)])
            first = np.argsort(lots)[:count]
            lots, kept = lots[first], chosen(kept, first)
    return rows, kept


def chosen(batch: VectorBatch, places: Int[np.ndarray, " row"]) -> VectorBatch:
    """Some rows of a batch."""
    ids, content = ([of[place] for place in places.tolist()] for of in (batch.ids, batch.content))
    return VectorBatch(ids, batch.vectors[places], content)


def joined(batches: Sequence[VectorBatch]) -> VectorBatch:
    """The rows of batches as one."""
    return VectorBatch(
        [one for batch in batches for one in batch.ids],
        np.concatenate([batch.vectors for batch in batches]),
        [one for batch in batches for one in batch.content],
    )
