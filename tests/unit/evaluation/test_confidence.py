"""Class-clustered intervals: exact cases, a plain-loop restatement, coverage, refused inputs."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import confidence
from pipeline.evaluation.confidence import LEAST_CLASSES, bootstrap_interval, paired_bootstrap


def one_each(values: np.ndarray) -> np.ndarray:
    """Classes of one query."""
    return np.arange(len(values))


def test_constant_values_have_no_width() -> None:
    interval = bootstrap_interval(np.full(30, 0.25), np.repeat(np.arange(10), 3), seed=0)
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


def test_equals_plain_loop() -> None:
    """Classes of unequal size, drawn one by one; of Student's t, 11 degrees, a table's quantile."""
    drawing = np.random.default_rng(1)
    classes = drawing.permutation(np.repeat(np.arange(12), np.arange(1, 13)))
    values = drawing.random(len(classes))
    generator = np.random.default_rng(5)
    means = []
    for _ in range(200):
        drawn = [values[classes == one] for one in generator.integers(12, size=12)]
        means.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    tail = statistics.NormalDist().cdf(-math.sqrt(12 / 11) * 1.795885)  # t of 0.95
    interval = bootstrap_interval(values, classes, seed=5, samples=200, level=0.9)
    assert interval.low == pytest.approx(np.quantile(means, tail), abs=1e-6)
    assert interval.high == pytest.approx(np.quantile(means, 1 - tail), abs=1e-6)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)


def test_queries_of_one_class_are_no_news() -> None:
    """Each query sixteen times over: the classes say as much as before, and no more."""
    values = np.random.default_rng(0).random(40)
    alone = bootstrap_interval(values, one_each(values), seed=1)
    often = bootstrap_interval(np.repeat(values, 16), np.repeat(np.arange(40), 16), seed=1)
    assert vars(often) == pytest.approx(vars(alone))
    by_query = bootstrap_interval(np.repeat(values, 16), np.arange(640), seed=1)
    width, narrow = (one.high - one.low for one in (often, by_query))
    assert width == pytest.approx(4 * narrow, rel=0.15)  # sqrt(16)


def test_width_is_the_normal_one_for_many_classes() -> None:
    values = np.random.default_rng(2).standard_normal(2000)
    interval = bootstrap_interval(values, one_each(values), seed=0, samples=4000)
    error = 1.959964 * values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - error, abs=0.06 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.06 * error)


@pytest.mark.parametrize(("apart", "is_beyond"), [(1.0, True), (0.1, False)])
def test_crossed_draws_equal_a_plain_loop(apart: float, *, is_beyond: bool) -> None:
    """Three seeds, twelve unequal classes: each sample draws both, and all seeds meet all classes.

    The variances, by hand: of the mean over classes by its linear terms, over seeds by their means.
    """
    drawing = np.random.default_rng(1)
    classes = drawing.permutation(np.repeat(np.arange(12), np.arange(1, 13)))
    values = drawing.random((3, len(classes))) + apart * np.array([[0.0], [0.2], [0.5]])
    generator = np.random.default_rng(5)
    chosen = generator.spawn(1)[0].integers(3, size=(200, 3))
    means = []
    for seeds in chosen:
        drawn = generator.integers(12, size=12)
        queries = [q for one in drawn for q in np.flatnonzero(classes == one)]
        means.append(statistics.fmean(values[s, q] for s in seeds for q in queries))
    total = values.mean()
    terms = [(values[:, classes == one].mean(axis=0) - total).sum() / 78 for one in range(12)]
    v = 12 / 11 * sum(term**2 for term in terms)
    w = statistics.variance(values.mean(axis=1)) / 3
    freedom = (v + w) ** 2 / (v**2 / 11 + w**2 / 2)
    inflation = math.sqrt((v + w) / (v * 11 / 12 + w * 2 / 3))
    student = inflation * stats.t.ppf(0.05, freedom)
    tail = stats.norm.cdf(student)
    low, high = np.quantile(means, [tail, 1 - tail])
    assert is_beyond == (tail < 1 / 201)
    if is_beyond:
        middle, reach = statistics.fmean(means), student * statistics.pstdev(means)
        low, high = min(low, middle + reach), max(high, middle - reach)
    interval = bootstrap_interval(values, classes, seed=5, samples=200, level=0.9)
    assert interval.low == pytest.approx(low, abs=1e-9)
    assert interval.high == pytest.approx(high, abs=1e-9)
    assert interval.mean == pytest.approx(total, abs=1e-12)


def test_one_seed_and_equal_seeds_say_what_the_classes_say() -> None:
    values = np.random.default_rng(2).random(60)
    classes = np.repeat(np.arange(20), 3)
    plain = bootstrap_interval(values, classes, seed=1)
    assert bootstrap_interval(values[None], classes, seed=1) == plain
    equal = bootstrap_interval(np.tile(values, (4, 1)), classes, seed=1)
    assert vars(equal) == pytest.approx(vars(plain), abs=1e-12)


def test_the_order_of_the_seeds_does_not_matter_beyond_the_draws() -> None:
    generator = np.random.default_rng(2)
    values = generator.random((5, 400)) + generator.normal(0, 0.1, (5, 1))
    forth, back = (
        bootstrap_interval(one, one_each(one[0]), seed=1, samples=20000)
        for one in (values, values[::-1])
    )
    assert vars(forth) == pytest.approx(vars(back), abs=0.006)
    assert forth.high - forth.low > 0.1  # of the seeds; over the classes alone it is 0.03


@pytest.mark.parametrize(
    ("seeds", "times", "least"),
    [(2, 1, 340), (3, 1, 358), (5, 1, 364), (10, 1, 364), (2, 5, 335), (3, 5, 352), (4, 5, 360)],
)
def test_crossed_intervals_hold_the_truth(seeds: int, times: int, least: int) -> None:
    """Of 400 studies whose seeds move the mean as much as their classes do, or five times as much.

    380 are due. One seed alone holds 342; two by their resamples alone, at five times, 314. Two
    seeds are too few to say how far others would lie, which is why the range of the seeds stands
    beside.
    """
    held = 0
    for number in range(400):
        generator = np.random.default_rng(number)
        of_class, of_seed = generator.standard_normal(50), generator.standard_normal((seeds, 1))
        noise = 0.5 * generator.standard_normal((seeds, 50))
        values = of_class + times * of_seed / math.sqrt(50) + noise
        interval = bootstrap_interval(values, np.arange(50), seed=number, samples=400)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 0 <= interval.high
    assert least <= held <= 394


@pytest.mark.parametrize(("count", "least"), [(12, 368), (25, 368), (100, 368)])
def test_intervals_hold_the_true_mean_as_often_as_they_say(count: int, least: int) -> None:
    """Of 400 data sets with class means of their own, 380 are due; sigma of the count is 4.4.

    The plain percentile interval held it 359 times at 12 classes.
    """
    generator = np.random.default_rng(3)
    classes = np.repeat(np.arange(count), 8)
    held = 0
    for number in range(400):
        of_class = generator.normal(0.5, 0.2, count)
        values = of_class[classes] + generator.normal(0, 0.2, len(classes))
        interval = bootstrap_interval(values, classes, seed=number, samples=400)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 0.5 <= interval.high
    assert least <= held <= 394


def test_ends_beyond_all_resamples_are_those_of_students_test() -> None:
    """Fifty samples cannot reach to 99.9 %, and their outermost would be the ends."""
    values = np.random.default_rng(0).standard_normal(60)
    found = bootstrap_interval(values, one_each(values), seed=0, samples=50, level=0.999)
    assert found.low is not None
    assert found.high is not None
    low, high = stats.t.interval(0.999, 59, values.mean(), stats.sem(values))
    assert found.high - found.low == pytest.approx(high - low, rel=0.25)


@pytest.mark.parametrize(("count", "is_given"), [(LEAST_CLASSES - 1, False), (LEAST_CLASSES, True)])
def test_few_classes_give_a_mean_and_no_interval(count: int, is_given: bool) -> None:
    values = np.random.default_rng(4).random(8 * count)
    classes = np.repeat(np.arange(count), 8)
    interval = bootstrap_interval(values, classes, seed=0)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (interval.low is not None, interval.high is not None) == (is_given, is_given)
    # A class whose queries are all excluded does not count.
    more, others = np.append(values, math.nan), np.append(classes, 99)
    assert bootstrap_interval(more, others, seed=0) == interval


def test_seed_decides_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random(100)
    classes = one_each(values)
    first = bootstrap_interval(values, classes, seed=1)
    assert bootstrap_interval(values, classes, seed=1) == first
    assert bootstrap_interval(values, classes, seed=2) != first
    monkeypatch.setattr(confidence, "CHUNK_BYTES", 1)
    assert bootstrap_interval(values, classes, seed=1) == first


def test_neither_names_nor_order_of_the_classes_matter() -> None:
    generator = np.random.default_rng(6)
    values, classes = generator.random(60), np.repeat(np.arange(15), 4)
    plain = bootstrap_interval(values, classes, seed=3)
    order = generator.permutation(60)
    moved = bootstrap_interval(values[order], 7 * classes[order] - 40, seed=3)
    assert vars(moved) == pytest.approx(vars(plain))


def test_shift_and_scale_move_the_interval() -> None:
    values = np.random.default_rng(7).random(50)
    plain = bootstrap_interval(values, one_each(values), seed=1)
    moved = bootstrap_interval(3 + 2 * values, one_each(values), seed=1)
    for end in ("low", "mean", "high"):
        assert getattr(moved, end) == pytest.approx(3 + 2 * getattr(plain, end), abs=1e-12)


def test_paired_difference_cancels_what_both_sides_share() -> None:
    generator = np.random.default_rng(8)
    reference = generator.random(300)
    candidate = reference + 0.02 + 0.01 * generator.standard_normal(300)
    classes = np.repeat(np.arange(30), 10)
    paired = paired_bootstrap(candidate, reference, classes, seed=0)
    assert paired.low > 0.015
    assert paired.high < 0.025
    assert paired.mean == pytest.approx(candidate.mean() - reference.mean(), abs=1e-12)
    alone = bootstrap_interval(candidate, classes, seed=0)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


def test_a_side_that_was_not_trained_is_compared_with_all_seeds_of_the_other() -> None:
    generator = np.random.default_rng(8)
    reference, candidate = generator.random(40), generator.random((3, 40))
    classes = one_each(reference)
    paired = paired_bootstrap(candidate, reference, classes, seed=0)
    assert paired == paired_bootstrap(candidate, np.tile(reference, (3, 1)), classes, seed=0)
    assert paired.mean == pytest.approx(candidate.mean() - reference.mean(), abs=1e-12)
    with pytest.raises(ValueError, match="candidate has 3 seeds and reference 2: must be the same"):
        paired_bootstrap(candidate, candidate[:2], classes, seed=0)


def test_paired_is_antisymmetric_and_zero_with_itself() -> None:
    candidate, reference = np.random.default_rng(9).random((2, 40))
    classes = one_each(candidate)
    forth = paired_bootstrap(candidate, reference, classes, seed=0)
    back = paired_bootstrap(reference, candidate, classes, seed=0)
    assert (back.low, back.mean, back.high) == pytest.approx((-forth.high, -forth.mean, -forth.low))
    same = paired_bootstrap(candidate, candidate, classes, seed=0)
    assert (same.low, same.mean, same.high) == (0, 0, 0)


def test_paired_drops_queries_excluded_on_both_sides_only() -> None:
    candidate, reference = np.random.default_rng(9).random((2, 24))
    candidate[5] = reference[5] = math.nan
    classes, kept = np.repeat(np.arange(12), 2), np.arange(24) != 5
    paired = paired_bootstrap(candidate, reference, classes, seed=0)
    assert paired == paired_bootstrap(candidate[kept], reference[kept], classes[kept], seed=0)
    reference[5] = 0.3
    with pytest.raises(ValueError, match="with NaN at the same places"):
        paired_bootstrap(candidate, reference, classes, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), r"values has shape \(2, 3\)"),
        (np.zeros((1, 1, 2)), r"values has shape \(1, 1, 2\)"),
        (np.array([[1.0, 2.0], [math.nan, 2.0]]), "NaN at some seeds"),
        (np.zeros(3), r"values has shape \(3,\) and classes \(2,\)"),
        (np.array([math.nan, math.nan]), "no value besides NaN"),
        (np.array([1.0, math.inf]), "infinite"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_refuses(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, np.arange(2), seed=0)


@pytest.mark.usefixtures("without_shape_checks")
def test_refuses_sides_of_different_length() -> None:
    with pytest.raises(ValueError, match="candidate has 3 queries and reference 2"):
        paired_bootstrap(np.zeros(3), np.zeros(2), np.arange(3), seed=0)
