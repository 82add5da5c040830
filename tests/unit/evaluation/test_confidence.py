"""Bootstrap intervals: exact cases, a plain-loop restatement, coverage, and refused inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation import confidence
from pipeline.evaluation.confidence import bootstrap_interval, paired_bootstrap


def test_constant_values_have_no_width() -> None:
    interval = bootstrap_interval(np.full(9, 0.25), seed=0)
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


def test_closed_form_of_two_values() -> None:
    # The mean of two draws from {0, 1} is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4: the 10th and
    # the 90th percentile are 0 and 1, the 30th and the 70th both 1/2.
    values = np.array([0.0, 1.0])
    wide = bootstrap_interval(values, seed=0, samples=4000, level=0.8)
    assert (wide.low, wide.mean, wide.high) == (0, 0.5, 1)
    narrow = bootstrap_interval(values, seed=0, samples=4000, level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_equals_plain_loop() -> None:
    values = np.random.default_rng(1).random(37)
    generator = np.random.default_rng(5)
    means = [sum(values[i] for i in generator.integers(37, size=37)) / 37 for _ in range(200)]
    interval = bootstrap_interval(values, seed=5, samples=200, level=0.9)
    assert interval.low == pytest.approx(np.quantile(means, 0.05), abs=1e-12)
    assert interval.high == pytest.approx(np.quantile(means, 0.95), abs=1e-12)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)


def test_width_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(2).standard_normal(2000)
    interval = bootstrap_interval(values, seed=0, samples=4000)
    error = 1.959964 * values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - error, abs=0.06 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.06 * error)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    # 400 normal data sets: 90 % intervals hold the true mean 360 times; sigma of the count is 6,
    # and a percentile interval of 50 values is short by about 1 % (the normal instead of the t).
    generator = np.random.default_rng(3)
    data = generator.normal(loc=0.5, scale=2.0, size=(400, 50))
    intervals = [bootstrap_interval(row, seed=i, level=0.9) for i, row in enumerate(data)]
    assert 335 <= sum(i.low <= 0.5 <= i.high for i in intervals) <= 380


def test_seed_decides_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random(100)
    first = bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) == first
    assert bootstrap_interval(values, seed=2) != first
    monkeypatch.setattr(confidence, "CHUNK_BYTES", 1)
    assert bootstrap_interval(values, seed=1) == first


def test_excluded_queries_are_dropped() -> None:
    values = np.random.default_rng(6).random(20)
    holed = np.insert(values, [0, 7, 20], np.nan)
    assert bootstrap_interval(holed, seed=3) == bootstrap_interval(values, seed=3)


def test_shift_and_scale_move_the_interval() -> None:
    values = np.random.default_rng(7).random(50)
    plain = bootstrap_interval(values, seed=1)
    moved = bootstrap_interval(3 + 2 * values, seed=1)
    for end in ("low", "mean", "high"):
        assert getattr(moved, end) == pytest.approx(3 + 2 * getattr(plain, end), abs=1e-12)


def test_paired_difference_cancels_what_both_sides_share() -> None:
    generator = np.random.default_rng(8)
    reference = generator.random(300)
    candidate = reference + 0.02 + 0.01 * generator.standard_normal(300)
    paired = paired_bootstrap(candidate, reference, seed=0)
    assert paired.low > 0.015
    assert paired.high < 0.025
    assert paired.mean == pytest.approx(candidate.mean() - reference.mean(), abs=1e-12)
    alone = bootstrap_interval(candidate, seed=0)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


def test_paired_is_antisymmetric_and_zero_with_itself() -> None:
    candidate, reference = np.random.default_rng(9).random((2, 40))
    forth = paired_bootstrap(candidate, reference, seed=0)
    back = paired_bootstrap(reference, candidate, seed=0)
    assert (back.low, back.mean, back.high) == pytest.approx((-forth.high, -forth.mean, -forth.low))
    same = paired_bootstrap(candidate, candidate, seed=0)
    assert (same.low, same.mean, same.high) == (0, 0, 0)


def test_paired_drops_queries_excluded_on_both_sides_only() -> None:
    candidate, reference = np.array([[0.1, math.nan, 0.4], [0.2, math.nan, 0.1]])
    paired = paired_bootstrap(candidate, reference, seed=0)
    assert paired == paired_bootstrap(candidate[[0, 2]], reference[[0, 2]], seed=0)
    with pytest.raises(ValueError, match="with NaN at the same places"):
        paired_bootstrap(candidate, np.array([0.2, 0.3, 0.1]), seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2)), r"values has shape \(2, 2\)"),
        (np.array([]), "no value besides NaN"),
        (np.array([math.nan]), "no value besides NaN"),
        (np.array([1.0, math.inf]), "infinite"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_refuses(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, seed=0)


@pytest.mark.usefixtures("without_shape_checks")
def test_refuses_sides_of_different_length() -> None:
    with pytest.raises(ValueError, match="candidate has 3 queries and reference 2"):
        paired_bootstrap(np.zeros(3), np.zeros(2), seed=0)
