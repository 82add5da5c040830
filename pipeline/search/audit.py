"""What a search in an index loses of the teacher's own, exact one, split into its parts.

For each sampled query, an image of which both have a vector, four searches find the k nearest of
the other images: the teacher's vector among all of the teacher's, exactly; the student's among the
same, exactly; the student's in the index, which compares with all that it holds, in the form in
which it holds it; the student's in the index as users search it. With o the share of the first
list that a search finds, where of images that the teacher finds as similar as the k-th any counts,
the loss is 1 - o(index), and its parts add up to it, query by query:

    student         1 - o(student, exact)
    quantisation    o(student, exact) - o(index, all of it)
    approximation   o(index, all of it) - o(index)

A part may be negative: what is found by a worse search may by chance be what the teacher finds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.datasets.vector_batches import are_in, hashes, id_key, vectors_of
from pipeline.datasets.vectors import Vectors
from pipeline.evaluation.confidence import Interval, bootstrap_interval
from pipeline.search.vector_index import (
    VectorIndex,
    exact_neighbours,
    sample_rows,
    share_found,
    similarities_of_others,
)

PARTS = ("student", "quantisation", "approximation")
FEW = 10  # queries


@dataclass(frozen=True)
class Audit:
    """The loss of overlap at k and its parts, as fractions of 1, with intervals over the queries.

    found: the share of the exact neighbours of the student's queries that the index finds: its
    recall at k. missing: how many of the teacher's vectors the index lacks. surplus: how many
    others it holds.
    """

    queries: int
    k: int
    vectors: int
    missing: int
    surplus: int
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

    Memory goes by the sample and k, and by the ids: vectors are read block by block, three times.
    teacher: vectors of the images that the index holds. student: of the queries; without it the
    teacher's own are searched for, and the student's part is 0. sample: queries, at most.
    seed: of the sample and of the intervals.

    Raises ValueError for vectors that do not fit together, and under k + 1 of them.
    """
    _require_fit(index, teacher, student)
    rows, drawn = sample_rows((student or teacher).batches(), sample, seed)
    own = drawn.vectors
    if student is not None:
        own = vectors_of(drawn.ids, teacher.batches(), str(teacher.folder))
    if student is None and rows <= k:
        raise _too_few(teacher, rows, k)
    ids: list[Int[np.ndarray, " row"]] = []
    both = np.concatenate([own, drawn.vectors])
    similarities, places = exact_neighbours(both, _blocks(teacher, ids), k + 1)
    if (rows := sum(map(len, ids))) <= k:
        raise _too_few(teacher, rows, k)
    queries = _numbers(drawn.ids)
    nearest = similarities_of_others(similarities, places, np.tile(queries, 2), k)
    by_teacher, by_student = zip(np.split(both, 2), np.split(nearest, 2), strict=True)
    exact = _others(places[len(own) :], queries, k)
    searches = (index.search(drawn.vectors, k + 1, exhaustive=every) for every in (True, False))
    of_index = [_others(map(_numbers, found.ids), queries, k) for found in searches]
    wanted, vectors = _vectors_in(teacher, [exact, *of_index])

    def share(
        rows: Int[np.ndarray, "query k"], side: tuple[np.ndarray, np.ndarray]
    ) -> Float[np.ndarray, " query"]:
        found = zip(np.searchsorted(wanted, rows), side[0], strict=True)
        return share_found(np.stack([vectors[one] @ query for one, query in found]), side[1])

    overlaps = [np.ones(len(queries)), *(share(rows, by_teacher) for rows in (exact, *of_index))]
    lost = dict(zip(PARTS, -np.diff(overlaps, axis=0), strict=True))
    known = np.concatenate(ids)
    ids.clear()
    known.sort()
    kept = sum(int(are_in(_numbers(one.ids), known).sum()) for one in index.rows())
    sure = {"student": student is None, "approximation": index.card.kind == "exact"}
    return Audit(
        queries=len(queries),
        k=k,
        vectors=rows,
        missing=rows - kept,
        surplus=len(index) - kept,
        loss=_interval(1 - overlaps[-1], seed, 0),
        parts={
            name: Interval(0, 0, 0) if sure.get(name) else _interval(values, seed, least)
            for (name, values), least in zip(lost.items(), (0, -1, -1), strict=True)
        },
        found=_interval(share(of_index[-1], by_student), seed, 0),
    )


