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
from pipeline.evaluation.roles import OPPONENTS
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard
from pipeline.teachers.onnx_teacher import OnnxCard, OnnxNetwork


@dataclass(frozen=True)
class RetrievalSetup:
    """One way to answer a query: which network embeds it, and what is searched.

    Row i of `queries` and of `database` is the same test image.
    """

    role: str
    network: Embedder | OnnxNetwork
    card: NetworkCard | OnnxCard
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

    Intervals are class-clustered bootstraps, None under ten classes. The gains of a row over its
    `OPPONENTS`, `map_over_OPPONENT`, and its drop below the teacher at full size, whose average
    precision of each query is given, are paired: the same queries, and the same draws of classes,
    on both sides. `headroom_closed` is (map - naive map) / (teacher map - naive map), None where
    the teacher is not above naive.
    """
    results = {
        one.role: evaluate_retrieval(one.queries, one.database, labels, recall_at=recall_at)
        for one in setups
    }
    precision = {role: one.query_metrics["average_precision"] for role, one in results.items()}
    classes, options = labels.numpy(), asdict(bootstrap)
    rows = []
    for setup in setups:
        role, result = setup.role, results[setup.role]
        interval = bootstrap_interval(precision[role], classes, **options)
        row: dict[str, Any] = {
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
            "classes": len(np.unique(classes[~np.isnan(precision[role])])),
            **query_cost(setup.network, setup.card.size_px),
        }
        opponents = [one for one in OPPONENTS.get(role, ()) if one in precision]
        gains = {
            one: paired_bootstrap(precision[role], precision[one], classes, **options)
            for one in opponents
        }
        for opponent, gain in gains.items():
            row |= _columns(f"map_over_{opponent}", gain)
        if teacher_precision is not None:
            drop = paired_bootstrap(teacher_precision, precision[role], classes, **options)
            row |= _columns("map_drop", drop)
            if "naive" in gains:
                headroom = gains["naive"].mean + drop.mean
                row["headroom_closed"] = gains["naive"].mean / headroom if headroom > 0 else None
        rows.append(row)
    return rows, results


def _columns(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
