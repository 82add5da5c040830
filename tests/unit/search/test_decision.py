"""Promotion and refusal: the interval of the gain against the tolerance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.evaluation.accuracy import MAP, OVERLAP
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.cells import Bootstrap
from pipeline.evaluation.compare import Comparison, Incompatible, Unfit, compare_queries
from pipeline.evaluation.confidence import paired_bootstrap
from pipeline.search.decision import decide


def comparison(low: float, mean: float, high: float) -> Comparison:
    """Gains in points of map."""
    return Comparison(
        by=MAP,
        candidate=0.5 + mean / 100,
        champion=0.5,
        gain=mean / 100,
        gain_low=low / 100,
        gain_high=high / 100,
        level=0.95,
        queries=100,
        units=20,
    )


def without_interval(mean: float) -> Comparison:
    found = replace(comparison(0, mean, 0), units=8)
    return replace(found, gain_low=None, gain_high=None)


@pytest.mark.parametrize(
    ("low", "mean", "high", "result"),
    [
        (0.1, 1.0, 2.0, "promoted"),  # better for sure
        (-0.4, 0.2, 0.8, "promoted"),  # perhaps worse, but by less than the tolerance
        (-0.5, -0.3, -0.1, "promoted"),  # worse for sure, and within the tolerance for sure
        (-1.0, 0.2, 1.4, "refused"),  # better on average, but the queries cannot tell
        (-1.0, -0.2, 0.6, "refused"),
        (-2.0, -1.0, -0.6, "refused"),  # worse for sure
    ],
)
def test_a_candidate_leads_if_it_is_surely_not_worse_than_the_tolerance(
    low: float, mean: float, high: float, result: str
) -> None:
    decision = decide(comparison(low, mean, high), 0.5)
    assert decision.result == result
    assert decision.moves_alias == (result == "promoted")
    assert f"a difference of {mean:+.2f} points" in decision.reason
    assert f"interval {low:+.2f} to {high:+.2f}" in decision.reason


def test_the_reason_tells_a_worse_candidate_from_too_few_queries() -> None:
    assert "20 test classes can tell 1.20 points apart" in (
        decide(comparison(-1.0, 0.2, 1.4), 0.5).reason
    )
    assert decide(comparison(-2.0, -1.0, -0.6), 0.5).reason.endswith(
        "worse by more than 0.5 points"
    )


@pytest.mark.parametrize(
    ("mean", "result"), [(5.0, "promoted"), (-0.5, "promoted"), (-0.6, "refused")]
)
def test_too_few_classes_promote_nobody_unless_it_is_asked_for(mean: float, result: str) -> None:
    decision = decide(without_interval(mean), 0.5)
    assert decision.result == "refused"
    assert f"{mean:+.2f} points, no interval: 8 test classes, 10 are needed" in decision.reason
    assert "--without-interval" in decision.reason
    assert decide(without_interval(mean), 0.5, without_interval=True).result == result
    # With an interval the option changes nothing.
    assert decide(comparison(-1.0, 0.2, 1.4), 0.5, without_interval=True).result == "refused"


def test_no_tolerance_asks_for_a_gain_that_is_sure() -> None:
    assert decide(comparison(-0.01, 1.0, 2.0), 0).result == "refused"
    assert decide(comparison(0.0, 1.0, 2.0), 0).result == "promoted"


def test_without_a_champion_the_first_candidate_leads() -> None:
    decision = decide(None, 0.5)
    assert (decision.result, decision.moves_alias) == ("first", True)


def test_only_a_champion_of_another_space_gives_way_without_a_comparison() -> None:
    decision = decide(Incompatible("another teacher"), 0.5)
    assert (decision.result, decision.moves_alias) == ("promoted", True)
    assert decision.reason.endswith("another teacher")
    decision = decide(Unfit("NaN"), 0.5)
    assert (decision.result, decision.moves_alias) == ("refused", False)
    assert decision.reason.endswith("NaN")


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match=rf"tolerance = {tolerance}: must be 0 or more"):
        decide(comparison(0, 1, 2), tolerance)


def test_queries_are_compared_in_pairs_against_one_database() -> None:
    """Two images a class, by hand: the database is the corners of a cube in ten dimensions.

    The candidate's queries are the database itself: each finds its partner first, map 1. In two
    classes a query of the champion lies at another class: its partner ties with the 17 images
    that are neither, and comes last of 19.
    """
    corner = torch.eye(10, dtype=torch.float64)
    labels = torch.arange(10).repeat_interleave(2)
    database = corner[labels]
    champion = database.clone()
    champion[[0, 5]] = database[[4, 0]]
    found = compare_queries(database, champion, database, labels, Bootstrap(200, 0.9, 0))
    assert (found.by, found.candidate) == (MAP, 1.0)
    assert found.champion == pytest.approx((18 + 2 / 19) / 20)
    assert found.gain == pytest.approx((2 - 2 / 19) / 20)
    assert found.gain_low is not None
    assert found.gain_high is not None
    assert 0 <= found.gain_low < found.gain < found.gain_high <= 1
    assert (found.queries, found.units, found.level) == (20, 10, 0.9)
    same = compare_queries(champion, champion, database, labels, Bootstrap(200, 0.9, 0))
    assert (same.gain_low, same.gain, same.gain_high) == (0.0, 0.0, 0.0)
    few = (rows[:18] for rows in (database, champion, database, labels))
    fewer = compare_queries(*few, Bootstrap(200, 0.9, 0))
    assert (fewer.units, fewer.gain_low, fewer.gain_high) == (9, None, None)
    assert fewer.gain == pytest.approx((2 - 2 / 17) / 18)


def test_without_labels_the_overlap_decides_by_query_image() -> None:
    generator = torch.Generator().manual_seed(0)
    database, noise = torch.randn(2, 60, 8, generator=generator, dtype=torch.float64)
    near, far = (normalize(database + weight * noise, dim=1) for weight in (0.3, 3.0))
    database = normalize(database, dim=1)
    found = compare_queries(near, far, database, None, Bootstrap(200, 0.9, 0))
    searches = {"near": Search(near), "far": Search(far)}
    overlaps = [one["overlap_at_10"] for one in measure_agreement(searches, database).values()]
    assert found.by is OVERLAP
    assert (found.candidate, found.champion) == tuple(float(one.mean()) for one in overlaps)
    alone = paired_bootstrap(*overlaps, np.arange(60), samples=200, level=0.9, seed=0)
    assert (found.gain, found.gain_low, found.gain_high) == (alone.mean, alone.low, alone.high)
    assert (found.queries, found.units) == (60, 60)
    assert found.metrics().keys() == {
        *("overlap_at_10", "champion_overlap_at_10", "level", "queries", "images"),
        *(f"overlap_at_10_gain{end}" for end in ("", "_low", "_high")),
    }
    decision = decide(found, 0.5)
    assert decision.result == "promoted"
    assert decision.reason.startswith(f"overlap_at_10 {100 * found.candidate:.2f} against ")
    back = decide(compare_queries(far, near, database, None, Bootstrap(200, 0.9, 0)), 0.5)
    assert back.result == "refused"


@pytest.mark.usefixtures("without_shape_checks")
def test_queries_of_another_space_are_refused() -> None:
    database = torch.eye(4, dtype=torch.float64)
    queries = torch.ones(4, 3, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"must be .* of one dim"):
        compare_queries(database, queries, database, labels, Bootstrap(9, 0.9, 0))
