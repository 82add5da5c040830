"""Who beats whom, in figures that can be checked by eye."""

from typing import Any

import numpy as np
import pytest

from pipeline.report.curves import LABEL_SPACE, draw_curves
from pipeline.report.tournament import Queries, Resampling, equal_costs, tournaments
from tests.made_report import row

DRAWN = Resampling(seed=0, level=0.95)
UNITS = np.repeat(np.arange(20), 5)


def asked(**gains: float) -> Queries:
    """Each entrant is so much better than the same hard queries, each query a little other."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.2, 0.6, (2, 100))
    return Queries(
        {name: hard + gain + generator.normal(0, 0.01, (2, 100)) for name, gain in gains.items()},
        UNITS,
    )


def rows_of(queries: Queries, **changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the entrants, of 32 px, and a teacher's."""
    students = [
        row("made", name, "asymmetric", 32, float(values.mean())) | changes.get(name, {})
        for name, values in queries.values.items()
    ]
    return [row("made", "teacher", "teacher", 96, 0.7), *students]


def test_a_clear_winner_is_called_so_with_points_and_p() -> None:
    queries = asked(good=0.1, fair=0.0, poor=-0.2)
    (found,) = tournaments(rows_of(queries), queries, {}, DRAWN)
    assert [one["network"] for one in found["entrants"]] == ["good", "fair", "poor"]
    good, fair, poor = found["entrants"]
    assert (good["rival"], fair["rival"], poor["rival"]) == ("fair", "good", "good")
    assert good["gain"] == pytest.approx(0.1, abs=0.01)
    assert poor["gain"] == pytest.approx(-0.3, abs=0.01)
    assert [one["stands"] for one in found["entrants"]] == ["better", "worse", "worse"]
    seeds = queries.values["good"].mean(axis=1)
    assert (good["least"], good["most"]) == (seeds.min(), seeds.max())
    assert found["answer"].startswith("good beats every other: +")
    assert found["answer"].endswith("p < 0.001. Worse: fair, poor.")
    assert found["answer"].count(". ") == 1
    assert found["curves"] is None


def test_entrants_that_are_alike_are_not_told_apart() -> None:
    queries = asked(one=0.0, other=0.0002, poor=-0.2)
    (found,) = tournaments(rows_of(queries), queries, {}, DRAWN)
    first, second, poor = found["entrants"]
    assert first["stands"] == second["stands"] == "not told apart"
    assert poor["stands"] == "worse"
    assert found["answer"].startswith(f"No entrant beats all others: {first['network']} has the")
    assert (
        f"Not told apart from {first['network']}: {second['network']}; worse: poor."
        in (found["answer"])
    )


def test_who_is_not_told_apart_from_the_best_is_not_beaten() -> None:
    """Though the second is: the third is as good on average of queries that differ more."""
    queries = asked(good=0.1, fair=0.09, wild=0.0)
    wild = queries.values["wild"] + np.repeat(np.random.default_rng(1).normal(0.075, 0.3, 20), 5)
    queries = Queries({**queries.values, "wild": wild}, UNITS)
    (found,) = tournaments(rows_of(queries), queries, {}, DRAWN)
    stands = {one["network"]: one["stands"] for one in found["entrants"]}
    assert stands == {"good": "better", "fair": "worse", "wild": "not told apart"}
    assert found["answer"].startswith("No entrant beats all others: good has the highest mean, +")
    assert "Not told apart from good: wild; worse: fair." in found["answer"]


def test_under_ten_classes_nothing_is_called_better() -> None:
    queries = asked(good=0.1, poor=-0.2)
    few = Queries(queries.values, UNITS % 9)
    (found,) = tournaments(rows_of(few), few, {}, DRAWN)
    assert {one["stands"] for one in found["entrants"]} == {"not told apart"}
    assert found["answer"].startswith("Nothing here can be called better or worse: that takes 10")


