"""Class-clustered bootstrap: how far a mean over queries, or a difference of two, can be trusted.

The test classes are what was sampled: the queries of one class resemble each other, so an interval
over resampled queries is two to three times too narrow (LOG.md). Where a network was trained with
several seeds, they were sampled too, and are drawn as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri, stdtr, stdtrit

LEAST_CLASSES = 10  # fewer say too little of the classes to come: no interval is given
LEAST_SEEDS = 5  # fewer say too little of the seeds to come: their range stands beside the interval
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Interval:
    """A mean over the queries and the ends of its confidence interval, in the values' own unit.

    The ends are None where the queries are of under `LEAST_CLASSES` classes.
    """

    low: float | None
    mean: float
    high: float | None


@dataclass(frozen=True)
class Resampled:
    """Sorted means of resamples, and what their distribution lacks of the mean's own.

    freedom: degrees of Student's distribution. inflation: the mean's standard error by the
    resamples' standard deviation.
    """

    means: Float[np.ndarray, " sample"]
    freedom: float
    inflation: float

    def ends(self, level: float) -> tuple[float, float]:
        """The ends of the interval at a confidence level: quantiles of the means. Where one lies
        beyond all means, which then cannot say how far, it is at least that of Student's test.
        """
        student = stdtrit(self.freedom, (1 - level) / 2)
        tail = float(ndtr(self.inflation * student))
        low, high = np.quantile(self.means, [tail, 1 - tail])
        if tail * (1 + len(self.means)) < 1:
            middle, reach = self.means.mean(), -self.inflation * student * self.means.std()
            low, high = min(low, middle - reach), max(high, middle + reach)
        return float(low), float(high)

    def p_value(self) -> float:
        """Two-sided, against a true mean of zero: p = 2 T(z / inflation).

        T is Student's distribution, z = Phi^-1(F), F = (1 + N) / (1 + number of means), N of which
        lie on the rarer side of zero, or on it. `ends` turned round: p <= 1 - level only where the
        interval at that level leaves zero out. Where zero lies beyond all means, which then cannot
        say how far, z is at least as far out as the mean is by their standard deviation: p is that
        of Student's test.
        Source: Davison and Hinkley (1997), section 4.4 and equation 4.11.
        """
        rarer = min(np.sum(self.means <= 0), np.sum(self.means >= 0))
        z = float(ndtri((1 + rarer) / (1 + len(self.means))))
        deviation = float(self.means.std())
        if rarer == 0 and deviation > 0:
            z = min(z, -abs(float(self.means.mean())) / deviation)
        return min(1.0, 2 * float(stdtr(self.freedom, z / self.inflation)))


def bootstrap_interval(
    values: Float[np.ndarray, " query"] | Float[np.ndarray, "seed query"],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Expanded percentile bootstrap interval of mean(values) over resampled classes and seeds.

    A sample draws as many classes as there are, with replacement, each with all its queries, and
    as many seeds as there are, with replacement, crossed with the classes: each is drawn once a
    sample. Its mean is sum(values drawn) / (seeds * number of queries drawn).

    The ends are the quantiles a and 1 - a of the means, a = Phi(r t), in place of q =
    (1 - level) / 2 itself, which would hold the truth too seldom. t is the quantile q of Student's
    distribution with f degrees of freedom, and r^2 the variance of the mean by that of the
    resamples. With one seed and n classes r^2 = n / (n - 1) and f = n - 1: at 12 classes 92 to
    96 % hold the truth in place of 88 to 92 %. With S seeds, of variances v of the mean over the
    classes and w over the seeds (each unbiased, alone), r^2 = (v + w) / (v (n - 1) / n +
    w (S - 1) / S) and f = (v + w)^2 / (v^2 / (n - 1) + w^2 / (S - 1)). Where a lies beyond the
    outermost resample, as with two seeds that differ more than the classes do, the ends are at
    least r t standard deviations of the resamples away
    (`python -m benchmarks.intervals` prints how often the truth is held).

    values: one metric a query, or one a seed and query; NaN marks an excluded query, the same for
        all seeds, and is dropped.
    classes: the class of each query.
    seed: of the resampling; the same seed draws the same classes, whatever the values.
    samples: number of bootstrap samples, at least 1.
    level: share of such intervals that are to hold the truth, between 0 and 1.

    Raises ValueError on no value besides NaN, on infinite values and on wrong shapes.
    Sources: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8;
    Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 5.3; for crossed
    draws Owen, The pigeonhole bootstrap (2007); for f Satterthwaite (1946).
    """
    mean, resampled = _resample(values, classes, seed, samples)
    low, high = (None, None) if resampled is None else resampled.ends(level)
    return Interval(low, mean, high)


