"""The rows of one evaluation."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.evaluation.cells import Bootstrap, RetrievalSetup, evaluate_setups
from pipeline.evaluation.confidence import bootstrap_interval, paired_bootstrap
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import NetworkCard
from tests.made_training import tiny_embedder

LABELS = torch.tensor([0] * 6 + [1] * 6 + [2] * 5 + [3])  # the last is alone in its class
BOOTSTRAP = Bootstrap(samples=200, level=0.9, seed=3)


def setups(*roles: str) -> list[RetrievalSetup]:
    """Queries are noisy class centres, the noisier the later the role."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    database = centres[LABELS] + 0.3 * torch.randn(18, 8, generator=generator).double()
    made = []
    for number, role in enumerate(roles):
        noise = torch.randn(18, 8, generator=generator, dtype=torch.float64)
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
            result.query_metrics["average_precision"], seed=3, samples=200, level=0.9
        )
        assert row["map"] == result.map
        assert (row["map_low"], row["map_high"]) == (interval.low, interval.high)
        assert row["map_low"] < row["map"] < row["map_high"]
        assert (row["recall_at_1"], row["recall_at_4"]) == tuple(result.recall_at.values())
        assert (row["queries"], row["excluded_queries"]) == (17, 1)
        assert (row["query_px"], row["database_px"], row["input_bytes"]) == (16, 24, 768)
        assert row["parameters"] == 1529
        pd.testing.assert_frame_equal(results[setup.role].per_query, result.per_query)
    assert list(results) == ["asymmetric", "naive"]


def test_gains_are_paired_over_the_natural_opponent() -> None:
    given = setups("asymmetric", "symmetric", "naive", "baseline")
    rows, _ = evaluate_setups(given, LABELS, (1,), BOOTSTRAP)
    by_role = {row["role"]: row for row in rows}
    precision = {
        c.role: evaluate_retrieval(c.queries, c.database, LABELS).query_metrics["average_precision"]
        for c in given
    }
    for role, opponent in (("asymmetric", "naive"), ("symmetric", "baseline")):
        row = by_role[role]
        gain = paired_bootstrap(
            precision[role], precision[opponent], seed=3, samples=200, level=0.9
        )
        assert row["gain_over"] == opponent
        assert row["map_gain"] == pytest.approx(row["map"] - by_role[opponent]["map"], abs=1e-12)
        assert (row["map_gain_low"], row["map_gain_high"]) == (gain.low, gain.high)
        assert np.isfinite(gain.low)
    for role in ("naive", "baseline"):
        assert not any("gain" in column for column in by_role[role])


def test_without_an_opponent_there_is_no_gain() -> None:
    rows, _ = evaluate_setups(setups("teacher", "asymmetric"), LABELS, (1,), BOOTSTRAP)
    assert not any("gain" in column for row in rows for column in row)


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
            precision, own.query_metrics["average_precision"], seed=3, samples=200, level=0.9
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
