"""Exact retrieval metrics: by hand, by plain loops, by other programs, by what must not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.evaluation import ranks
from pipeline.evaluation.ranking import RetrievalResult, evaluate_queries, evaluate_retrieval

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "reference" / "retrieval.npz"
needs_reference = pytest.mark.skipif(
    not REFERENCE.parents[1].is_dir(), reason="../shared is not on this machine"
)
AXIS = torch.eye(3, dtype=torch.float64)


def loop_metrics(
    similarity: Tensor, query_labels: Tensor, database_labels: Tensor, excluded: Tensor | None
) -> np.ndarray:
    """The four columns by sorting every row and walking down it, from a similarity matrix."""
    table = np.full((len(similarity), 4), np.nan)
    for q, row in enumerate(similarity.tolist()):
        left = [d for d in range(len(row)) if excluded is None or d != int(excluded[q])]
        relevant = {d: bool(database_labels[d] == query_labels[q]) for d in left}
        left.sort(key=lambda d: (-row[d], relevant[d]))  # a tied negative comes first
        total = sum(relevant.values())
        if not total:
            continue
        hits, precision, trapezoid, at_r, first_hit = 0, 0.0, 0.0, 0.0, 0
        old_precision = 1.0
        for rank, d in enumerate(left, start=1):
            if relevant[d]:
                hits += 1
                precision += hits / rank
                trapezoid += (old_precision + hits / rank) / 2
                at_r += hits / rank if rank <= total else 0.0
                first_hit = first_hit or rank
            old_precision = hits / rank
        table[q] = precision / total, trapezoid / total, at_r / total, first_hit
    return table


def random_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Query, database, their labels and an excluded row; integer-valued, so that ties abound."""
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)

        def integers(low: int, high: int, *shape: int, g: torch.Generator = generator) -> Tensor:
            return torch.randint(low, high, shape, generator=g)

        queries, rows = int(integers(1, 30, 1)), int(integers(2, 50, 1))
        dim, classes = int(integers(1, 5, 1)), (2, 5, 25)[seed % 3]
        dtype = (torch.float32, torch.float64)[seed % 2]
        query_labels, database_labels = integers(-3, classes - 3, queries), integers(-3, 2, rows)
        database_labels[0] = query_labels[0]  # at least one positive ...
        excluded = integers(1, rows, queries)  # ... which is not left out
        query, database = integers(-2, 3, queries, dim), integers(-2, 3, rows, dim)
        yield query.to(dtype), database.to(dtype), query_labels, database_labels, excluded


def random_embeddings(rows: int = 80, dim: int = 8, classes: int = 9) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    query, database = torch.randn(2, rows, dim, generator=generator, dtype=torch.float64)
    return query, query + database, torch.randint(classes, (rows,), generator=generator)


def table(result: RetrievalResult) -> np.ndarray:
    return result.per_query.to_numpy()


def test_closed_form_with_a_tie_and_a_singleton() -> None:
    # Query 0 (class 0) sees rows 1..4 at 3, 2, 2, 1 with row 0, its own, the most similar by far:
    # row 1 negative, row 2 positive tied with row 3 negative, row 4 positive -> ranks 3 and 4.
    similarity = torch.zeros(5, 5, dtype=torch.float64)
    similarity[0] = torch.tensor([9, 3, 2, 2, 1])
    labels = torch.tensor([0, 1, 0, 2, 0])
    result = evaluate_retrieval(similarity, torch.eye(5, dtype=torch.float64), labels)
    first = result.per_query.iloc[0]
    assert first.average_precision == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert first.average_precision_trapezoid == pytest.approx((0 / 2 + 1 / 3 + 1 / 3 + 2 / 4) / 4)
    assert first.average_precision_at_r == 0
    assert first.first_hit_rank == 3
    # Queries 2 and 4 see only ties: two negatives first, then their two positives.
    assert result.map == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert result.recall_at == {1: 0, 2: 0, 4: 1, 8: 1}
    assert result.excluded_queries == 2
    assert result.per_query.iloc[[1, 3]].isna().all(axis=None)


def test_closed_form_at_r() -> None:
    # Ranks 1, 3, 4 of R = 3 positives: AP@R counts the first two only.
    database = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    labels = torch.tensor([0, 1, 0, 0, 1])
    result = evaluate_queries(torch.ones(1, 1), database, torch.tensor([0]), labels)
    assert result.map == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert result.map_at_r == pytest.approx((1 + 2 / 3) / 3)
    assert result.map_trapezoid == pytest.approx((1 + 1 + 1 / 2 + 2 / 3 + 2 / 3 + 3 / 4) / 6)


