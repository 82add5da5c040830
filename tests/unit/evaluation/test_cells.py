"""The rows of one evaluation."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.evaluation.agreement import COLUMNS, Search, measure_agreement
from pipeline.evaluation.cells import (
    Bootstrap,
    Measured,
    RetrievalSetup,
    evaluate_setups,
    measure_setups,
    seed_rows,
)
from pipeline.evaluation.confidence import bootstrap_interval, paired_bootstrap
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.evaluation.roles import OPPONENTS
from pipeline.models.weights import NetworkCard
from tests.made_training import tiny_embedder

# Eleven classes of queries; the last is alone in its own.
SIZES = (6, 6, 5, 2, 2, 2, 2, 2, 3, 3, 4, 1)
LABELS = torch.repeat_interleave(torch.arange(12), torch.tensor(SIZES))
IMAGES = sum(SIZES)
CLASSES = LABELS.numpy()
BOOTSTRAP = Bootstrap(samples=200, level=0.9, seed=3)


def setups(*roles: str, seed: int = 0) -> list[RetrievalSetup]:
    """Queries are noisy class centres, the noisier the later the role."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    database = centres[LABELS] + 0.3 * torch.randn(IMAGES, 8, generator=generator).double()
    made = []
    for number, role in enumerate(roles):
        noise = torch.randn(IMAGES, 8, generator=generator, dtype=torch.float64)
        queries = normalize(centres[LABELS] + (0.5 + number) * noise, dim=1)
        card = NetworkCard("made/tiny", 8, 16)
        made.append(
            RetrievalSetup(
                role, tiny_embedder().eval(), card, 24, queries, normalize(database, dim=1)
            )
        )
    return made


def test_rows_hold_the_metrics_the_intervals_and_the_cost() -> None:
    given = setups("asymmetric", "naive")
    rows, results = evaluate_setups(given, LABELS, (1, 4), BOOTSTRAP)
    assert [row["role"] for row in rows] == ["asymmetric", "naive"]
    for setup, row in zip(given, rows, strict=True):
        result = evaluate_retrieval(setup.queries, setup.database, LABELS, recall_at=(1, 4))
        interval = bootstrap_interval(
            result.query_metrics["average_precision"], CLASSES, seed=3, samples=200, level=0.9
        )
        assert row["map"] == result.map
        assert (row["map_low"], row["map_high"]) == (interval.low, interval.high)
        assert row["map_low"] < row["map"] < row["map_high"]
        assert (row["recall_at_1"], row["recall_at_4"]) == tuple(result.recall_at.values())
        assert (row["queries"], row["excluded_queries"], row["classes"]) == (37, 1, 11)
        assert (row["query_px"], row["database_px"], row["input_bytes"]) == (16, 24, 768)
        assert row["parameters"] == 1529
        pd.testing.assert_frame_equal(pd.DataFrame(results[setup.role]), result.per_query)
    assert list(results) == ["asymmetric", "naive"]


def test_gains_are_paired_over_what_one_would_do_without_the_method() -> None:
    given = setups("asymmetric", "symmetric", "naive", "adapter", "baseline")
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP)
    by_role = {row["role"]: row for row in rows}
    precision = {
        c.role: evaluate_retrieval(c.queries, c.database, LABELS).query_metrics["average_precision"]
        for c in given
    }
    seen = 0
    for role, row in by_role.items():
        compared = {column for column in row if column.startswith("map_over_")}
        opponents = OPPONENTS.get(role, ())
        assert compared == {f"map_over_{o}{e}" for o in opponents for e in ("", "_low", "_high")}
        for opponent in opponents:
            gain = paired_bootstrap(
                precision[role], precision[opponent], CLASSES, seed=3, samples=200, level=0.9
            )
            column, seen = f"map_over_{opponent}", seen + 1
            assert row[column] == pytest.approx(row["map"] - by_role[opponent]["map"], abs=1e-12)
            assert (row[f"{column}_low"], row[f"{column}_high"]) == (gain.low, gain.high)
            assert np.isfinite(gain.low)
    assert seen == 6


def test_without_an_opponent_there_is_no_gain() -> None:
    rows, _ = evaluate_setups(setups("teacher", "asymmetric"), LABELS, (1,), BOOTSTRAP)
    assert not any("over" in column or "headroom" in column for row in rows for column in row)


def test_the_headroom_that_is_closed_by_hand() -> None:
    given = setups("asymmetric", "naive")
    alone = np.where(CLASSES == 11, np.nan, 1.0)
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, alone)
    student, naive = (row["map"] for row in rows)
    assert rows[0]["headroom_closed"] == pytest.approx((student - naive) / (1 - naive), abs=1e-12)
    assert "headroom_closed" not in rows[1]
    # Of a teacher that is no better than naive there is none to close.
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, 0 * alone)
    assert rows[0]["headroom_closed"] is None