def test_students_of_several_sizes_meet_nobody() -> None:
    queries = asked(small=0.0, large=0.1)
    rows = rows_of(queries, large={"query_px": 64})
    assert tournaments(rows, queries, {}, DRAWN) == []
    assert equal_costs(rows, queries, DRAWN) is None


LIGHT = {"backbone": "timm/light", "query_px": 96}


@pytest.mark.parametrize(
    ("gain", "word"), [(0.1, "confirmed"), (-0.1, "refuted"), (0.0001, "undecided")]
)
def test_resolution_meets_the_lighter_network_of_its_cost(gain: float, word: str) -> None:
    queries = asked(small=gain, light=0.0, dear=0.0)
    near = {"gmacs": row("made", "small", "asymmetric", 32, 0.5)["gmacs"] * 1.08}
    rows = rows_of(queries, light=LIGHT | near, dear=LIGHT | {"gmacs": 1.0})
    found = equal_costs(rows, queries, DRAWN)
    assert found is not None
    (pair,) = found["pairs"]
    assert (pair["resolution"]["network"], pair["architecture"]["network"]) == ("small", "light")
    assert pair["gain"] == pytest.approx(gain, abs=0.005)
    assert pair["word"] == word
    assert f"is {word} in 1 of 1 pair." in found["answer"]


@pytest.mark.parametrize(
    "changes",
    [
        {"small": {"query_px": 96}},  # no lower resolution
        {"light": {"query_px": 64}},  # lower itself
    ],
)
def test_a_pair_of_another_kind_is_none(changes: dict[str, Any]) -> None:
    queries = asked(small=0.1, light=0.0)
    near = {"gmacs": row("made", "small", "asymmetric", 32, 0.5)["gmacs"]}
    rows = rows_of(
        queries,
        light=LIGHT | near | changes.get("light", {}),
        small=changes.get("small", {}),
    )
    assert equal_costs(rows, queries, DRAWN) is None


def test_students_of_one_cost_all_meet_the_lighter_network() -> None:
    queries = asked(a=-0.1, b=0.1, light=0.0)
    near = {"gmacs": row("made", "a", "asymmetric", 32, 0.5)["gmacs"] * 1.05}
    found = equal_costs(rows_of(queries, light=LIGHT | near), queries, DRAWN)
    assert found is not None
    words = {pair["resolution"]["network"]: pair["word"] for pair in found["pairs"]}
    assert words == {"a": "refuted", "b": "confirmed"}


def test_a_pair_further_apart_than_a_tenth_is_none() -> None:
    queries = asked(small=0.1, light=0.0)
    far = {"gmacs": row("made", "small", "asymmetric", 32, 0.5)["gmacs"] / 1.12}
    assert equal_costs(rows_of(queries, light=LIGHT | far), queries, DRAWN) is None


def test_names_at_the_ends_of_curves_keep_apart_and_inside() -> None:
    trials = {f"n{number}": [0.1, 0.5 + number / 1000] for number in range(12)}
    trials["late"] = [-1.0, 0.3]  # its first trial had no score
    for panel in draw_curves(trials).values():
        labels = [line["label"] for line in panel["lines"]]
        gaps = np.diff(labels)
        assert len(gaps) == 12
        assert gaps.min() >= LABEL_SPACE - 1e-9
        assert labels[-1] <= panel["size"][1]
        points = {line["name"]: line["points"] for line in panel["lines"]}
        assert (len(points["late"]), len(points["n3"])) == (1, 2)


@pytest.mark.parametrize(
    "name", ["absolute-independent", "a-name-of-forty-letters-which-goes-on-so", "short"]
)
def test_the_longest_name_has_room_beside_the_curves(name: str) -> None:
    """At 12 px, in bold, such names have 7.5 px a letter in the wide font of DejaVu."""
    for size, panel in draw_curves({name: [0.3, 0.5], "n": [0.2, 0.4]}).items():
        left, right, *_ = panel["edges"]
        assert right + 8 + 7.5 * len(name) <= panel["size"][0]
        assert right - left == {"wide": 530, "narrow": 210}[size]
