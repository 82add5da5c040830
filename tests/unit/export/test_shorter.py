"""What shorter vectors, and numbers of 8 bits, lose: by hand, and restated in plain loops."""

import numpy as np
import pytest

from pipeline.export.shorter import (
    best_similarities,
    eight_bits,
    principal_axes,
    shorter_vectors,
)


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_eight_bits_by_hand() -> None:
    numbers, steps = eight_bits(np.array([[1.27, -0.634, 0.016], [0, 0, 0], [-2.54, 0.009, 2]]))
    np.testing.assert_array_equal(numbers, [[127, -63, 2], [0, 0, 0], [-127, 0, 100]])
    np.testing.assert_allclose(steps, [0.01, 0, 0.02], rtol=1e-6)
    assert (numbers.dtype, steps.dtype) == (np.int8, np.float32)


def test_a_number_of_8_bits_is_off_by_half_a_step_at_most() -> None:
    vectors = unit_rows(50, 33, seed=0)
    numbers, steps = eight_bits(vectors)
    off = np.abs(numbers * steps[:, None] - vectors)
    assert (off <= 0.5001 * steps[:, None]).all()
    assert (np.abs(numbers).max(axis=1) == 127).all()


def test_vectors_of_a_plane_need_two_axes() -> None:
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 2)))[0]
    vectors = unit_rows(20, 2, seed=1) @ plane.T
    axes = principal_axes(vectors, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(vectors @ axes @ axes.T, vectors, atol=1e-6)
    first = principal_axes(np.array([[0.0, 3.0], [0.0, 1.0], [0.5, 0.0]]), 1)
    np.testing.assert_allclose(np.abs(first), [[0], [1]], atol=1e-12)


def nearest_by_loops(query: np.ndarray, database: np.ndarray, own: int) -> list[int]:
    scored = [(-float(query @ row), i) for i, row in enumerate(database) if i != own]
    return [i for _, i in sorted(scored)[:10]]


def test_the_shares_restated_in_loops() -> None:
    database, own = unit_rows(60, 16, seed=2), np.arange(0, 60, 3)
    queries = database[own] + 0.2 * unit_rows(20, 16, seed=3)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    rows = shorter_vectors(queries, database, own)
    assert [row["dim"] for row in rows] == [16, 8, 4]  # 2 is under the least
    assert [(row["bytes"], row["bytes_int8"]) for row in rows] == [(64, 20), (32, 12), (16, 8)]
    assert (rows[0]["overlap"], rows[0]["overlap_first"]) == (1, 1)
    axes = np.linalg.svd(database.astype(np.float64))[2][:8].T
    for name, asked, searched in (
        ("overlap", queries @ axes, database @ axes),
        ("overlap_first", queries[:, :8], database[:, :8]),
    ):
        kept = 0
        for query, short, row in zip(queries, asked, own, strict=True):
            unit = searched / np.linalg.norm(searched, axis=1, keepdims=True)
            found = nearest_by_loops(short, unit, row)
            kept += len(set(found) & set(nearest_by_loops(query, database, row)))
        assert rows[1][name] == pytest.approx(kept / 200)
        assert 0.1 < rows[1][name] < 1


def test_the_best_similarity_is_not_that_of_the_image_itself() -> None:
    database = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    best = best_similarities(database[[0, 2]], database, np.array([0, 2]))
    np.testing.assert_allclose(best, [0.6, 0.8], atol=1e-7)


def test_a_database_of_few_images_has_fewer_to_find() -> None:
    database = unit_rows(3, 8, seed=4)
    assert [row["overlap"] for row in shorter_vectors(database, database, np.arange(3))] == [1, 1]
