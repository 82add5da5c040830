"""Structures of FAISS: what proposes the rows of a database that may be nearest to a query."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from jaxtyping import Float, Int

from pipeline.files import replacing
from pipeline.search.vector_index import (
    exact_neighbours,
    share_found,
    similarities_of_others,
)

IndexKind = Literal["exact", "hnsw", "ivfpq"]
MOST_LISTS = 1 << 14
MOST_CODED = 8  # numbers that a byte of ivfpq stands for
ROWS_AT_ONCE = 1 << 15
SCANNED = 64  # vectors are compared in the time that hnsw takes for one candidate
ASKED = 200  # rows whose ten nearest decide how many lists are looked into
LEAST_FOUND = 0.95  # of them, among the rows that are proposed


def write_exact_index(path: Path, vectors: Float[np.ndarray, "database dim"]) -> None:
    """An exact inner-product index, ids being the rows."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))


def write_image_index(
    path: Path,
    vectors: Float[np.ndarray, "database dim"],
    ids: Int[np.ndarray, " database"],
    kind: IndexKind,
    *,
    threads: int,
) -> None:
    """An inner-product index whose entries answer to `ids`.

    kind: exact compares all; hnsw follows a graph of neighbours; ivfpq looks into some lists of an
    inverted file (`choose_lists`), at vectors of one byte for four numbers. threads: with one,
    equal vectors give equal files. Raises ValueError for ivfpq on fewer than 256 vectors.
    """
    use_threads(threads)
    structure = empty_structure(vectors, kind)
    index = faiss.IndexIDMap(structure)  # IndexIDMap2 builds a table of all ids when it is opened
    index.add_with_ids(vectors, ids)
    if kind == "ivfpq":
        choose_lists(structure, [vectors])
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))


def use_threads(threads: int) -> None:
    """Of FAISS, in what this thread does from now on."""
    faiss.omp_set_num_threads(threads)


