"""Percentile bootstrap over queries: how far a mean or a difference of two can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Interval:
    """A mean over the queries and the ends of its confidence interval, in the values' own unit."""

    low: float
    mean: float
    high: float


def bootstrap_interval(
    values: Float[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
    clusters: Shaped[np.ndarray, " query"] | None = None,
) -> Interval:
    """Percentile bootstrap interval of mean(values) over resampled queries.

    values: one metric a query; NaN marks an excluded query and is dropped.
    seed: of the resampling; the same seed gives the same interval.
    samples: number of bootstrap samples, at least 1.
    level: share of the bootstrap means inside the interval, between 0 and 1.
    clusters: the class of each query; classes are then drawn instead of queries, which is wider
        and more honest where the queries of one class resemble each other.

    Raises ValueError on no value besides NaN, on infinite values, on wrong shapes and ranges.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3; clusters:
    Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
    """
    values = _checked_values(values, "values")
    included = ~np.isnan(values)
    if clusters is not None:
        clusters = _checked_clusters(clusters, values)[included]
    means = _bootstrap_means(values[included], clusters, samples, seed)
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must lie between 0 and 1, both excluded")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), mean=float(values[included].mean()), high=float(high))


def paired_bootstrap(
    candidate: Float[np.ndarray, " query"],
    reference: Float[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
    clusters: Shaped[np.ndarray, " query"] | None = None,
) -> Interval:
    """Percentile bootstrap interval of mean(candidate - reference), the same queries on both sides.

    candidate, reference: one metric a query, in the same order of queries; NaN (excluded) must
        stand at the same queries on both sides.
    seed, samples, level, clusters: as for `bootstrap_interval`.

    Raises ValueError on sides that differ in shape or in their excluded queries, and as
    `bootstrap_interval` does.
    """
    candidate = _checked_values(candidate, "candidate")
    reference = _checked_values(reference, "reference")
    if candidate.shape != reference.shape:
        raise ValueError(
            f"candidate has {candidate.size} queries and reference {reference.size}: "
            "a paired bootstrap needs the same queries on both sides"
        )
    unpaired = np.flatnonzero(np.isnan(candidate) != np.isnan(reference))
    if unpaired.size:
        raise ValueError(
            f"{unpaired.size} queries are NaN on one side only (the first: {unpaired[0]}): "
            "an excluded query must be NaN in candidate and in reference"
        )
    return bootstrap_interval(
        candidate - reference, seed=seed, samples=samples, level=level, clusters=clusters
    )


def _bootstrap_means(
    values: Float[np.ndarray, " query"],
    clusters: Shaped[np.ndarray, " query"] | None,
    samples: int,
    seed: int,
) -> Float[np.ndarray, " sample"]:
    """Mean of the drawn queries of each sample, in chunks of samples of bounded memory.

    Units are drawn: queries, or classes, of which the sum of values and the size count.
    """
    if samples < 1:
        raise ValueError(f"samples = {samples}: must be at least 1")
    totals, sizes = values, np.ones_like(values)
    if clusters is not None:
        _, unit = np.unique(clusters, return_inverse=True)
        totals, sizes = np.bincount(unit, weights=values), np.bincount(unit).astype(np.float64)
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (8 * totals.size))
    means = np.empty(samples)
    for start in range(0, samples, chunk):
        stop = min(start + chunk, samples)
        drawn = generator.integers(totals.size, size=(stop - start, totals.size), dtype=np.int64)
        means[start:stop] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _checked_values(values: Float[np.ndarray, " query"], name: str) -> Float[np.ndarray, " query"]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}: must be [query]")
    if np.isinf(values).any():
        raise ValueError(f"{name} holds infinite values: must be finite, or NaN where excluded")
    if np.isnan(values).all():
        raise ValueError(f"{name} holds no value besides NaN: at least one query is needed")
    return values


def _checked_clusters(
    clusters: Shaped[np.ndarray, " query"], values: Float[np.ndarray, " query"]
) -> Shaped[np.ndarray, " query"]:
    clusters = np.asarray(clusters)
    if clusters.shape != values.shape:
        raise ValueError(
            f"clusters has shape {clusters.shape}: must be one class a query, {values.shape}"
        )
    return clusters
