"""What a search in an index loses of the teacher's own, exact one, split into its parts.

For each sampled query, an image of which both have a vector, four searches find the k nearest of
the other images: the teacher's vector among all of the teacher's, exactly; the student's among the
same, exactly; the student's in the index, which compares with all that it holds, in the form in
which it holds it; the student's in the index as users search it. With o the share of the first
list that a search finds, the loss is 1 - o(index), and its parts add up to it, query by query:

    student         1 - o(student, exact)
    quantisation    o(student, exact) - o(index, all of it)
    approximation   o(index, all of it) - o(index)

A part may be negative: what is found by a worse search may by chance be what the teacher finds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.datasets.vector_batches import id_key, vectors_of
from pipeline.datasets.vectors import Vectors
from pipeline.evaluation.confidence import Interval, bootstrap_interval
from pipeline.search.step import hashes
from pipeline.search.vector_index import VectorIndex, exact_neighbours, others, sample_rows, shared

PARTS = ("student", "quantisation", "approximation")


@dataclass(frozen=True)
class Audit:
    """The loss of overlap at k and its parts, as fractions of 1, with intervals over the queries.

    found: the share of the exact neighbours of the student's queries that the index finds: its
    recall at k. missing: how many of the teacher's vectors the index lacks, less what it has more.
    """

    queries: int
    k: int
    vectors: int
    missing: int
    loss: Interval
    parts: dict[str, Interval]
    found: Interval


def audit_index(
    index: VectorIndex,
    teacher: Vectors,
    student: Vectors | None = None,
    *,
    sample: int = 1000,
    k: int = 10,
    seed: int = 0,
) -> Audit:
    """Search an index by sampled queries, and compare with the teacher's exact search.

    Memory goes by the sample and k, and by the ids: vectors are read block by block, twice.
    teacher: vectors of the images that the index holds. student: of the queries; without it the
    teacher's own are searched for, and the student's part is 0. sample: queries, at most.
    seed: of the sample and of the intervals.

    Raises ValueError for vectors that do not fit together, and under k + 1 of them.
    """
    of_queries = student or teacher
    _, drawn = sample_rows(of_queries.batches(), sample, seed)
    own = drawn.vectors
    if student is not None:
        if student.card.dim != teacher.card.dim:
            raise ValueError(
                f"{student.folder} has vectors of {student.card.dim} numbers and {teacher.folder} "
                f"of {teacher.card.dim}: a student's are of the teacher's length"
            )
        own = vectors_of(drawn.ids, teacher.batches(), str(teacher.folder))
    networks = {index.card.network, teacher.card.network} - {""}
    if len(networks) > 1:
        raise ValueError(
            f"{teacher.folder} and the index are of different networks: audit it with the vectors "
            "that it was built from"
        )
    if index.card.dim != teacher.card.dim:
        raise ValueError(
            f"the index has vectors of {index.card.dim} numbers and {teacher.folder} of "
            f"{teacher.card.dim}: audit it with the vectors that it was built from"
        )
    counted = Counted(teacher)
    _, nearest = exact_neighbours(np.concatenate([own, drawn.vectors]), counted.blocks(), k + 1)
    if counted.rows <= k:
        raise ValueError(f"{teacher.folder}: {counted.rows} vectors have no {k} nearest others")
    queries = _numbers(drawn.ids)
    true, exact = (others(rows, queries, k) for rows in np.split(nearest, 2))
    through_all, found = (
        others(map(_numbers, index.search(drawn.vectors, k + 1, exhaustive=every).ids), queries, k)
        for every in (True, False)
    )
    overlaps = [
        np.ones(len(queries)),
        *(shared(true, one, k) for one in (exact, through_all, found)),
    ]

    def interval(values: Float[np.ndarray, " query"]) -> Interval:
        return bootstrap_interval(values, np.arange(len(values)), seed=seed)

    lost = dict(zip(PARTS, map(interval, -np.diff(overlaps, axis=0)), strict=True))
    return Audit(
        queries=len(queries),
        k=k,
        vectors=counted.rows,
        missing=counted.rows - len(index),
        loss=interval(1 - overlaps[-1]),
        parts=lost,
        found=interval(shared(exact, found, k)),
    )


class Counted:
    """Vectors in blocks, numbered by their ids; `rows` counts them."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors, self.rows = vectors, 0

    def blocks(self) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]]:
        for batch in self.vectors.batches():
            self.rows += len(batch.ids)
            yield _numbers(batch.ids), batch.vectors


def _numbers(ids: Iterable[str]) -> Int[np.ndarray, " row"]:
    """Hashes of what the ids are known by, as `vectors_of` knows them."""
    return hashes([id_key(one) for one in ids])