def empty_structure(vectors: Float[np.ndarray, "database dim"], kind: IndexKind) -> Any:
    """An empty index of the kind; ivfpq has learned its lists from a sample of the vectors, 64 a
    list, a quarter of faiss's own limit. Raises ValueError for ivfpq under 256 vectors, and of a
    number of dimensions with too large prime factors.
    """
    rows, dim = vectors.shape
    flat = faiss.IndexFlatIP(dim)
    if kind == "exact":
        return flat
    if kind == "hnsw":  # 32 links a vector, of 8 bytes
        graph = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efSearch = 128  # candidates; more finds more and takes longer
        return graph
    if rows < 256:  # the centroids of a product quantiser of 8 bits
        raise ValueError(f"ivfpq learns from 256 images or more, and there are {rows}")
    # 39 vectors a list, or k-means is ill-founded; learning takes the square of the lists, which
    # are to be as fine as the classes: where each holds several, their neighbours are in many.
    lists = max(1, min(int(4 * rows**0.5), rows // 39, MOST_LISTS))
    parts = max(part for part in range(1, max(dim // 4, 1) + 1) if dim % part == 0)
    if dim // parts > MOST_CODED:
        raise ValueError(
            f"ivfpq codes equal parts of a vector, and {dim} numbers have none of four to "
            f"{MOST_CODED}: take hnsw or exact"
        )
    coded = faiss.IndexIVFPQ(flat, dim, lists, parts, 8, faiss.METRIC_INNER_PRODUCT)
    coded.cp.min_points_per_centroid = coded.pq.cp.min_points_per_centroid = 1
    coded.cp.max_points_per_centroid = 64
    sampled = np.random.default_rng(0).choice(rows, min(rows, max(64 * lists, 1 << 16)), False)
    coded.train(vectors[np.sort(sampled)].astype(np.float32))
    return coded


def choose_lists(structure: Any, parts: Sequence[Float[np.ndarray, "row dim"]]) -> None:
    """Set how many lists ivfpq looks into, its `nprobe`: the fewest, doubled from one, with which
    `LEAST_FOUND` of the ten nearest of `ASKED` rows are among those that it proposes; where codes
    find less, the fewest of those that find the most.

    structure: holds the vectors of all parts, row by row. They are read once, block by block.
    """
    rows = sum(map(len, parts))
    asked = np.sort(np.random.default_rng(1).choice(rows, min(rows, ASKED), False))
    queries = vectors_of_rows(parts, asked)
    starts = np.cumsum([0, *map(len, parts)])
    blocks = chain.from_iterable(map(row_blocks, parts, starts))
    nearest = similarities_of_others(*exact_neighbours(queries, blocks, 11), asked, 10)
    found: dict[int, float] = {}
    lists = 1
    while max(found.values(), default=0.0) < LEAST_FOUND and lists < 2 * structure.nlist:
        structure.nprobe = min(lists, structure.nlist)
        _, proposed = structure.search(queries, proposals(10, rows))
        vectors = vectors_of_rows(parts, proposed.clip(0).ravel()).reshape(*proposed.shape, -1)
        similarities = np.einsum("qpd,qd->qp", vectors, queries)
        similarities[(proposed < 0) | (proposed == asked[:, None])] = np.nan
        found[structure.nprobe] = float(share_found(similarities, nearest).mean())
        lists *= 2
    structure.nprobe = max(found, key=found.__getitem__)  # the first of equal ones


def proposed_rows(
    structure: Any,
    queries: Float[np.ndarray, "query dim"],
    k: int,
    *,
    removed: Int[np.ndarray, " row"] | None = None,
    exhaustive: bool = False,
) -> Int[np.ndarray, "query proposed"]:
    """The rows that hnsw or ivfpq proposes for the `k` nearest, of which some are -1 where it has
    fewer; ivfpq has at least k, or all.

    It goes the deeper the more are removed: as deep as found the ten nearest, times all / those
    that count; ivfpq times k / 10, too, and hnsw has as many candidates as it proposes. removed:
    rows that do not count. exhaustive: let ivfpq look into all of its lists.
    """
    known: Any = faiss  # whose types lack the parameters
    inner = structure
    if isinstance(structure, faiss.IndexIDMap):
        inner = faiss.downcast_index(structure.index)
    held, kept = structure.ntotal, None
    if removed is not None and len(removed):
        bits = np.zeros(-(-held // 8), np.uint8)
        np.bitwise_or.at(bits, removed // 8, np.uint8(1) << (removed % 8))
        out = faiss.IDSelectorBitmap(held, faiss.swig_ptr(bits))
        kept, held = faiss.IDSelectorNot(out), held - len(removed)
    wanted, deeper = proposals(k, held), structure.ntotal / held
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if isinstance(inner, faiss.IndexHNSW):
        depth = min(int(max(inner.hnsw.efSearch, wanted) * deeper), structure.ntotal)
        parameters = known.SearchParametersHNSW(efSearch=depth, sel=kept)
        rows: np.ndarray = structure.search(queries, wanted, params=parameters)[1]
        return rows
    deeper *= max(1.0, k / 10)
    lists = inner.nlist if exhaustive else min(int(inner.nprobe * deeper), inner.nlist)
    while True:
        parameters = known.SearchParametersIVF(nprobe=lists, sel=kept)
        _, rows = structure.search(queries, wanted, params=parameters)
        if lists == inner.nlist or (rows >= 0).sum(1).min() >= min(k, held):
            return rows
        lists = min(2 * lists, inner.nlist)


def vectors_of_rows(
    parts: Sequence[Float[np.ndarray, "row dim"]], rows: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row dim"]:
    """The vectors of rows, in their order, of parts whose rows are numbered one after the other."""
    out = np.empty((len(rows), parts[0].shape[1]), np.float32)
    start = 0
    for part in parts:
        own = (rows >= start) & (rows < start + len(part))
        out[own] = part[rows[own] - start]
        start += len(part)
    return out


def row_blocks(
    vectors: Float[np.ndarray, "row dim"], first: int = 0
) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]]:
    """The numbers of rows, from `first`, and their vectors, in blocks."""
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        block = vectors[start : start + ROWS_AT_ONCE]
        yield first + start + np.arange(len(block)), block


def proposals(k: int, rows: int) -> int:
    """How many rows a structure proposes, of which the `k` most similar by their vectors count."""
    return min(max(16 * k, 128), rows)


def read_index(path: Path) -> Any:
    """Open an index for searching, memory-mapped: what is searched is read when it is needed.

    Raises ValueError for a file that is no index.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:  # also for a file that is not there
        raise ValueError(f"{path}: is not a whole FAISS index") from error
    if index is None:  # what FAISS writes for no index
        raise ValueError(f"{path}: holds no index")
    return index
