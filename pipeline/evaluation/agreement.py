"""How far a search agrees with the teacher's own: accuracy that needs no labels, exactly.

The teacher's search for image i ranks the rows of its database by their similarity to row i; a
network's search ranks them, or its own database of the same images, by their similarity to its
embedding of image i. Queries are scored a block at a time, so that memory is bounded by the block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.ranks import full_precision

BLOCK_BYTES = 128 * 2**20  # of similarities at a time; one query is the least block
OVERLAP_AT = (1, 10, 100)
RBO_P = 0.9
RBO_DEPTH = 100  # what lies deeper weighs 0.9^100 = 0.003 % in all
COLUMNS = (*(f"overlap_at_{k}" for k in OVERLAP_AT), "self_recall", "rbo", "cosine")


@dataclass(frozen=True, eq=False)
class Search:
    """One network's search. Row i of `queries` is image i, and so is row i of `database`, which
    may have further rows; None: it is the teacher's.
    """

    queries: Float[Tensor, "query dim"]
    database: Float[Tensor, "database dim"] | None = None


def measure_agreement(
    searches: Mapping[str, Search],
    teacher: Float[Tensor, "database teacher_dim"],
) -> dict[str, dict[str, Float[np.ndarray, " query"]]]:
    """For each search the `COLUMNS`, a value a query, of its agreement with the teacher's.

    For query i let T_k be the teacher's k nearest rows and S_k those of the search, row i left out
    of both:
    overlap_at_k = |T_k & S_k| / k, the share of the teacher's k nearest that are found;
    rbo = (|T_D & S_D| / D) p^D + (1-p)/p sum_{d=1..D} (|T_d & S_d| / d) p^d, with p = 0.9: the
    rank-biased overlap to depth D = 100 (or all other rows, if they are fewer), extrapolated beyond
    as if the overlap of depth D went on;
    self_recall = 1 where row i itself, not left out, is the most similar one, else 0;
    cosine = the dot product of the query with row i of the teacher's database.
    The means are fractions of 1. A search of the teacher's own embeddings has 1 everywhere, but
    self_recall where another row is equal.

    Ties count against: rows that one side finds equally similar stand in the order that the other
    side turns round (those that neither tells apart, in that of the rows), and another row as
    similar as the own one is found before it.

    searches: by any name, all of the same images, in one dtype (float32 or float64) and on one
        device, where the work is done.
    teacher: the teacher's database; its first rows are its own queries. Unit rows, as all
        embeddings here.

    overlap_at_k is NaN unless there are more than k other rows: it would be 1 for any search.
    self_recall and cosine are NaN for a search of another database than the teacher's, the others
    too where that lacks rows of the teacher's.

    Raises ValueError on wrong shapes, embeddings that are not finite, and under two rows.
    Sources: rank-biased overlap: Webber, Moffat and Zobel, A Similarity Measure for Indefinite
    Rankings (2010), equation 32, where both rankings have one length.
    """
    for name, one in searches.items():
        _check(name, one, teacher)
    count = len(next(iter(searches.values())).queries)
    found = {name: np.full((count, len(COLUMNS)), np.nan) for name in searches}
    row_bytes = len(teacher) * teacher.element_size() * 3  # two similarities, one order of them
    step = max(1, BLOCK_BYTES // row_bytes)
    depth = min(RBO_DEPTH, len(teacher) - 1)
    with torch.no_grad(), torch.autocast(teacher.device.type, enabled=False), full_precision():
        for start in range(0, count, step):
            rows = torch.arange(start, min(start + step, count), device=teacher.device)
            theirs = _Scores(
                (teacher[rows] @ teacher.T).scatter_(1, rows[:, None], -math.inf), depth
            )
            for name, one in searches.items():
                if one.database is not None and len(one.database) < len(teacher):
                    continue
                scores = one.queries[rows] @ (teacher if one.database is None else one.database).T
                own = scores.gather(1, rows[:, None])[:, 0]
                ours = _Scores(scores.scatter_(1, rows[:, None], -math.inf), depth)
                block = found[name][start : start + len(rows)]
                if one.database is None:
                    block[:, 3] = (own > ours.highest[:, 0]).cpu().numpy()
                    block[:, 5] = own.cpu().numpy()
                shared = _shared(theirs, ours)
                for column, k in enumerate(OVERLAP_AT):
                    if k < len(teacher) - 1:
                        block[:, column] = shared[:, k - 1] / k
                block[:, 4] = rank_biased_overlap(shared)
    return {name: dict(zip(COLUMNS, values.T, strict=True)) for name, values in found.items()}


def rank_biased_overlap(
    shared: Int[np.ndarray, "query depth"], p: float = RBO_P
) -> Float[np.ndarray, " query"]:
    """Extrapolated rank-biased overlap from the number of shared items at each depth 1, 2, ..."""
    depths = np.arange(1, shared.shape[1] + 1)
    agreement = shared / depths
    return agreement[:, -1] * p ** depths[-1] + (1 - p) / p * (agreement * p**depths).sum(axis=1)


class _Scores:
    """Similarities of a block of queries to all rows, and where the highest of each lie: one more
    than `depth`, which tells whether others are as high.
    """

    def __init__(self, all_rows: Float[Tensor, "row database"], depth: int) -> None:
        self.all_rows, self.depth = all_rows, depth
        self.highest, self.at = all_rows.topk(depth + 1, dim=1)


def _shared(theirs: _Scores, ours: _Scores) -> Int[np.ndarray, "row depth"]:
    """How many rows the first d of both rankings share, for d = 1 .. depth."""
    first, second, depth = _nearest(theirs, ours), _nearest(ours, theirs), ours.depth
    # A shared row counts from the deeper of its two places on.
    order = second.argsort(dim=1)
    ascending = second.gather(1, order)
    at = torch.searchsorted(ascending, first).clamp_(max=depth - 1)
    is_shared = ascending.gather(1, at) == first
    place = torch.where(is_shared, order.gather(1, at), depth)
    deeper = torch.maximum(place, torch.arange(depth, device=place.device))
    counts = torch.zeros(len(place), depth + 1, dtype=torch.long, device=place.device)
    counts.scatter_add_(1, deeper, torch.ones_like(deeper))
    return counts[:, :depth].cumsum(dim=1).cpu().numpy()


def _nearest(scores: _Scores, other: _Scores) -> Int[Tensor, "row depth"]:
    """The rows of highest similarity, best first; equal ones in ascending order of the other's."""
    depth = scores.depth
    found = scores.at[:, :depth].sort(dim=1).values  # what both leave open goes by the row
    found = _ordered(scores.all_rows, other.all_rows, found)
    # Which of equal ones are in reach, topk leaves open: such rows are sorted in full.
    is_open = scores.highest[:, depth - 1] == scores.highest[:, depth]
    everything = torch.arange(scores.all_rows.shape[1], device=found.device)[None]
    for row in is_open.nonzero()[:, 0].tolist():
        one = slice(row, row + 1)
        whole = _ordered(scores.all_rows[one], other.all_rows[one], everything)
        found[one] = whole[:, :depth]
    return found


