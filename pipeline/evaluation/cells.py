"""The rows that one evaluation adds to the study: metrics, intervals, gains, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.accuracy import MAP, OVERLAP
from pipeline.evaluation.agreement import COLUMNS, Search, measure_agreement
from pipeline.evaluation.confidence import Interval, bootstrap_interval, paired_bootstrap
from pipeline.evaluation.cost import query_cost
from pipeline.evaluation.ranking import RetrievalResult, evaluate_retrieval
from pipeline.evaluation.roles import OPPONENTS
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard
from pipeline.teachers.onnx_teacher import OnnxCard, OnnxNetwork
from pipeline.teachers.stored_vectors import StoredVectorsCard

Values = Float[np.ndarray, " query"]  # one a query, NaN where it has none


@dataclass(frozen=True)
class RetrievalSetup:
    """One way to answer a query: which network embeds it, and what is searched.

    Row i of `queries` and of `database` is the same test image; without labels the database may
    have further rows. network: None for a teacher of which nothing but vectors is known.
    """

    role: str
    network: Embedder | OnnxNetwork | None
    card: NetworkCard | OnnxCard | StoredVectorsCard
    database_px: int
    queries: Float[Tensor, "query dim"]
    database: Float[Tensor, "database dim"]


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
    database: Float[Tensor, "database dim"],
    database_px: int,
) -> list[RetrievalSetup]:
    """A student in the teacher's `database`, of images of `database_px`, and in its own.

    Its own is left out where the teacher's has further vectors: their images are not here.
    """
    asymmetric = RetrievalSetup("asymmetric", network, card, database_px, queries, database)
    symmetric = RetrievalSetup("symmetric", network, card, card.size_px, queries, queries)
    return [asymmetric, symmetric] if len(database) == len(queries) else [asymmetric]


@dataclass(frozen=True)
class _Compared:
    """An accuracy: a value a query by role, the teacher's, and what each query is sampled with."""

    column: str
    values: Mapping[str, Values]
    teacher: Values | None
    units: Int[np.ndarray, " query"]


def evaluate_setups(
    setups: Sequence[RetrievalSetup],
    labels: Int[Tensor, " query"] | None,
    recall_at: Sequence[int],
    bootstrap: Bootstrap,
    teacher_precision: Values | None = None,
    teacher: Float[Tensor, "database dim"] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Values]]]:
    """A row a setup, and by role the columns of values of every query behind it.

    Without labels the columns of map are None. With the teacher's database rows have the columns
    of `measure_agreement` too, None where one is undefined. Intervals are bootstraps, over classes
    those of map, over the query images those of agreement, None under ten of them.

    For map and for overlap_at_10 a row has its gains over its `OPPONENTS`, COLUMN_over_OPPONENT,
    and its drop below the teacher, COLUMN_drop. They are paired: the same queries, and the same
    draws, on both sides. `headroom_closed` is (map - naive map) / (teacher map - naive map),
    without labels that of overlap_at_10, None where the teacher is not above naive.

    labels: the class of each query; None: they have none, and `teacher` must be given.
    teacher_precision: average precision of each query by the teacher at full size, with labels.
    teacher: the teacher's database, whose first rows are its own queries.
    """
    options, images = asdict(bootstrap), np.arange(len(setups[0].queries))
    found: dict[str, dict[str, Values]] = {one.role: {} for one in setups}
    results: dict[str, RetrievalResult] = {}
    compared = []
    if labels is not None:
        for one in setups:
            result = evaluate_retrieval(one.queries, one.database, labels, recall_at=recall_at)
            results[one.role], found[one.role] = result, dict(result.query_metrics)
        precision = {role: columns["average_precision"] for role, columns in found.items()}
        compared.append(_Compared(MAP.column, precision, teacher_precision, labels.numpy()))
    if teacher is not None:
        searches = {
            one.role: Search(one.queries, None if one.database is teacher else one.database)
            for one in setups
        }
        for role, columns in measure_agreement(searches, teacher).items():
            found[role] |= columns
        overlaps = {role: columns[OVERLAP.column] for role, columns in found.items()}
        defined = {role: values for role, values in overlaps.items() if not np.isnan(values).any()}
        compared.append(_Compared(OVERLAP.column, defined, np.ones(len(images)), images))
    rows = []
    for setup in setups:
        role = setup.role
        row = {
            "role": role,
            "backbone": setup.card.backbone,
            "query_px": setup.card.size_px,
            "database_px": setup.database_px,
            **_map_columns(results.get(role), compared[0], role, options),
            **query_cost(setup.network, setup.card.size_px),
        }
        for column in COLUMNS if teacher is not None else ():
            row |= _interval_columns(column, found[role][column], images, options)
        for accuracy in compared:
            row |= _comparisons(accuracy, role, options)
        gain, drop = (row.get(f"{compared[0].column}_{part}") for part in ("over_naive", "drop"))
        if gain is not None and drop is not None:
            row["headroom_closed"] = gain / (gain + drop) if gain + drop > 0 else None
        rows.append(row)
    return rows, found


def _map_columns(
    result: RetrievalResult | None, compared: _Compared, role: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The metrics that need labels, None without them, and how many queries are behind a row."""
    if result is None:
        absent = dict.fromkeys(("map", "map_low", "map_high", "map_trapezoid", "map_at_r"))
        return {**absent, "queries": len(compared.units), "excluded_queries": 0, "classes": 0}
    precision = compared.values[role]
    asked = ~np.isnan(precision)
    return {
        **_interval_columns("map", precision, compared.units, options),
        "map": result.map,
        "map_trapezoid": result.map_trapezoid,
        "map_at_r": result.map_at_r,
        **{f"recall_at_{k}": value for k, value in result.recall_at.items()},
        "queries": int(asked.sum()),
        "excluded_queries": result.excluded_queries,
        "classes": len(np.unique(compared.units[asked])),
    }


def _comparisons(compared: _Compared, role: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The gains of a row over its opponents, and its drop below the teacher."""
    values = compared.values
    columns: dict[str, Any] = {}
    for opponent in OPPONENTS.get(role, ()) if role in values else ():
        if opponent in values:
            gain = paired_bootstrap(values[role], values[opponent], compared.units, **options)
            columns |= _columns(f"{compared.column}_over_{opponent}", gain)
    if compared.teacher is not None and role in values:
        drop = paired_bootstrap(compared.teacher, values[role], compared.units, **options)
        columns |= _columns(f"{compared.column}_drop", drop)
    return columns


def _interval_columns(
    name: str, values: Values, units: Int[np.ndarray, " query"], options: Mapping[str, Any]
) -> dict[str, float | None]:
    """A mean and its interval; None where no query has a value."""
    if np.isnan(values).all():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return _columns(name, bootstrap_interval(values, units, **options))


def _columns(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
