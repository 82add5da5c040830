"""Class-clustered bootstrap: how far a mean over queries, or a difference of two, can be trusted.

The test classes are what was sampled: the queries of one class resemble each other, so an interval
over resampled queries is two to three times too narrow (LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, stdtrit

LEAST_CLASSES = 10  # fewer say too little of the classes to come: no interval is given
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Interval:
    """A mean over the queries and the ends of its confidence interval, in the values' own unit.

    The ends are None where the queries are of under `LEAST_CLASSES` classes.
    """

    low: float | None
    mean: float
    high: float | None


def bootstrap_interval(
    values: Float[np.ndarray, " query"],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Expanded percentile bootstrap interval of mean(values) over resampled classes.

    A sample draws as many classes as there are, with replacement, each with all its queries; its
    mean is sum(values drawn) / number of queries drawn. For n classes the ends are the quantiles
    a and 1 - a of the means with a = Phi(sqrt(n / (n - 1)) t), t the quantile (1 - level) / 2 of
    Student's distribution with n - 1 degrees of freedom, in place of (1 - level) / 2 itself, which
    would hold the truth too seldom: 88 to 92 % in place of 95 % at 12 classes, where this holds it
    in 92 to 96 % (`python -m benchmarks.intervals`).

    values: one metric a query; NaN marks an excluded query and is dropped.
    classes: the class of each query.
    seed: of the resampling; the same seed draws the same classes, whatever the values.
    samples: number of bootstrap samples, at least 1.
    level: share of such intervals that are to hold the truth, between 0 and 1.

    Raises ValueError on no value besides NaN, on infinite values and on wrong shapes.
    Sources: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8;
    Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 5.3.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.shape != classes.shape:
        raise ValueError(
            f"values has shape {values.shape} and classes {classes.shape}: both must be [query]"
        )
    included = ~np.isnan(values)
    values = values[included]
    if not values.size:
        raise ValueError("values holds no value besides NaN: at least one query is needed")
    if np.isinf(values).any():
        raise ValueError("values holds infinite values: must be finite, or NaN where excluded")
    mean = float(values.mean())
    _, own = np.unique(classes[included], return_inverse=True)
    totals = np.stack([np.bincount(own, values), np.bincount(own)])
    count = totals.shape[1]
    if count < LEAST_CLASSES:
        return Interval(None, mean, None)
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (totals.itemsize * totals.size))
    means = np.empty(samples)
    for start in range(0, samples, chunk):
        part = means[start : start + chunk]
        drawn = generator.integers(count, size=(part.size, count), dtype=np.int64)
        sums, queries = totals[:, drawn].sum(axis=2)
        part[:] = sums / queries
    student = stdtrit(count - 1, (1 - level) / 2)
    tail = float(ndtr(np.sqrt(count / (count - 1)) * student))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), mean, float(high))


def paired_bootstrap(
    candidate: Float[np.ndarray, " query"],
    reference: Float[np.ndarray, " query"],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of mean(candidate - reference), the same queries on both sides.

    candidate, reference: one metric a query, in the same order of queries; NaN (excluded) must
        stand at the same queries on both sides.
    classes, seed, samples, level: as for `bootstrap_interval`.

    Raises ValueError on sides that differ in shape or in their excluded queries, and as
    `bootstrap_interval` does.
    """
    if not np.array_equal(np.isnan(candidate), np.isnan(reference)):
        raise ValueError(
            f"candidate has {candidate.size} queries and reference {reference.size}: must be the "
            "same ones, with NaN at the same places"
        )
    gains = candidate - reference
    return bootstrap_interval(gains, classes, seed=seed, samples=samples, level=level)