def _ordered(
    similarity: Float[Tensor, "row database"],
    other: Float[Tensor, "row database"],
    columns: Int[Tensor, "row column"],
) -> Int[Tensor, "row column"]:
    """Columns by falling similarity, equal ones by rising `other`, then as they stand."""
    columns = columns.gather(1, other.gather(1, columns).argsort(dim=1, stable=True))
    falling = similarity.gather(1, columns).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, falling)


def _check(name: str, search: Search, teacher: Float[Tensor, "database dim"]) -> None:
    query, database = search.queries, teacher if search.database is None else search.database
    if query.ndim != 2 or teacher.ndim != 2 or query.shape[1] != database.shape[-1]:
        raise ValueError(
            f"{name}: queries are {tuple(query.shape)}, their database {tuple(database.shape)} and "
            f"the teacher's {tuple(teacher.shape)}: must be [row, dim], of one dim in a search"
        )
    if len(teacher) < 2 or not 0 < len(query) <= len(teacher):
        raise ValueError(
            f"{name}: {len(query)} queries and {len(teacher)} rows of the teacher's: must be one "
            "query or more, two rows or more, and each query's own row among them"
        )
    if not len(query) <= len(database) <= len(teacher):
        raise ValueError(
            f"{name}: its database has {len(database)} rows: must have {len(query)}, one a query, "
            f"to {len(teacher)}, as the teacher's"
        )
    for what, one in (("queries", query), ("database", database), ("teacher", teacher)):
        if not one.sum().isfinite():  # without a copy; sums of unit rows do not overflow
            raise ValueError(f"{name}: {what} hold NaN or infinite values: must be finite")