def test_under_ten_classes_there_is_no_interval_and_no_nan() -> None:
    labels = LABELS % 9
    teacher = np.full(IMAGES, 0.9)
    rows, _ = evaluate_setups(setups("asymmetric", "naive"), labels, (1,), BOOTSTRAP, teacher)
    ends = [
        row[c] for row in rows for c in row if c.startswith("map") and c.endswith(("low", "high"))
    ]
    assert ends == [None] * 10
    assert rows[0]["classes"] == 9
    assert rows[0]["map_over_naive"] == pytest.approx(rows[0]["map"] - rows[1]["map"], abs=1e-12)
    json.dumps(rows, allow_nan=False)


def test_the_same_seed_gives_the_same_intervals() -> None:
    first, again = (
        evaluate_setups(setups("asymmetric", "naive"), LABELS, (1,), BOOTSTRAP)[0] for _ in range(2)
    )
    assert first == again
    other = evaluate_setups(setups("asymmetric", "naive"), LABELS, (1,), Bootstrap(200, 0.9, 4))[0]
    assert other[0]["map_low"] != first[0]["map_low"]
    assert other[0]["map"] == first[0]["map"]


def test_drops_are_paired_with_the_teacher_at_full_size() -> None:
    given = setups("asymmetric", "naive")
    database = given[0].database
    teacher = evaluate_retrieval(database, database, LABELS)
    precision = teacher.query_metrics["average_precision"]
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, precision)
    for setup, row in zip(given, rows, strict=True):
        own = evaluate_retrieval(setup.queries, setup.database, LABELS)
        drop = paired_bootstrap(
            precision,
            own.query_metrics["average_precision"],
            CLASSES,
            seed=3,
            samples=200,
            level=0.9,
        )
        assert row["map_drop"] == pytest.approx(teacher.map - row["map"], abs=1e-12)
        assert (row["map_drop_low"], row["map_drop_high"]) == (drop.low, drop.high)
        assert row["map_drop_low"] <= row["map_drop"] <= row["map_drop_high"]
    assert rows[-1]["map_drop"] > 0


def test_the_teacher_does_not_drop_below_itself() -> None:
    (given,) = setups("teacher")
    itself = RetrievalSetup(
        "teacher", given.network, given.card, 24, given.database, given.database
    )
    result = evaluate_retrieval(given.database, given.database, LABELS)
    precision = result.query_metrics["average_precision"]
    (row,), _ = evaluate_setups([itself], LABELS, (1,), BOOTSTRAP, precision)
    assert [row[f"map_drop{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]


def test_with_the_teachers_database_rows_agree_with_its_search() -> None:
    given = setups("asymmetric", "naive", "adapter")
    teacher = given[0].database
    given = [replace(one, database=teacher) for one in given]
    rows, found = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, teacher=teacher)
    searches = {one.role: Search(one.queries) for one in given}
    agreement = measure_agreement(searches, teacher)
    images = np.arange(IMAGES)
    options = {"seed": 3, "samples": 200, "level": 0.9}
    for row in rows:
        own = agreement[row["role"]]
        for column in COLUMNS:
            if column == "overlap_at_100":  # 37 other images
                assert row[column] is row[f"{column}_low"] is row[f"{column}_high"] is None
                continue
            interval = bootstrap_interval(own[column], images, **options)
            assert (row[f"{column}_low"], row[f"{column}_high"]) == (interval.low, interval.high)
            assert row[column] == interval.mean
            np.testing.assert_array_equal(found[row["role"]][column], own[column])
    student, naive = (agreement[role]["overlap_at_10"] for role in ("asymmetric", "naive"))
    gain = paired_bootstrap(student, naive, images, **options)
    assert rows[0]["overlap_at_10_over_naive"] == gain.mean > 0
    assert rows[0]["overlap_at_10_over_naive_low"] == gain.low
    assert rows[0]["overlap_at_10_drop"] == pytest.approx(1 - student.mean(), abs=1e-12)
    json.dumps(rows, allow_nan=False)


def test_the_figures_of_map_are_the_same_with_and_without_agreement() -> None:
    given = setups("asymmetric", "symmetric", "naive")
    best = np.where(CLASSES == 11, np.nan, 0.9)
    plain, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, best)
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, best, given[0].database)
    for row, own in zip(plain, rows, strict=True):
        assert row == {column: own[column] for column in row}
        assert len(own) > len(row) + 15


def test_without_labels_the_overlap_takes_the_place_of_map() -> None:
    given = setups("asymmetric", "symmetric", "naive")
    teacher = given[0].database
    given = [replace(one, database=teacher) for one in given]
    given[1] = replace(given[1], database=given[1].queries)
    rows, found = evaluate_setups(given, None, (1,), BOOTSTRAP, teacher=teacher)
    labelled, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP, teacher=teacher)
    for row, other in zip(rows, labelled, strict=True):
        assert [row[c] for c in ("map", "map_low", "map_high", "map_at_r")] == [None] * 4
        assert not any(column.startswith(("recall", "map_over")) for column in row)
        assert (row["queries"], row["classes"]) == (IMAGES, 0)
        shared = [c for c in other if c.startswith(("overlap", "self", "rbo", "cosine"))]
        assert {c: row[c] for c in shared} == {c: other[c] for c in shared}
    student, naive = (row["overlap_at_10"] for row in (rows[0], rows[2]))
    assert rows[0]["headroom_closed"] == pytest.approx((student - naive) / (1 - naive))
    assert rows[1]["self_recall"] is rows[1]["cosine"] is None
    assert rows[1]["overlap_at_10_over_asymmetric"] is not None
    assert "average_precision" not in found["asymmetric"]
    json.dumps(rows, allow_nan=False)


