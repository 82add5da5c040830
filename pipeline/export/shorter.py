"""What a database loses by shorter vectors, and by numbers of 8 bits: the ten nearest that stay."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

from pipeline.export.parity import similarities_to_others

DIVISORS = (1, 2, 4, 8)  # of the numbers of a vector
NEAREST = 10
LEAST_DIM = 4


def eight_bits(
    vectors: Float[np.ndarray, "database dim"],
) -> tuple[Int8[np.ndarray, "database dim"], Float[np.ndarray, " database"]]:
    """Vectors as whole numbers from -127 to 127, and what a step of each row stands for, float32.

    The largest number of a row becomes 127 or -127.
    """
    steps = np.abs(vectors).max(axis=1, initial=0).astype(np.float32) / np.float32(127)
    numbers = np.rint(vectors / np.where(steps > 0, steps, 1)[:, None]).astype(np.int8)
    return numbers, steps


def principal_axes(
    vectors: Float[np.ndarray, "database dim"], count: int
) -> Float[np.ndarray, "dim axis"]:
    """The `count` orthonormal axes along which vectors have the most of their squared length.

    They are the eigenvectors of X'X, without centring: of all projections on so many axes this one
    keeps X best (Eckart and Young 1936), and inner products, not distances to a mean, are searched.
    """
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(axes[:, ::-1][:, :count])


def shorter_vectors(
    queries: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> list[dict[str, Any]]:
    """How many of the ten nearest stay, by the numbers a vector has: all, a half, a quarter, ...

    Shorter ones are turned to the principal axes of the database, cut, and made of unit length
    again. own_row: the database row of each query's image, left out of its own result.

    A row has `dim`; `bytes` and `overlap` (the share of the ten nearest of whole float32 vectors)
    with float32, and `bytes_int8` and `overlap_int8` with `eight_bits`; and `overlap_first`, with
    the first numbers as they are, without turning.
    """
    whole = _nearest(queries, database, own_row)

    def overlap(asked: np.ndarray, searched: np.ndarray) -> float:
        found = _nearest(asked, searched, own_row)
        shared = (found[:, :, None] == whole[:, None, :]).any(2)
        return float(shared.mean())

    rows = []
    for dim in _dims(database.shape[1]):
        asked, searched = queries, database
        if dim < database.shape[1]:
            axes = principal_axes(database, dim)
            asked, searched = _unit(queries @ axes), _unit(database @ axes)
        numbers, steps = eight_bits(searched)
        rows.append(
            {
                "dim": dim,
                "bytes": 4 * dim,
                "overlap": overlap(asked, searched),
                "bytes_int8": dim + steps.itemsize,
                "overlap_int8": overlap(asked, numbers * steps[:, None]),
                "overlap_first": overlap(_unit(queries[:, :dim]), _unit(database[:, :dim])),
            }
        )
    return rows


def best_similarities(
    queries: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> Float[np.ndarray, " query"]:
    """The similarity of each query's best result, its own row left out."""
    return similarities_to_others(queries, database, own_row).max(axis=1)


def _dims(dim: int) -> Iterator[int]:
    return (dim // divisor for divisor in DIVISORS if divisor == 1 or dim // divisor >= LEAST_DIM)


def _unit(vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Of unit length; a vector of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _nearest(
    queries: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> Int[np.ndarray, "query rank"]:
    """The ten nearest rows of each query, or all others, in no order."""
    similarity = similarities_to_others(queries, database, own_row)
    count = min(NEAREST, len(database) - 1)
    return np.argpartition(-similarity, count - 1, axis=1)[:, :count]
