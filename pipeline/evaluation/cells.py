"""The rows that one evaluation adds to the study: metrics, intervals, gains, costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.confidence import Interval, bootstrap_interval, paired_bootstrap
from pipeline.evaluation.cost import query_cost
from pipeline.evaluation.ranking import RetrievalResult, evaluate_retrieval
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard

# Each role's natural opponent: what one would do without the method.
OPPONENTS = {"asymmetric": "naive", "symmetric": "baseline"}


@dataclass(frozen=True)
class RetrievalSetup:
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


def student_setups(
    network: Embedder,
    card: NetworkCard,
    queries: Float[Tensor, "query dim"],
    database: Float[Tensor, "query dim"],
    database_px: int,
) -> list[RetrievalSetup]:
    """A student in the teacher's `database`, of images of `database_px`, and in its own."""
    return [
        RetrievalSetup("asymmetric", network, card, database_px, queries, database),
        RetrievalSetup("symmetric", network, card, card.size_px, queries, queries),
    ]


def evaluate_setups(
    setups: Sequence[RetrievalSetup],
    labels: Int[Tensor, "query"],
    recall_at: Sequence[int],
    bootstrap: Bootstrap,
    teacher_precision: Float[np.ndarray, " query"] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, RetrievalResult]]:
    """A row a setup, and by role the values of every query behind it.

    Intervals are percentile bootstraps over queries. The gain of a row over its opponent
    (asymmetric over naive, symmetric over baseline) and its drop below the teacher at full size,
    whose average precision of each query is given, are paired: the same queries on both sides.
    """
    results = {
        one.role: evaluate_retrieval(one.queries, one.database, labels, recall_at=recall_at)
        for one in setups
    }
    precision = {role: one.query_metrics["average_precision"] for role, one in results.items()}
    options = asdict(bootstrap)
    rows = []
    for setup in setups:
        role, result, opponent = setup.role, results[setup.role], OPPONENTS.get(setup.role)
        interval = bootstrap_interval(precision[role], **options)
        row = {
            "role": role,
            "backbone": setup.card.backbone,
            "query_px": setup.card.size_px,
            "database_px": setup.database_px,
            "map": result.map,
            "map_low": interval.low,
            "map_high": interval.high,
            "map_trapezoid": result.map_trapezoid,
            "map_at_r": result.map_at_r,
            **{f"recall_at_{k}": value for k, value in result.recall_at.items()},
            "queries": len(setup.queries) - result.excluded_queries,
            "excluded_queries": result.excluded_queries,
            **query_cost(setup.network, setup.card.size_px),
        }
        if opponent in precision:
            gain = paired_bootstrap(precision[role], precision[opponent], **options)
            row |= {"gain_over": opponent, **_columns("map_gain", gain)}
        if teacher_precision is not None:
            drop = paired_bootstrap(teacher_precision, precision[role], **options)
            row |= _columns("map_drop", drop)
        rows.append(row)
    return rows, results


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
