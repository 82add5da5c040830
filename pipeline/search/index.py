"""FAISS indexes: of a study's database, and of further images under stable ids."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.files import replacing

IndexKind = Literal["exact", "hnsw", "ivfpq"]

_HNSW_NEIGHBOURS = 32  # links a vector; the graph takes 8 bytes a link
_HNSW_BREADTH = 128  # candidates kept while searching; more finds more and takes longer
_CODEBOOK = 256  # centroids of a product quantiser of 8 bits, and so the least training set
_PROBED_SHARE = 8  # one list of the inverted file in so many is searched,
_MOST_PROBED = 128  # and no more than so many
_POINTS_PER_LIST = 64  # that the lists' centres are learnt from: a quarter of faiss's own limit


def write_exact_index(path: Path, vectors: Float[Tensor, "database dim"]) -> None:
    """An exact inner-product index, ids being the rows."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.float().cpu().numpy())
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

    kind: exact compares all; hnsw follows a graph of neighbours; ivfpq looks into an eighth of the
    lists of an inverted file, 128 at most, at vectors of one byte for four numbers. threads: with
    one, equal vectors give equal files. Raises ValueError for ivfpq on fewer than 256 vectors.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    structure = _structure(vectors, kind)
    index = faiss.IndexIDMap(structure)  # IndexIDMap2 builds a table of all ids when it is opened
    index.add_with_ids(vectors, ids)
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))


def _structure(vectors: Float[np.ndarray, "database dim"], kind: IndexKind) -> Any:
    """An empty index of the kind, trained where it must be."""
    import faiss

    rows, dim = vectors.shape
    if kind == "exact":
        return faiss.IndexFlatIP(dim)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efSearch = _HNSW_BREADTH
        return graph
    if rows < _CODEBOOK:
        raise ValueError(f"ivfpq learns from {_CODEBOOK} images or more, and there are {rows}")
    lists = max(1, min(int(4 * rows**0.5), rows // 39))  # 39 a list, or k-means is ill-founded
    parts = max(part for part in range(1, max(dim // 4, 1) + 1) if dim % part == 0)
    coded = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(dim), dim, lists, parts, 8, faiss.METRIC_INNER_PRODUCT
    )
    coded.cp.min_points_per_centroid = coded.pq.cp.min_points_per_centroid = 1
    coded.cp.max_points_per_centroid = _POINTS_PER_LIST
    coded.nprobe = min(-(-lists // _PROBED_SHARE), _MOST_PROBED)
    coded.train(vectors)
    return coded


def read_index(path: Path) -> Any:
    """Open an index for searching, memory-mapped: what is searched is read when it is needed.

    Raises ValueError for a file that is no index.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:  # also for a file that is not there
        raise ValueError(f"{path}: is not a whole FAISS index") from error
