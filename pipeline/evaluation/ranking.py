"""Exact retrieval metrics, made of the ranks of each query's positives in the full ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.ranks import Positives, full_precision, rank_blocks

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "average_precision",
    "average_precision_trapezoid",
    "average_precision_at_r",
    "first_hit_rank",
)


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """Means over the queries that have a positive, fractions of 1, and the values behind them.

    map: mean `average_precision`; map_trapezoid: mean `average_precision_trapezoid`; map_at_r:
    mean `average_precision_at_r`; recall_at: k -> share of the queries whose first positive ranks
    k or better; excluded_queries: number of queries without a positive, in none of the means;
    query_metrics: the columns of `per_query`.
    """

    map: float
    map_trapezoid: float
    map_at_r: float
    recall_at: dict[int, float]
    excluded_queries: int
    query_metrics: dict[str, Float[np.ndarray, " query"]]

    @property
    def per_query(self) -> "pd.DataFrame":
        """One row a query, in order, columns `COLUMNS`; NaN where the query has no positive."""
        import pandas as pd

        return pd.DataFrame(self.query_metrics)


def evaluate_retrieval(
    query: Float[Tensor, "query dim"],
    database: Float[Tensor, "query dim"],
    labels: Int[Tensor, " query"],
    *,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> RetrievalResult:
    """Leave-one-out metrics: every image a query against the database of all the other images.

    query, database: embeddings, float32 or float64; row i of both is the same image and is left
        out of its own result by its index, however similar other rows are.
    labels: class of each image; the others of its class are a query's positives.
    recall_at: as for `evaluate_queries`, which defines the metrics and the errors.
    """
    if len(query) != len(database):
        raise ValueError(
            f"query has {len(query)} rows and database {len(database)}: must be equal, "
            "since row i of both is the same image"
        )
    own = torch.arange(len(query))
    return evaluate_queries(query, database, labels, labels, excluded_row=own, recall_at=recall_at)


def evaluate_queries(
    query: Float[Tensor, "query dim"],
    database: Float[Tensor, "database dim"],
    query_labels: Int[Tensor, " query"],
    database_labels: Int[Tensor, " database"],
    *,
    excluded_row: Int[Tensor, " query"] | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> RetrievalResult:
    """Means and per-query values of AP, trapezoidal AP, AP@R and first-hit rank, by dot product.

    Of the R positives of a query, the j-th best (j = 1..R) has rank r_j in the full ranking:
    average_precision = 1/R sum_j j/r_j; average_precision_trapezoid = 1/R sum_j (p_j + j/r_j)/2
    with p_j = (j-1)/(r_j-1), or 1 where r_j = 1; average_precision_at_r = 1/R sum_{r_j <= R} j/r_j;
    first_hit_rank = r_1. A negative as similar as a positive ranks before it.

    query, database: embeddings, one dtype (float32 or float64, in which they are compared) and one
        device, where the work is done.
    query_labels, database_labels: integer classes; equal means relevant.
    excluded_row: the database row left out of each query's result; None leaves out none.
    recall_at: the k of recall at k, each 1 or more; k may exceed the number of database rows.

    Raises ValueError on wrong shapes, dtypes or ranges, on embeddings that are empty or not finite,
    and where no query has a positive.
    Sources: AP@R: Musgrave et al., A Metric Learning Reality Check (2020), section 3.2; trapezoid:
    Philbin et al. (2007), the Oxford buildings evaluation. Both leave the order of ties open.
    """
    _check_embeddings(query, database)
    if any(k < 1 for k in recall_at):
        raise ValueError(f"recall_at = {tuple(recall_at)}: every k must be at least 1")
    positives = Positives(
        _checked_indices(query_labels, "query_labels", query),
        _checked_indices(database_labels, "database_labels", database),
        None if excluded_row is None else _checked_indices(excluded_row, "excluded_row", query),
    )
    metrics = np.full((len(query), len(COLUMNS)), np.nan)
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False), full_precision():
        for rows, ranks in rank_blocks(query, database, positives):
            metrics[rows] = _metrics_of_ranks(ranks, positives.count[rows, None])
    included = metrics[~np.isnan(metrics[:, 0])]
    if not len(included):
        raise ValueError(
            f"none of the {len(metrics)} queries has a positive: retrieval metrics need at least "
            "one class with a second image"
        )
    mean, trapezoid, at_r, _ = included.mean(axis=0).tolist()
    return RetrievalResult(
        map=mean,
        map_trapezoid=trapezoid,
        map_at_r=at_r,
        recall_at={k: float((included[:, -1] <= k).mean()) for k in recall_at},
        excluded_queries=len(metrics) - len(included),
        query_metrics=dict(zip(COLUMNS, metrics.T, strict=True)),
    )


def _metrics_of_ranks(
    ranks: Int[np.ndarray, "row positive"], positives: Int[np.ndarray, "row 1"]
) -> Float[np.ndarray, "row metric"]:
    """`COLUMNS` of each row from the ranks of its positives, best first, then padding."""
    hits = np.arange(1, ranks.shape[1] + 1)
    precision = hits / ranks
    precision_before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    found = hits <= positives
    averaged = (
        precision * found,
        (precision_before + precision) / 2 * found,
        precision * (found & (ranks <= positives)),
    )
    # A running sum, unlike sum(), gives the same bits however wide the padding of the block is.
    columns = [values.cumsum(axis=1)[:, -1] / positives[:, 0] for values in averaged]
    return np.stack([*columns, ranks[:, 0]], axis=1)


def _check_embeddings(
    query: Float[Tensor, "query dim"], database: Float[Tensor, "database dim"]
) -> None:
    both = {"query": query, "database": database}
    given = " and ".join(
        f"{name} is {one.dtype} {tuple(one.shape)} on {one.device}" for name, one in both.items()
    )
    if query.ndim != 2 or database.ndim != 2 or query.shape[1] != database.shape[1]:
        raise ValueError(f"{given}: must be [query, dim] and [database, dim] of one dim")
    if not query.numel() or not database.numel():
        raise ValueError(f"{given}: must not be empty")
    if query.dtype != database.dtype or query.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{given}: must be both float32 or both float64")
    if query.device != database.device:
        raise ValueError(f"{given}: must be on one device")
    for name, one in both.items():
        if not one.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values: must be finite")


def _checked_indices(
    values: Int[Tensor, " row"], name: str, embeddings: Float[Tensor, "row dim"]
) -> Int[np.ndarray, " row"]:
    if values.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}: must be one a row, ({len(embeddings)},)"
        )
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} is {values.dtype}: must be an integer type")
    return values.cpu().long().numpy()