def test_a_longer_database_is_searched_whole() -> None:
    """The further rows are no queries, and a network's own database lacks them."""
    given = setups("asymmetric", "symmetric")
    teacher = given[0].database
    queries = given[0].queries[:20]
    given = [
        replace(given[0], queries=queries, database=teacher),
        replace(given[1], queries=queries, database=queries),
    ]
    rows, _ = evaluate_setups(given, None, (1,), BOOTSTRAP, teacher=teacher)
    expected = measure_agreement({"s": Search(queries)}, teacher)["s"]["overlap_at_10"]
    assert rows[0]["overlap_at_10"] == pytest.approx(expected.mean(), abs=1e-12)
    assert rows[1]["overlap_at_10"] is None
    assert "overlap_at_10_drop" not in rows[1]


def measured(*roles: str, seed: int) -> Measured:
    """What a seed measured, with its own teacher's database."""
    given = setups(*roles, seed=seed)
    database = given[0].database
    given = [replace(one, database=database) for one in given]
    precision = evaluate_retrieval(database, database, LABELS).query_metrics["average_precision"]
    return measure_setups(given, LABELS, (1, 4), precision, database)


def test_rows_of_several_seeds_are_means_with_crossed_intervals_and_the_range() -> None:
    found = [measured("asymmetric", "naive", seed=seed) for seed in range(3)]
    rows = seed_rows(found, BOOTSTRAP)
    singles = [seed_rows([one], BOOTSTRAP) for one in found]
    options = {"seed": 3, "samples": 200, "level": 0.9}
    for number, role in enumerate(("asymmetric", "naive")):
        row, of_seeds = rows[number], [single[number] for single in singles]
        assert (row["role"], row["seeds"], of_seeds[0]["seeds"]) == (role, 3, 1)
        for column in ("map", "map_trapezoid", "map_at_r", "recall_at_1", "overlap_at_10", "rbo"):
            assert row[column] == pytest.approx(np.mean([one[column] for one in of_seeds]))
        maps = [one["map"] for one in of_seeds]
        assert row["map_seed_low"] == pytest.approx(min(maps), abs=1e-12)
        assert row["map_seed_high"] == pytest.approx(max(maps), abs=1e-12)
        assert "map_seed_low" not in of_seeds[0]
        precision = np.stack([one.values[role]["average_precision"] for one in found])
        interval = bootstrap_interval(precision, CLASSES, **options)
        assert (row["map_low"], row["map_high"]) == (interval.low, min(interval.high, 1.0))
        teacher = np.stack([one.teacher for one in found])
        drop = paired_bootstrap(teacher, precision, CLASSES, **options)
        assert (row["map_drop"], row["map_drop_low"]) == (drop.mean, drop.low)
    gain = paired_bootstrap(
        *(
            np.stack([one.values[role]["average_precision"] for one in found])
            for role in ("asymmetric", "naive")
        ),
        CLASSES,
        **options,
    )
    assert (rows[0]["map_over_naive"], rows[0]["map_over_naive_high"]) == (gain.mean, gain.high)
    many = seed_rows([measured("asymmetric", seed=seed) for seed in range(5)], BOOTSTRAP)
    assert many[0]["seeds"] == 5
    assert "map_seed_low" not in many[0]  # five seeds speak for themselves
    json.dumps(rows, allow_nan=False)


def test_a_row_that_no_further_seed_trains_has_one_seed_and_is_compared_with_all() -> None:
    first, further = (
        measured("asymmetric", "naive", seed=0),
        measured("asymmetric", seed=1),
    )
    asymmetric, naive = seed_rows([first, further], BOOTSTRAP)
    assert (asymmetric["seeds"], naive["seeds"]) == (2, 1)
    assert "map_seed_low" not in naive
    assert naive == {
        **seed_rows([first], BOOTSTRAP)[1],
        **{c: naive[c] for c in naive if "drop" in c},
    }
    assert asymmetric["map_over_naive"] == pytest.approx(asymmetric["map"] - naive["map"])


def test_without_labels_the_range_of_the_seeds_is_that_of_the_overlap() -> None:
    found = []
    for seed in range(2):
        given = setups("asymmetric", seed=seed)
        found.append(measure_setups(given, None, (1,), teacher=given[0].database))
    (row,) = seed_rows(found, BOOTSTRAP)
    overlaps = [one.values["asymmetric"]["overlap_at_10"].mean() for one in found]
    ends = row["overlap_at_10_seed_low"], row["overlap_at_10_seed_high"]
    assert ends == pytest.approx((min(overlaps), max(overlaps)))
    assert row["overlap_at_10"] == pytest.approx(np.mean(overlaps))
    assert "map_seed_low" not in row