def test_perfect_retrieval_is_one() -> None:
    labels = torch.arange(3).repeat(4)
    result = evaluate_retrieval(AXIS[labels], AXIS[labels], labels)
    assert (result.map, result.map_trapezoid, result.map_at_r) == (1, 1, 1)
    assert result.recall_at == {1: 1, 2: 1, 4: 1, 8: 1}
    assert result.excluded_queries == 0


@pytest.mark.parametrize("compared_positives", [0, 8, 1000])
def test_equals_plain_loops_with_many_ties(
    monkeypatch: pytest.MonkeyPatch, compared_positives: int
) -> None:
    monkeypatch.setattr(ranks, "COMPARED_POSITIVES", compared_positives)
    cases, with_excluded_queries = 0, 0
    for query, database, query_labels, database_labels, excluded in random_cases():
        for row in (None, excluded):
            expected = loop_metrics(query @ database.T, query_labels, database_labels, row)
            result = evaluate_queries(
                query, database, query_labels, database_labels, excluded_row=row
            )
            np.testing.assert_allclose(table(result), expected, rtol=0, atol=1e-12)
            included = expected[~np.isnan(expected[:, 0])]
            means = [result.map, result.map_trapezoid, result.map_at_r]
            np.testing.assert_allclose(means, included[:, :3].mean(axis=0), rtol=0, atol=1e-12)
            recall = {k: (included[:, 3] <= k).mean() for k in (1, 2, 4, 8)}
            assert result.recall_at == pytest.approx(recall)
            assert result.excluded_queries == len(expected) - len(included)
            cases += 1
            with_excluded_queries += result.excluded_queries > 0
    assert cases == 120
    assert with_excluded_queries > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leave_one_out_equals_plain_loops(dtype: torch.dtype) -> None:
    query, database, labels = random_embeddings()
    query, database = query.to(dtype), database.to(dtype)
    result = evaluate_retrieval(query, database, labels)
    own = torch.arange(len(query))
    expected = loop_metrics(query @ database.T, labels, labels, own)
    np.testing.assert_allclose(table(result), expected, rtol=0, atol=1e-12)


def test_own_row_is_left_out_by_index_not_by_similarity() -> None:
    # Rows 0 and 1 are equal images of one class: the copy is a hit, the own row is not a result.
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    result = evaluate_retrieval(embeddings, embeddings, torch.tensor([0, 0, 1]))
    assert result.per_query.first_hit_rank[:2].tolist() == [1, 1]
    # A row that is least similar to itself still is left out: the other positive ranks second.
    database = torch.tensor([[-1.0, 0.0], [0.2, 0.0], [0.5, 0.0]])
    result = evaluate_retrieval(embeddings, database, torch.tensor([0, 0, 1]))
    assert result.per_query.first_hit_rank[0] == 2


@needs_reference
@pytest.mark.parametrize("role", ["asymmetric", "symmetric"])
def test_reference_of_the_peer_and_of_plain_loops(role: str) -> None:
    # Origin: the peer (pavelsuma/raml, commit ea0f00f) and a plain loop, run by others. The two
    # singleton classes are NaN there per query, and its means leave them out (148 of 150 queries).
    # "symmetric" there compares the database embeddings with themselves.
    with np.load(REFERENCE) as file:
        reference = dict(file)
    database = torch.from_numpy(reference["database"])
    query = torch.from_numpy(reference["query"]) if role == "asymmetric" else database
    result = evaluate_retrieval(query, database, torch.from_numpy(reference["labels"]))
    for column, name in {
        "average_precision": "average_precision",
        "average_precision_trapezoid": "raml_ap_trapezoid_per_query",
        "average_precision_at_r": "map_at_r",
    }.items():
        expected = reference[f"{role}_{name}"]
        np.testing.assert_allclose(result.per_query[column], expected, rtol=0, atol=1e-9)
    assert result.map_trapezoid == pytest.approx(reference[f"{role}_raml_map_trapezoid"], abs=1e-9)
    np.testing.assert_allclose(
        list(result.recall_at.values()), reference[f"{role}_raml_recall_at_1_2_4_8"], atol=1e-9
    )
    assert result.excluded_queries == 2


@needs_reference
def test_reference_of_pytorch_metric_learning() -> None:
    # Origin: pytorch-metric-learning 2.9.0, AccuracyCalculator, symmetric, singletons left out.
    with np.load(REFERENCE) as file:
        reference = dict(file)
    database = torch.from_numpy(reference["database"])
    result = evaluate_retrieval(database, database, torch.from_numpy(reference["labels"]))
    for value, name in (
        (result.map, "mean_average_precision"),
        (result.map_at_r, "mean_average_precision_at_r"),
        (result.recall_at[1], "precision_at_1"),
    ):
        assert value == pytest.approx(float(reference[f"symmetric_pml_{name}"]), abs=1e-9)