def paired_bootstrap(
    candidate: Float[np.ndarray, " query"] | Float[np.ndarray, "seed query"],
    reference: Float[np.ndarray, " query"] | Float[np.ndarray, "seed query"],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of mean(candidate - reference), the same queries and seeds on both sides.

    candidate, reference: one metric a query, or one a seed and query, in the same order; NaN
        (excluded) must stand at the same queries on both sides. A side of one seed, such as of a
        network that is not trained, is compared with all seeds of the other.
    classes, seed, samples, level: as for `bootstrap_interval`.

    Raises ValueError on sides that differ in shape or in their excluded queries, and as
    `bootstrap_interval` does.
    """
    return paired_test(candidate, reference, classes, seed=seed, samples=samples, level=level)[0]


def paired_test(
    candidate: Float[np.ndarray, " query"] | Float[np.ndarray, "seed query"],
    reference: Float[np.ndarray, " query"] | Float[np.ndarray, "seed query"],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[Interval, float | None]:
    """The interval of `paired_bootstrap`, and the p-value of no difference: `Resampled.p_value`.

    The p-value is two-sided, by the same resamples, and None where the interval has no ends.
    Raises ValueError as `paired_bootstrap` does.
    """
    mean, resampled = _resample(_gains(candidate, reference), classes, seed, samples)
    if resampled is None:
        return Interval(None, mean, None), None
    low, high = resampled.ends(level)
    return Interval(low, mean, high), resampled.p_value()


def _gains(candidate: np.ndarray, reference: np.ndarray) -> Float[np.ndarray, "seed query"]:
    ours, theirs = np.atleast_2d(candidate), np.atleast_2d(reference)
    same_seeds = len(ours) == len(theirs) or 1 in (len(ours), len(theirs))
    same_queries = ours.shape[1:] == theirs.shape[1:]
    if not same_queries or not np.array_equal(np.isnan(ours[0]), np.isnan(theirs[0])):
        raise ValueError(
            f"candidate has {ours.shape[-1]} queries and reference {theirs.shape[-1]}: must be "
            "the same ones, with NaN at the same places"
        )
    if not same_seeds:
        raise ValueError(
            f"candidate has {len(ours)} seeds and reference {len(theirs)}: must be the same ones"
        )
    return ours - theirs


def _resample(
    values: np.ndarray, classes: Int[np.ndarray, " query"], seed: int, samples: int
) -> tuple[float, Resampled | None]:
    """The mean of the values, and its resamples where there are enough classes."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim not in (1, 2) or given.shape[-1:] != classes.shape:
        raise ValueError(
            f"values has shape {given.shape} and classes {classes.shape}: must be [query] or "
            "[seed, query], and [query]"
        )
    values = np.atleast_2d(given)
    included = ~np.isnan(values[0])
    values = values[:, included]
    if not values.size:
        raise ValueError("values holds no value besides NaN: at least one query is needed")
    if not np.isfinite(values).all():
        raise ValueError(
            "values holds infinite values, or NaN at some seeds: must be finite, or NaN where "
            "excluded"
        )
    mean = float(values.mean())
    _, own = np.unique(classes[included], return_inverse=True)
    totals = np.stack([*(np.bincount(own, one) for one in values), np.bincount(own)])
    seeds, count = len(values), totals.shape[1]
    if count < LEAST_CLASSES:
        return mean, None
    generator = np.random.default_rng(seed)
    chosen = generator.spawn(1)[0].integers(seeds, size=(samples, seeds))
    times = (chosen[:, :, None] == np.arange(seeds)).sum(axis=1).T  # [seed, sample]
    chunk = max(1, CHUNK_BYTES // (totals.itemsize * totals.size))
    means = np.empty(samples)
    for start in range(0, samples, chunk):
        part = means[start : start + chunk]
        drawn = generator.integers(count, size=(part.size, count), dtype=np.int64)
        *sums, queries = totals[:, drawn].sum(axis=2)
        taken = times[:, start : start + chunk]
        part[:] = (taken * np.array(sums)).sum(axis=0) / seeds / queries
    return mean, Resampled(np.sort(means), *_correction(totals, mean))


def _correction(totals: Float[np.ndarray, "total class"], mean: float) -> tuple[float, float]:
    """Degrees of freedom and inflation, as `bootstrap_interval` says.

    totals: of each class the sums of its values by each seed, and its number of queries.
    """
    *sums, queries = totals
    seeds, count, every = len(sums), len(queries), queries.sum()
    one_seed = count - 1.0, float(np.sqrt(count / (count - 1)))
    if seeds == 1:
        return one_seed
    deviations = np.mean(sums, axis=0) - mean * queries
    by_class = count / (count - 1) * float(deviations @ deviations) / every**2
    by_seed = float(np.var(np.sum(sums, axis=1) / every, ddof=1)) / seeds
    if by_class + by_seed == 0:
        return one_seed
    drawn = by_class * (count - 1) / count + by_seed * (seeds - 1) / seeds
    freedom = (by_class + by_seed) ** 2 / (by_class**2 / (count - 1) + by_seed**2 / (seeds - 1))
    return float(freedom), float(np.sqrt((by_class + by_seed) / drawn))
