"""The rows that one evaluation adds to the study: metrics, intervals, gains, costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.confidence import bootstrap_interval, paired_bootstrap
from pipeline.evaluation.cost import query_cost
from pipeline.evaluation.ranking import RetrievalResult, evaluate_retrieval
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard

# Each role's natural opponent: what one would do without the method.
OPPONENTS = {"asymmetric": "naive", "symmetric": "baseline"}


@dataclass(frozen=True)
class Contender:
    """One way to answer a query: which network embeds it, and what is searched.

    Row i of `queries` and of `database` is the same test image.
    """

    role: str
    network: Embedder
    card: NetworkCard
    database_px: int
    queries: Float[Tensor, "query dim"]
    database: Float[Tensor, "query dim"]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn; the fields are those of params.yaml."""

    samples: int
    level: float
    seed: int


def evaluate_contenders(
    contenders: Sequence[Contender],
    labels: Int[Tensor, "query"],
    recall_at: Sequence[int],
    bootstrap: Bootstrap,
    teacher_precision: Float[np.ndarray, " query"] | None = None,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """A row a contender, and the values of every query behind them.

    Intervals are percentile bootstraps over queries. The gain of a row over its opponent
    (asymmetric over naive, symmetric over baseline) and its drop below the teacher at full size,
    whose average precision of each query is given, are paired: the same queries on both sides.
    """
    results = {
        contender.role: evaluate_retrieval(
            contender.queries, contender.database, labels, recall_at=tuple(recall_at)
        )
        for contender in contenders
    }
    rows = [
        _row(contender, results[contender.role], bootstrap)
        | _gain(contender.role, results, bootstrap)
        | _drop(results[contender.role], teacher_precision, bootstrap)
        for contender in contenders
    ]
    per_query = pd.concat(
        [result.per_query.assign(role=role) for role, result in results.items()], ignore_index=True
    )
    return rows, per_query


def _row(contender: Contender, result: RetrievalResult, bootstrap: Bootstrap) -> dict[str, Any]:
    card = contender.card
    interval = bootstrap_interval(
        result.query_metrics["average_precision"],
        seed=bootstrap.seed,
        samples=bootstrap.samples,
        level=bootstrap.level,
    )
    return {
        "role": contender.role,
        "backbone": card.backbone,
        "query_px": card.size_px,
        "database_px": contender.database_px,
        "map": result.map,
        "map_low": interval.low,
        "map_high": interval.high,
        "map_trapezoid": result.map_trapezoid,
        "map_at_r": result.map_at_r,
        **{f"recall_at_{k}": value for k, value in result.recall_at.items()},
        "queries": len(contender.queries) - result.excluded_queries,
        "excluded_queries": result.excluded_queries,
        **asdict(query_cost(contender.network, card.size_px)),
    }


def _gain(
    role: str, results: dict[str, RetrievalResult], bootstrap: Bootstrap
) -> dict[str, str | float]:
    opponent = OPPONENTS.get(role)
    if opponent not in results:
        return {}
    gain = paired_bootstrap(
        results[role].query_metrics["average_precision"],
        results[opponent].query_metrics["average_precision"],
        seed=bootstrap.seed,
        samples=bootstrap.samples,
        level=bootstrap.level,
    )
    return {
        "gain_over": opponent,
        "map_gain": gain.mean,
        "map_gain_low": gain.low,
        "map_gain_high": gain.high,
    }


def _drop(
    result: RetrievalResult,
    teacher_precision: Float[np.ndarray, " query"] | None,
    bootstrap: Bootstrap,
) -> dict[str, float]:
    if teacher_precision is None:
        return {}
    drop = paired_bootstrap(
        teacher_precision,
        result.query_metrics["average_precision"],
        seed=bootstrap.seed,
        samples=bootstrap.samples,
        level=bootstrap.level,
    )
    return {"map_drop": drop.mean, "map_drop_low": drop.low, "map_drop_high": drop.high}
