"""Ranks of the positives of every query, by counting: no ranking is sorted out in full.

The rank of a positive is one more than the number of database rows before it. Queries are scored a
block at a time, so that memory is bounded by the block.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_BYTES = 256 * 2**20  # of similarities at a time; one query is the least block
# Above this many positives a query, one sort of its row is cheaper than one comparison a positive:
# measured on two cores as 2.4 ns an element against 0.27 ns an element and positive (SOP size).
COMPARED_POSITIVES = 8
CACHED_COLUMNS = 65_536
# Index, mask and scores that one positive of one query takes while its ranks are counted.
POSITIVE_BYTES = 64


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in float32, whatever a training run has set (TF32 would reorder results)."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    with ExitStack() as given_back:
        for backend in backends:
            given_back.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        yield


class Positives:
    """The database rows of each query's class, as a range of `by_label`, and what is left out."""

    def __init__(
        self,
        query_labels: Int[np.ndarray, " query"],
        database_labels: Int[np.ndarray, " database"],
        excluded_row: Int[np.ndarray, " query"] | None,
    ) -> None:
        self.by_label = np.argsort(database_labels, kind="stable")
        sorted_labels = database_labels[self.by_label]
        self.first = np.searchsorted(sorted_labels, query_labels)
        self.same_label = np.searchsorted(sorted_labels, query_labels, side="right") - self.first
        self.count = self.same_label
        self.excluded_row = excluded_row
        if excluded_row is not None:
            last = len(database_labels) - 1
            if excluded_row.min() < 0 or excluded_row.max() > last:
                raise ValueError(f"excluded_row: must lie in 0..{last}, the database rows")
            self.count = self.same_label - (database_labels[excluded_row] == query_labels)

    def columns(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[Int[np.ndarray, "row column"], Bool[np.ndarray, "row column"]]:
        """Database rows of the queries' classes, padded, and which entries are no positives."""
        same_label = self.same_label[rows, None]
        offset = np.arange(same_label.max())
        column = self.by_label.take(self.first[rows, None] + offset, mode="clip")
        other = offset >= same_label
        if self.excluded_row is not None:
            other |= column == self.excluded_row[rows, None]
        return column, other


def rank_blocks(
    query: Float[Tensor, "query dim"],
    database: Float[Tensor, "database dim"],
    positives: Positives,
) -> Iterator[tuple[Int[np.ndarray, " row"], Int[np.ndarray, "row positive"]]]:
    """Queries of one block and the ranks of their positives, best first, then padding."""
    # Queries with equally many positives share a block, so that next to nothing is padding.
    order = np.argsort(positives.count, kind="stable")
    order = order[positives.count[order] > 0]
    widest = int(positives.same_label.max())
    row_bytes = len(database) * database.element_size() + widest * POSITIVE_BYTES
    block_rows = min(max(1, BLOCK_BYTES // row_bytes), len(query))
    buffer = query.new_empty(block_rows, len(database))
    for start in range(0, len(order), block_rows):
        rows = order[start : start + block_rows]
        at_device = torch.from_numpy(rows).to(query.device)
        similarity = torch.mm(query[at_device], database.T, out=buffer[: len(rows)])
        column, other = (
            torch.from_numpy(part).to(query.device) for part in positives.columns(rows)
        )
        if positives.excluded_row is not None:
            excluded = torch.from_numpy(positives.excluded_row[rows, None]).to(query.device)
            similarity.scatter_(1, excluded, -math.inf)
        score = similarity.gather(1, column).masked_fill_(other, -math.inf)
        score = score.sort(dim=1, descending=True).values
        score = score[:, : int(positives.count[rows].max())].contiguous()
        at_least = _count_at_least(similarity, score)
        yield rows, _ranks(at_least.cpu().numpy(), score.cpu().numpy())


def _ranks(
    at_least: Int[np.ndarray, "row positive"], score: Float[np.ndarray, "row positive"]
) -> Int[np.ndarray, "row positive"]:
    """Ranks from the number of similarities that reach each positive's score, best score first."""
    position = np.arange(1, score.shape[1] + 1)
    # The last of equal scores has as many positives that reach it as its position says.
    last = np.ones(score.shape, dtype=np.bool_)
    last[:, :-1] = score[:, 1:] != score[:, :-1]
    reaching = np.where(last, position, score.shape[1])[:, ::-1]
    reaching = np.minimum.accumulate(reaching, axis=1)[:, ::-1]
    # Equal positives rank one after the other, behind the equal negatives.
    return at_least - reaching + position


def _count_at_least(
    similarity: Float[Tensor, "row database"], threshold: Float[Tensor, "row positive"]
) -> Int[Tensor, "row positive"]:
    """How many similarities of its row reach each threshold; may reorder the rows' similarities."""
    if threshold.shape[1] > COMPARED_POSITIVES:
        ascending = _sort_rows(similarity)
        return similarity.shape[1] - torch.searchsorted(ascending, threshold)
    if similarity.device.type == "cpu":
        return _compare_rows(similarity, threshold)
    return torch.stack([(similarity >= column[:, None]).sum(1) for column in threshold.T], dim=1)


def _compare_rows(
    similarity: Float[Tensor, "row database"], threshold: Float[Tensor, "row positive"]
) -> Int[Tensor, "row positive"]:
    """NumPy, by parts of a row that stay in the cache: 8 times as fast as torch's (>=).sum()."""
    count = np.zeros(threshold.shape, dtype=np.int64)
    similarities, thresholds = similarity.numpy(), threshold.numpy()
    for start in range(0, similarities.shape[1], CACHED_COLUMNS):
        part = similarities[:, start : start + CACHED_COLUMNS]
        reached = np.empty(part.shape[1], dtype=np.bool_)
        for row, scores in enumerate(part):
            for positive, score in enumerate(thresholds[row]):
                np.greater_equal(scores, score, out=reached)
                count[row, positive] += np.count_nonzero(reached)
    return torch.from_numpy(count)


def _sort_rows(similarity: Float[Tensor, "row database"]) -> Float[Tensor, "row database"]:
    """Every row ascending; on the CPU in place, by NumPy's vectorised sort on torch's threads."""
    if similarity.device.type != "cpu":
        return similarity.sort(dim=1).values
    parts = np.array_split(similarity.numpy(), 4 * torch.get_num_threads())
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda part: part.sort(axis=1), parts))
    return similarity