def _require_fit(index: VectorIndex, teacher: Vectors, student: Vectors | None) -> None:
    if student is not None and student.card.dim != teacher.card.dim:
        raise ValueError(
            f"{student.folder} has vectors of {student.card.dim} numbers and {teacher.folder} "
            f"of {teacher.card.dim}: a student's are of the teacher's length"
        )
    fault = ""
    if len({index.card.network, teacher.card.network} - {""}) > 1:
        fault = f"{teacher.folder} and the index are of different networks"
    elif index.card.dim != teacher.card.dim:
        fault = (
            f"the index has vectors of {index.card.dim} numbers and {teacher.folder} of "
            f"{teacher.card.dim}"
        )
    if fault:
        raise ValueError(f"{fault}: audit it with the vectors that it was built from")


def _too_few(teacher: Vectors, rows: int, k: int) -> ValueError:
    return ValueError(f"{teacher.folder}: {rows} vectors have no {k} nearest others")


def _blocks(
    vectors: Vectors, ids: list[Int[np.ndarray, " row"]] | None = None
) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]]:
    """Vectors in blocks, numbered by their ids, which are put into `ids`."""
    for batch in vectors.batches():
        numbers = _numbers(batch.ids)
        if ids is not None:
            ids.append(numbers)
        yield numbers, batch.vectors


def _others(
    found: Iterable[Int[np.ndarray, " row"]], queries: Int[np.ndarray, " query"], k: int
) -> Int[np.ndarray, "query k"]:
    """The first k of each list without the query itself; -1 where it has fewer."""
    lists = np.full((len(queries), k), -1)
    for kept, rows, own in zip(lists, found, queries, strict=True):
        some = rows[rows != own][:k]
        kept[: len(some)] = some
    return lists


def _vectors_in(
    vectors: Vectors, lists: Sequence[Int[np.ndarray, "query k"]]
) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]:
    """What stands in the lists, ascending, and its vectors; NaN where there is none."""
    wanted = np.unique(np.stack(lists))
    kept = np.full((len(wanted), vectors.card.dim), np.nan, np.float32)
    for numbers, block in _blocks(vectors):
        is_wanted = are_in(numbers, wanted)
        kept[np.searchsorted(wanted, numbers[is_wanted])] = block[is_wanted]
    return wanted, kept


def _interval(values: Float[np.ndarray, " query"], seed: int, least: float) -> Interval:
    """The bootstrap's, over the queries, of values from `least` to 1. Where under `FEW` queries
    differ from all others, which says little of how often that happens, it reaches at least as far
    as where none does: the share of 1 - 0.025^(1 / queries) of all may be as no query is.
    Source: the rule of three, Hanley and Lippman-Hand, JAMA 1983, for both sides.
    """
    found = bootstrap_interval(values, np.arange(len(values)), seed=seed)
    _, counts = np.unique(values.round(9), return_counts=True)
    if found.low is None or found.high is None or len(values) - counts.max() >= FEW:
        return found
    unseen, mean = 1 - 0.025 ** (1 / len(values)), found.mean
    low, high = max(least, mean - unseen), min(1.0, mean + unseen)
    return Interval(min(found.low, low), mean, max(found.high, high))


def _numbers(ids: Iterable[str]) -> Int[np.ndarray, " row"]:
    """Hashes of what the ids are known by, as `vectors_of` knows them."""
    return hashes([id_key(one) for one in ids])
