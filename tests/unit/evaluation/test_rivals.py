"""Entrants against their best rivals, and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.confidence import paired_test
from pipeline.evaluation.rivals import compare_with_best, holm

CLASSES = np.repeat(np.arange(40), 5)


def entrants(leads: dict[str, float], seeds: int = 3) -> dict[str, np.ndarray]:
    """Values of shared queries, each entrant ahead by its lead."""
    generator = np.random.default_rng(0)
    shared = generator.random(200)
    return {
        name: shared + lead + 0.05 * generator.standard_normal((seeds, 200))
        for name, lead in leads.items()
    }


def test_holm_by_hand() -> None:
    """Four tests: 4 * 0.01; 3 * 0.02; 2 * 0.03, no less than the one before; 0.04 likewise."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    # Of ten tests, the eight others with larger p-values.
    assert holm([0.004, 0.003], family=10) == pytest.approx([0.036, 0.03])
    with pytest.raises(ValueError, match="family = 1: must be at least the 2 p-values"):
        holm([0.1, 0.2], family=1)


def test_holm_is_between_no_correction_and_bonferronis() -> None:
    given = np.random.default_rng(1).random(30) ** 3
    adjusted = np.array(holm(list(given)))
    assert (adjusted >= given).all()
    assert (adjusted <= np.minimum(1, 30 * given) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(given)]) >= 0).all()


def test_each_entrant_meets_the_best_of_the_others() -> None:
    values = entrants({"a": 0.0, "b": 0.2, "c": 0.1})
    duels = compare_with_best(values, CLASSES, seed=0, samples=2000)
    assert {name: one.rival for name, one in duels.items()} == {"a": "b", "b": "c", "c": "b"}
    for name, one in duels.items():
        interval, p = paired_test(
            values[name], values[one.rival], CLASSES, seed=0, samples=2000, level=0.95
        )
        assert (one.gain, one.p, one.seeds) == (interval, p, 3)
    assert duels["b"].gain.mean == pytest.approx(0.1, abs=0.02)
    # The two who meet each other are one test, of three pairs.
    assert duels["b"].p_adjusted == duels["c"].p_adjusted
    p_values = [duels[name].p for name in ("a", "c")]
    assert [duels[name].p_adjusted for name in ("a", "c")] == holm(p_values, family=3)
    assert [duels[name].stands(0.95) for name in "abc"] == ["worse", "better", "worse"]


def test_who_cannot_be_told_apart_is_called_nothing() -> None:
    duels = compare_with_best(entrants({"a": 0.0, "b": 0.0005}), CLASSES, seed=0, samples=500)
    assert {one.stands(0.95) for one in duels.values()} == {"not told apart"}
    few = compare_with_best(entrants({"a": 0.0, "b": 0.5}), CLASSES % 9, seed=0)
    assert {(one.p, one.p_adjusted, one.gain.low) for one in few.values()} == {(None, None, None)}
    assert {one.stands(0.95) for one in few.values()} == {"not told apart"}
    with pytest.raises(ValueError, match="1 entrants: a comparison takes two"):
        compare_with_best(entrants({"a": 0.0}), CLASSES, seed=0)


def test_of_equal_entrants_hardly_ever_one_is_called_better_or_worse() -> None:
    """Of 200 tournaments of six equal entrants 10 are due at most, sigma 3.1."""
    wrong = 0
    for number in range(200):
        generator = np.random.default_rng(number)
        values = {str(name): generator.standard_normal((2, 30)) for name in range(6)}
        duels = compare_with_best(values, np.arange(30), seed=number, samples=1500)
        wrong += any(one.stands(0.95) != "not told apart" for one in duels.values())
    assert wrong <= 19


@pytest.mark.parametrize("seeds", [1, 2, 4])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_p_is_small_only_where_the_interval_leaves_zero_out(level: float, seeds: int) -> None:
    seen = set()
    for number in range(60):
        generator = np.random.default_rng(number)
        gains = generator.standard_normal((seeds, 15)) + 0.08 * (number % 12)
        interval, p = paired_test(
            gains, np.zeros(15), np.arange(15), seed=number, samples=400, level=level
        )
        assert interval.low is not None
        assert interval.high is not None
        assert p is not None
        excludes = interval.low > 0 or interval.high < 0
        if p <= 1 - level:
            assert excludes
            seen.add("told apart")
        elif seeds == 1 and p > 1.15 * (1 - level) + 0.02:  # two resamples more
            assert not excludes
            seen.add("not told apart")
    assert "told apart" in seen
    assert seeds > 1 or "not told apart" in seen


def test_p_is_students_for_normal_differences() -> None:
    gains = np.random.default_rng(3).standard_normal(50) + 0.3
    expected = stats.ttest_1samp(gains, 0).pvalue
    _, p = paired_test(gains, np.zeros(50), np.arange(50), seed=0, samples=100_000)
    assert p == pytest.approx(expected, rel=0.25)
    _, nothing = paired_test(gains, gains, np.arange(50), seed=0)
    assert nothing == 1
    # Beyond all resamples, by Student's test of the classes' means.
    _, certain = paired_test(gains + 2, np.zeros(50), np.arange(50), seed=0, samples=99)
    assert np.log(certain) == pytest.approx(np.log(stats.ttest_1samp(gains + 2, 0).pvalue), rel=0.2)
