"""The rows that one evaluation adds to the study: metrics, intervals, gains, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation.accuracy import MAP, OVERLAP
from pipeline.evaluation.agreement import COLUMNS, Search, measure_agreement
from pipeline.evaluation.confidence import (
    LEAST_SEEDS,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
)
from pipeline.evaluation.cost import query_cost
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.evaluation.roles import OPPONENTS
from pipeline.models.embedder import Embedder
from pipeline.models.weights import NetworkCard
from pipeline.teachers.onnx_teacher import OnnxCard, OnnxNetwork
from pipeline.teachers.stored_vectors import StoredVectorsCard

Values = Float[np.ndarray, " query"]  # one a query, NaN where it has none
SeedValues = Float[np.ndarray, "seed query"]
PRECISION = "average_precision"  # the column of a query's values that map is the mean of
SETUP = ("role", "backbone", "query_px", "database_px")  # what a row is about


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
class Measured:
    """What the setups of one seed measured, by role; it holds no embeddings.

    `facts` are what a row says of a setup, its cost included, `metrics` the means over the queries
    that need labels, `values` the columns of values of every query. teacher: average precision of
    each query by the teacher at full size. labels: of the queries, if they have any.
    """

    facts: Mapping[str, dict[str, Any]]
    metrics: Mapping[str, dict[str, float]]
    values: Mapping[str, dict[str, Values]]
    teacher: Values | None
    labels: Int[np.ndarray, " query"] | None

    def figures(self, role: str) -> dict[str, float]:
        """The means of one seed, the overlap among them, and the cost."""
        overlaps = self.values[role].get(OVERLAP.column)
        means = {} if overlaps is None else {OVERLAP.column: float(overlaps.mean())}
        counts = {name: v for name, v in self.facts[role].items() if type(v) in (int, float)}
        return {**self.metrics[role], **means, **counts}


@dataclass(frozen=True)
class _Compared:
    """An accuracy: values by role, the teacher's, and what each query is sampled with."""

    column: str
    values: Mapping[str, SeedValues]
    teacher: SeedValues | None
    units: Int[np.ndarray, " query"]


def evaluate_setups(
    setups: Sequence[RetrievalSetup],
    labels: Int[Tensor, " query"] | None,
    recall_at: Sequence[int],
    bootstrap: Bootstrap,
    teacher_precision: Values | None = None,
    teacher: Float[Tensor, "database dim"] | None = None,
) -> tuple[list[dict[str, Any]], Mapping[str, dict[str, Values]]]:
    """The rows of one seed, and by role the columns of values of every query behind it.

    The arguments are those of `measure_setups` and `seed_rows`.
    """
    measured = measure_setups(setups, labels, recall_at, teacher_precision, teacher)
    return seed_rows([measured], bootstrap), measured.values


def measure_setups(
    setups: Sequence[RetrievalSetup],
    labels: Int[Tensor, " query"] | None,
    recall_at: Sequence[int],
    teacher_precision: Values | None = None,
    teacher: Float[Tensor, "database dim"] | None = None,
) -> Measured:
    """Search with the queries of each setup.

    labels: the class of each query; None: they have none, and `teacher` must be given.
    teacher_precision: average precision of each query by the teacher at full size, with labels.
    teacher: the teacher's database, whose first rows are its own queries; with it there are the
        columns of `measure_agreement`, too.
    """
    values: dict[str, dict[str, Values]] = {one.role: {} for one in setups}
    metrics: dict[str, dict[str, float]] = {one.role: {} for one in setups}
    for one in setups:
        if labels is None:
            break
        result = evaluate_retrieval(one.queries, one.database, labels, recall_at=recall_at)
        values[one.role] = dict(result.query_metrics)
        metrics[one.role] = {
            "map": result.map,
            "map_trapezoid": result.map_trapezoid,
            "map_at_r": result.map_at_r,
            **{f"recall_at_{k}": value for k, value in result.recall_at.items()},
        }
    if teacher is not None:
        searches = {
            one.role: Search(one.queries, None if one.database is teacher else one.database)
            for one in setups
        }
        for role, columns in measure_agreement(searches, teacher).items():
            values[role] |= columns
    facts = {
        one.role: {
            "role": one.role,
            "backbone": one.card.backbone,
            "query_px": one.card.size_px,
            "database_px": one.database_px,
            **query_cost(one.network, one.card.size_px),
        }
        for one in setups
    }
    numbers = None if labels is None else labels.numpy()
    return Measured(facts, metrics, values, teacher_precision, numbers)


