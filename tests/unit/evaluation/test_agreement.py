"""Agreement with the teacher's search against plain loops, closed forms and its invariances."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.evaluation import agreement
from pipeline.evaluation.agreement import (
    COLUMNS,
    Search,
    measure_agreement,
    rank_biased_overlap,
)


def unit_rows(count: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=1)


def quantised(rows: Tensor) -> Tensor:
    """Entries of 0, 1 and 2 eighths: products are exact, and many are equal."""
    return (rows * 3).round().abs().clamp(max=2) / 8


def ranking(scores: list[float], other: list[float], own: int) -> list[int]:
    """Best first, the own row left out; equal ones by rising score of the other side, then row."""
    rows = [row for row in range(len(scores)) if row != own]
    return sorted(rows, key=lambda row: (-scores[row], other[row], row))


def plain(
    queries: Tensor, database: Tensor, teacher: Tensor, *, is_teachers: bool
) -> dict[str, list[float]]:
    """The definitions in loops."""
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for i in range(len(queries)):
        ours = [float(queries[i] @ row) for row in database]
        theirs = [float(teacher[i] @ row) for row in teacher]
        first, second = ranking(theirs, ours, i), ranking(ours, theirs, i)
        for k in (1, 10, 100):
            share = len(set(first[:k]) & set(second[:k])) / k
            found[f"overlap_at_{k}"].append(share if k < len(first) else math.nan)
        depth = min(100, len(first))
        total = sum(len(set(first[:d]) & set(second[:d])) / d * 0.9**d for d in range(1, depth + 1))
        rest = len(set(first[:depth]) & set(second[:depth])) / depth * 0.9**depth
        found["rbo"].append(rest + 0.1 / 0.9 * total)
        is_first = all(ours[i] > ours[j] for j in range(len(ours)) if j != i)
        found["self_recall"].append(float(is_first) if is_teachers else math.nan)
        found["cosine"].append(ours[i] if is_teachers else math.nan)
    return found


@pytest.mark.parametrize("rows", [2, 12, 40, 130])
@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 30_000, 1 << 27])
def test_it_is_what_plain_loops_give(
    monkeypatch: pytest.MonkeyPatch, rows: int, has_ties: bool, block_bytes: int
) -> None:
    monkeypatch.setattr(agreement, "BLOCK_BYTES", block_bytes)
    teacher, noise = unit_rows(rows, 6, 0), unit_rows(rows, 6, 1)
    student = normalize(teacher + 0.8 * noise, dim=1)
    own = unit_rows(rows, 4, 2)
    if has_ties:
        teacher, student, own = map(quantised, (teacher, student, own))
    queries = rows - rows // 4
    searches = {
        "asymmetric": Search(student[:queries]),
        "symmetric": Search(own[:queries], own),
    }
    found = measure_agreement(searches, teacher)
    for name, (asked, database) in {
        "asymmetric": (student, teacher),
        "symmetric": (own, own),
    }.items():
        expected = plain(asked[:queries], database, teacher, is_teachers=name == "asymmetric")
        assert found[name].keys() == expected.keys()
        for column in COLUMNS:
            np.testing.assert_allclose(found[name][column], expected[column], atol=1e-12)


def test_the_teacher_agrees_with_itself_even_where_it_cannot_tell_images_apart() -> None:
    teacher = unit_rows(60, 5, 0)
    teacher[20:40] = teacher[:20]
    found = measure_agreement({"teacher": Search(teacher)}, teacher)["teacher"]
    for column in ("overlap_at_1", "overlap_at_10", "rbo", "cosine"):
        np.testing.assert_allclose(found[column], 1, atol=1e-12)
    twice = np.arange(60) < 40
    np.testing.assert_array_equal(found["self_recall"], np.where(twice, 0.0, 1.0))


def test_a_collapsed_student_finds_nothing() -> None:
    """All rows are equally similar: they stand in the order that the teacher turns round."""
    teacher = unit_rows(40, 5, 0)
    found = measure_agreement({"student": Search(torch.zeros(40, 5).double())}, teacher)["student"]
    assert found["overlap_at_10"].max() == found["self_recall"].max() == 0
    assert found["cosine"].max() == 0


def test_a_turned_query_by_hand() -> None:
    """On a circle, the query turned past the middle between its own row and the next one."""
    angles = torch.tensor([0.0, 10, 20, 30, 180, 190, 200, 210, 220, 230, 240, 250, 260])
    angles = angles.double().deg2rad()
    teacher = torch.stack([angles.cos(), angles.sin()], dim=1)
    turn = torch.tensor(6.0, dtype=torch.float64).deg2rad()
    query = torch.stack([turn.cos(), turn.sin()])[None]
    found = measure_agreement({"student": Search(query)}, teacher)["student"]
    assert found["overlap_at_1"] == 1
    assert found["overlap_at_10"] == pytest.approx(1.0)  # the far side keeps its ten of twelve
    assert found["self_recall"] == 0  # 4 degrees to row 1, 6 to the own row
    assert found["cosine"] == pytest.approx(math.cos(math.radians(6)))


def test_rank_biased_overlap_has_its_closed_forms() -> None:
    same = np.arange(1, 101)[None]
    assert rank_biased_overlap(same) == pytest.approx(1)
    assert rank_biased_overlap(0 * same) == 0
    # All but the first: sum of (d - 1) / d p^d, by the series of -ln(1 - p).
    p, depth = 0.9, 100
    without_first = rank_biased_overlap(same - 1)
    d = np.arange(1, depth + 1)
    tail = (d - 1) / d * p**d
    assert without_first == pytest.approx(0.99 * p**depth + (1 - p) / p * tail.sum())
    endless = 1 + (1 - p) / p * math.log(1 - p)
    assert without_first == pytest.approx(endless, abs=2e-5)


def test_rank_biased_overlap_is_that_of_the_paper() -> None:
    """Webber et al. (2010), table 2: disjoint first items, then a shared one at each depth.

    S = a b c d e, T = z c a v w: shared at depths 1 to 5: 0 0 2 2 2; RBO_EXT at p = 0.9 by hand.
    """
    shared = np.array([[0, 0, 2, 2, 2]])
    by_hand = 0.4 * 0.9**5 + (0.1 / 0.9) * (2 / 3 * 0.9**3 + 0.5 * 0.9**4 + 0.4 * 0.9**5)
    assert rank_biased_overlap(shared) == pytest.approx(by_hand)


def test_rows_may_stand_in_any_order_and_spaces_may_be_turned() -> None:
    teacher, student = unit_rows(50, 6, 0), unit_rows(50, 6, 1)
    student = normalize(teacher + student, dim=1)
    found = measure_agreement({"s": Search(student)}, teacher)["s"]
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    turned = torch.linalg.qr(unit_rows(6, 6, 3)).Q
    other = measure_agreement({"s": Search((student @ turned)[order])}, (teacher @ turned)[order])
    for column in COLUMNS:
        np.testing.assert_allclose(other["s"][column], found[column][order.numpy()], atol=1e-12)


def test_nearer_queries_agree_more() -> None:
    teacher, noise = unit_rows(200, 16, 0), unit_rows(200, 16, 1)
    searches = {
        str(weight): Search(normalize(teacher + weight * noise, dim=1))
        for weight in (0.2, 0.5, 1.0, 2.0)
    }
    means = [
        [float(np.nanmean(one[column])) for one in measure_agreement(searches, teacher).values()]
        for column in COLUMNS
    ]
    assert len(means) == 6
    for falling in means:
        assert all(first >= second for first, second in pairwise(falling))
        assert falling[0] > falling[-1]


def test_a_database_without_the_teachers_further_rows_has_no_overlap() -> None:
    teacher, own = unit_rows(30, 6, 0), unit_rows(20, 4, 1)
    found = measure_agreement({"symmetric": Search(own, own)}, teacher)["symmetric"]
    assert all(np.isnan(values).all() for values in found.values())
    assert len(found) == 6


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("search", "teacher", "words"),
    [
        ([torch.ones(4, 3)], torch.ones(4, 2), "must be .row, dim., of one dim in a search"),
        ([torch.ones(4)], torch.ones(4, 2), "must be .row, dim."),
        ([torch.ones(5, 2)], torch.ones(4, 2), "5 queries and 4 rows of the teacher's"),
        ([torch.ones(1, 2)], torch.ones(1, 2), "two rows or more"),
        ([torch.ones(3, 2), torch.ones(2, 2)], torch.ones(4, 2), "its database has 2 rows"),
        ([torch.full((4, 2), math.nan)], torch.ones(4, 2), "queries hold NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    search: list[Tensor], teacher: Tensor, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        measure_agreement({"one": Search(*search)}, teacher)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    teacher, noise = unit_rows(300, 16, 0), unit_rows(300, 16, 1)
    student = normalize(teacher + 0.8 * noise, dim=1)
    found = measure_agreement({"s": Search(student)}, teacher)["s"]
    gpu = measure_agreement({"s": Search(student.cuda())}, teacher.cuda())["s"]
    for column in COLUMNS:
        np.testing.assert_allclose(gpu[column], found[column], atol=1e-12)