def test_order_of_images_and_names_of_classes_do_not_matter() -> None:
    query, database, labels = random_embeddings()
    expected = table(evaluate_retrieval(query, database, labels))
    order = torch.randperm(len(query), generator=torch.Generator().manual_seed(1))
    permuted = evaluate_retrieval(query[order], database[order], labels[order])
    np.testing.assert_allclose(table(permuted), expected[order], rtol=0, atol=1e-12)
    renamed = evaluate_retrieval(query, database, 1000 - 7 * labels)
    np.testing.assert_array_equal(table(renamed), expected)


def test_rotation_and_scale_do_not_matter() -> None:
    query, database, labels = random_embeddings()
    expected = table(evaluate_retrieval(query, database, labels))
    noise = torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotation = torch.linalg.qr(noise).Q
    rotated = evaluate_retrieval(query @ rotation, database @ rotation, labels)
    np.testing.assert_allclose(table(rotated), expected, rtol=0, atol=1e-12)
    scaled = evaluate_retrieval(query * 0.25, database * 8, labels)
    np.testing.assert_array_equal(table(scaled), expected)


@pytest.mark.parametrize("block_bytes", [1, 5_000, 20_000, 2**20])
def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    query, database, labels = random_embeddings(rows=90)
    query, database = (3 * query).round().float(), (3 * database).round().float()
    expected = evaluate_retrieval(query, database, labels)
    monkeypatch.setattr(ranks, "BLOCK_BYTES", block_bytes)
    result = evaluate_retrieval(query, database, labels)
    np.testing.assert_array_equal(table(result), table(expected))
    assert result.map == expected.map


def test_inputs_are_left_alone_and_need_no_gradient() -> None:
    query, database, labels = random_embeddings()
    before = query.clone(), database.clone(), labels.clone()
    evaluate_retrieval(query.requires_grad_(), database, labels)
    after = (query.detach(), database, labels)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_training_precision_does_not_reach_the_ranks_and_is_given_back() -> None:
    query, database, labels = (t[:40] for t in random_embeddings(dim=64))
    query, database = query.float(), database.float()
    expected = table(evaluate_retrieval(query, database, labels))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = evaluate_retrieval(query, database, labels)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(table(result), expected)


def test_recall_beyond_the_database_is_one() -> None:
    query, database, labels = random_embeddings()
    result = evaluate_retrieval(query, database, labels, recall_at=(1000,))
    assert result.recall_at == {1000: 1}


def test_no_positive_at_all_is_undefined() -> None:
    with pytest.raises(ValueError, match="none of the 3 queries has a positive"):
        evaluate_retrieval(AXIS, AXIS, torch.arange(3))


def test_no_excluded_row_keeps_every_positive() -> None:
    result = evaluate_queries(AXIS, AXIS, torch.arange(3), torch.arange(3))
    assert result.map == 1
    assert result.excluded_queries == 0


FAULTS = {
    "row counts": ((AXIS[:2], AXIS, torch.arange(2)), {}, "2 rows and database 3"),
    "labels": ((AXIS, AXIS, torch.arange(2)), {}, r"query_labels has shape \(2,\)"),
    "float labels": ((AXIS, AXIS, torch.rand(3)), {}, "query_labels is torch.float32"),
    "dim": ((AXIS[:, :2], AXIS, torch.zeros(3).long()), {}, "of one dim"),
    "axes": ((AXIS[0], AXIS[0], torch.zeros(3).long()), {}, "must be .query, dim."),
    "empty": ((AXIS[:0], AXIS[:0], torch.arange(0)), {}, "must not be empty"),
    "dtypes": ((AXIS.float(), AXIS, torch.arange(3)), {}, "database is torch.float64"),
    "half": ((AXIS.half(), AXIS.half(), torch.arange(3)), {}, "both float32 or both float64"),
    "nan": ((AXIS * math.nan, AXIS, torch.arange(3)), {}, "query holds NaN or infinite"),
    "infinite": ((AXIS, AXIS - math.inf, torch.arange(3)), {}, "database holds NaN or infinite"),
    "recall": ((AXIS, AXIS, torch.arange(3)), {"recall_at": (0, 1)}, r"recall_at = \(0, 1\)"),
}


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(fault: str) -> None:
    arguments, options, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(*arguments, **options)


@pytest.mark.parametrize("row", [-1, 3])
def test_refuses_an_excluded_row_outside_the_database(row: int) -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"excluded_row: must lie in 0\.\.2"):
        evaluate_queries(AXIS, AXIS, labels, labels, excluded_row=torch.tensor([0, 1, row]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_does_not_matter() -> None:
    for query, database, query_labels, database_labels, excluded in random_cases():
        arguments = (query_labels, database_labels)
        expected = evaluate_queries(query, database, *arguments, excluded_row=excluded)
        result = evaluate_queries(query.cuda(), database.cuda(), *arguments, excluded_row=excluded)
        np.testing.assert_array_equal(table(result), table(expected))
