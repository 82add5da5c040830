"""Queries to look at: where the networks differ most, and some at random, with what each finds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Of each kind; a page shows fewer where it has no room.
QUERIES_EACH = 3
RESULTS_EACH = 5


def choose_queries(
    precision: Mapping[str, Float[np.ndarray, " query"]],
    labels: Int[np.ndarray, " query"],
    *,
    each: int,
    seed: int,
) -> dict[str, list[int]]:
    """Rows of queries by the reason for which they are chosen, the most telling first.

    above_naive: where the student's average precision exceeds that of the teacher fed the same
    small image by most; below_teacher: where it falls short of the teacher's at full size by most;
    at_random: drawn from the rest. No row stands twice, the first two hold no class twice, and
    only true gains and losses are in them.

    precision: average precision of each query by role: teacher, asymmetric and, unless the student
        sees the full size, naive; NaN marks a query that is never chosen.
    each: at most so many of each kind. seed: of those at random.
    """
    student = precision["asymmetric"]
    differences = {"below_teacher": precision["teacher"] - student}
    if "naive" in precision:
        differences = {"above_naive": student - precision["naive"]} | differences
    taken = set(np.flatnonzero(np.isnan(student)).tolist())
    chosen = {}
    for reason, difference in differences.items():
        chosen[reason] = _largest(difference, labels, taken, each)
        taken |= set(chosen[reason])
    # One order of all rows: the students of a data set then share most of these queries.
    order = np.random.default_rng(seed).permutation(len(student)).tolist()
    chosen["at_random"] = [row for row in order if row not in taken][:each]
    return chosen


def _largest(
    difference: Float[np.ndarray, " query"],
    labels: Int[np.ndarray, " query"],
    taken: set[int],
    each: int,
) -> list[int]:
    """Rows of the largest positive differences, one a class, the first row of equal ones."""
    found: list[int] = []
    classes: set[int] = set()
    for row in np.argsort(-difference, kind="stable").tolist():
        if len(found) == each or not difference[row] > 0:
            break
        if row not in taken and int(labels[row]) not in classes:
            found.append(row)
            classes.add(int(labels[row]))
    return found


def first_results(
    query: Float[Tensor, "query dim"],
    database: Float[Tensor, "query dim"],
    labels: Int[np.ndarray, " query"],
    rows: Sequence[int],
    count: int,
) -> Iterator[list[int]]:
    """The best `count` database rows for each of some queries, their own row left out.

    Ties as in the metrics: a negative stands before a positive that is as similar.
    """
    similarity = (query[list(rows)] @ database.T).cpu().numpy()
    for row, scores in zip(rows, similarity, strict=True):
        order = np.lexsort((labels == labels[row], -scores))
        yield order[order != row][:count].tolist()


def find_contrasts(
    queries: Mapping[str, Float[Tensor, "query dim"]],
    database: Float[Tensor, "query dim"],
    precision: Mapping[str, Float[np.ndarray, " query"]],
    labels: Int[np.ndarray, " query"],
    seed: int,
) -> list[dict[str, Any]]:
    """The chosen queries with, by role, their average precision and the rows of their results.

    queries: embeddings by role, of the roles of `precision`; all search in `database`, of which
        row i is the same image as query i.
    """
    chosen = choose_queries(precision, labels, each=QUERIES_EACH, seed=seed)
    listed = [(reason, row) for reason, rows in chosen.items() for row in rows]
    rows = [row for _, row in listed]
    with torch.no_grad():
        results = {
            role: list(first_results(embedded, database, labels, rows, RESULTS_EACH))
            for role, embedded in queries.items()
        }
    return [
        {
            "reason": reason,
            "query": row,
            "average_precision": {role: float(precision[role][row]) for role in queries},
            "results": {role: results[role][place] for role in queries},
        }
        for place, (reason, row) in enumerate(listed)
    ]
