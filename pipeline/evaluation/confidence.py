"""Percentile bootstrap over queries: how far a mean or a difference of two can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Interval:
    """A mean over the queries and the ends of its confidence interval, in the values' own unit."""

    low: float
    mean: float
    high: float


def bootstrap_interval(
    values: Float[np.ndarray, " query"], *, seed: int, samples: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of mean(values) over resampled queries.

    values: one metric a query; NaN marks an excluded query and is dropped.
    seed: of the resampling; the same seed gives the same interval.
    samples: number of bootstrap samples, at least 1.
    level: share of the bootstrap means inside the interval, between 0 and 1.

    Raises ValueError on no value besides NaN, on infinite values and on a wrong shape.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values has shape {values.shape}: must be [query]")
    values = values[~np.isnan(values)]
    if not values.size:
        raise ValueError("values holds no value besides NaN: at least one query is needed")
    if np.isinf(values).any():
        raise ValueError("values holds infinite values: must be finite, or NaN where excluded")
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (8 * values.size))
    means = np.empty(samples)
    for start in range(0, samples, chunk):
        part = means[start : start + chunk]
        drawn = generator.integers(values.size, size=(part.size, values.size), dtype=np.int64)
        part[:] = values[drawn].sum(axis=1) / values.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), mean=float(values.mean()), high=float(high))


def paired_bootstrap(
    candidate: Float[np.ndarray, " query"],
    reference: Float[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of mean(candidate - reference), the same queries on both sides.

    candidate, reference: one metric a query, in the same order of queries; NaN (excluded) must
        stand at the same queries on both sides.
    seed, samples, level: as for `bootstrap_interval`.

    Raises ValueError on sides that differ in shape or in their excluded queries, and as
    `bootstrap_interval` does.
    """
    if not np.array_equal(np.isnan(candidate), np.isnan(reference)):
        raise ValueError(
            f"candidate has {candidate.size} queries and reference {reference.size}: must be the "
            "same ones, with NaN at the same places"
        )
    return bootstrap_interval(candidate - reference, seed=seed, samples=samples, level=level)