def seed_rows(measured: Sequence[Measured], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """A row a setup of the first seed: means over the seeds that have it, `seeds` in number.

    Without labels the columns of map are None. Rows have the columns of `measure_agreement` where
    they were measured, None where one is undefined. Intervals are bootstraps, over classes those of
    map, over the query images those of agreement, None under ten of them, and over the seeds. With
    two to four seeds the range of the seeds stands beside the accuracy: COLUMN_seed_low and
    COLUMN_seed_high.

    For map and for overlap_at_10 a row has its gains over its `OPPONENTS`, COLUMN_over_OPPONENT,
    and its drop below the teacher, COLUMN_drop. They are paired: the same queries and seeds, and
    the same draws, on both sides. `headroom_closed` is (map - naive map) / (teacher map - naive
    map), without labels that of overlap_at_10, None where the teacher is not above naive.
    """
    first, options = measured[0], asdict(bootstrap)
    compared = _compared(measured)
    rows = []
    for role, facts in first.facts.items():
        own = [one for one in measured if role in one.facts]
        row = {
            **{name: facts[name] for name in SETUP},
            **_map_columns(own, role, options),
            "seeds": len(own),
            **{name: value for name, value in facts.items() if name not in SETUP},
        }
        for column in COLUMNS if OVERLAP.column in first.values[role] else ():
            stacked = np.stack([one.values[role][column] for one in own])
            row |= _interval_columns(column, stacked, np.arange(stacked.shape[1]), options)
        if 1 < len(own) < LEAST_SEEDS and role in compared[0].values:
            row |= _range(compared[0].column, compared[0].values[role])
        for accuracy in compared:
            row |= _comparisons(accuracy, role, options)
        gain, drop = (row.get(f"{compared[0].column}_{part}") for part in ("over_naive", "drop"))
        if gain is not None and drop is not None:
            row["headroom_closed"] = gain / (gain + drop) if gain + drop > 0 else None
        rows.append(row)
    return rows


def _compared(measured: Sequence[Measured]) -> list[_Compared]:
    """By what rows are compared: map, if there are labels, and the overlap, if it was measured."""
    first, found = measured[0], []

    def of_seeds(column: str) -> dict[str, SeedValues]:
        return {
            role: np.stack([one.values[role][column] for one in measured if role in one.values])
            for role, columns in first.values.items()
            if column in columns
        }

    if first.labels is not None:
        teachers = [one.teacher for one in measured if one.teacher is not None]
        teacher = np.stack(teachers) if teachers else None
        found.append(_Compared(MAP.column, of_seeds(PRECISION), teacher, first.labels))
    if overlaps := of_seeds(OVERLAP.column):
        images = np.arange(next(iter(overlaps.values())).shape[1])
        defined = {role: values for role, values in overlaps.items() if not np.isnan(values).any()}
        found.append(_Compared(OVERLAP.column, defined, np.ones((1, len(images))), images))
    return found


def _map_columns(
    measured: Sequence[Measured], role: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The metrics that need labels, None without them, and how many queries are behind a row."""
    labels, metrics = measured[0].labels, [one.metrics[role] for one in measured]
    if labels is None:
        absent = dict.fromkeys(("map", "map_low", "map_high", "map_trapezoid", "map_at_r"))
        queries = len(next(iter(measured[0].values[role].values())))
        return {**absent, "queries": queries, "excluded_queries": 0, "classes": 0}
    precision = np.stack([one.values[role][PRECISION] for one in measured])
    asked = ~np.isnan(precision[0])
    return {
        **_interval_columns("map", precision, labels, options),
        **{name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]},
        "queries": int(asked.sum()),
        "excluded_queries": int((~asked).sum()),
        "classes": len(np.unique(labels[asked])),
    }


def _range(column: str, values: SeedValues) -> dict[str, float]:
    means = np.nanmean(values, axis=1)
    return {f"{column}_seed_low": float(means.min()), f"{column}_seed_high": float(means.max())}


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
    name: str, values: SeedValues, units: Int[np.ndarray, " query"], options: Mapping[str, Any]
) -> dict[str, float | None]:
    """A mean and its interval, within what the values can be; None where no query has one."""
    if np.isnan(values).all():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    found = _columns(name, bootstrap_interval(values, units, **options))
    least = -1.0 if name == "cosine" else 0.0
    return {key: end if end is None else min(max(end, least), 1.0) for key, end in found.items()}


def _columns(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
