"""Scores of a student as scores of its teacher, so that a threshold in service keeps its meaning.

A student's similarities are shifted against its teacher's. The map that undoes it is the one that
gives both the same distribution over pairs of images: quantile to quantile.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.datasets.packs import Pack, validation_split
from pipeline.embedding.embeddings import Embed, EvaluationViews, embed_views
from pipeline.teachers.stored_vectors import StoredVectors
from pipeline.teachers.teacher import Teacher

MOST_IMAGES = 2000
MOST_PAIRS = 1 << 22  # whose scores are held: of more both sides are drawn at equal distances
FALSE_SHARE = 0.01  # of the false matches that the teacher's threshold lets pass
# Thresholds lie among the highest scores: there the quantiles are close.
_PROBABILITIES = np.unique(
    np.concatenate([np.linspace(0, 1, 101), 1 - np.geomspace(1e-2, 1e-6, 41)])
)


Pairs = tuple[Int[np.ndarray, "row 1"], Int[np.ndarray, "1 column"]]


@dataclass(frozen=True)
class Calibration:
    """A rising, piecewise linear map: `student[i]` becomes `teacher[i]`.

    It begins at (-1, -1) and ends at (1, 1), the ends of a cosine. pairs: how many it was fitted
    on, of so many `images`.
    """

    student: list[float]
    teacher: list[float]
    images: int
    pairs: int

    def __call__(self, scores: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
        """The teacher's scores that stand for a student's."""
        return np.interp(scores, self.student, self.teacher)

    def content(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def calibrate_network(
    pack: Pack,
    validation_share: float,
    student: tuple[Embed, int],
    teacher: Teacher | StoredVectors,
    device: torch.device,
) -> Calibration | None:
    """The calibration of a student on validation images, 2000 of them at most, evenly spread.

    None where fewer than two images validate. student: a network and the side of its views, in
    pixels.
    """
    _, rows = validation_split(pack, validation_share)
    if len(rows) < 2:
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(MOST_IMAGES, len(rows))).round().astype(int)]

    def embed(network: Embed, px: int) -> Tensor:
        views = EvaluationViews(pack, rows, px)
        return embed_views(network, views, device, name=f"calibration, {px} px")

    if isinstance(teacher, StoredVectors):
        return fit_calibration(embed(*student), torch.from_numpy(teacher.rows[rows]))
    return fit_calibration(embed(*student), embed(teacher, teacher.size_px))


def fit_calibration(
    queries: Float[Tensor, "image dim"], teacher: Float[Tensor, "image dim"]
) -> Calibration:
    """The map of the quantiles of the student's scores to those of the teacher's.

    The scores are those of each image against each other one, in the teacher's database: s_i . t_j
    and t_i . t_j, i and j differing. With F and G their distributions the map is G^-1(F(x)), exact
    at some 140 quantiles that are closer towards the highest, and linear between.

    queries: the student's embeddings of images; teacher: the teacher's of the same ones.

    Raises ValueError for under two images.
    Source: quantile mapping, as in Panofsky and Brier, Some Applications of Statistics to
    Meteorology (1968).
    """
    if len(teacher) < 2:
        raise ValueError(f"{len(teacher)} images: two are the least that scores can be fitted on")
    pairs = _spread_pairs(len(queries), len(teacher))
    apart = pairs[0] != pairs[1]
    at = _PROBABILITIES[1 - 1 / apart.sum() >= _PROBABILITIES]
    at = np.append(at, 1.0)
    ours, theirs = (
        np.quantile(_scores(asked, teacher, pairs)[apart], at) for asked in (queries, teacher)
    )
    # Of equal scores of the student the highest counts, so that the map is one.
    rising = np.append(ours[1:] > ours[:-1], True) & (ours > -1) & (ours < 1)
    return Calibration(
        [-1.0, *ours[rising].tolist(), 1.0],
        [-1.0, *theirs[rising].tolist(), 1.0],
        len(teacher),
        int(apart.sum()),
    )


def false_matches_passed(
    queries: Float[Tensor, "query dim"],
    database: Float[Tensor, "database dim"],
    labels: Int[np.ndarray, " query"] | None,
    calibration: Calibration,
    share: float = FALSE_SHARE,
) -> tuple[float, float] | None:
    """Which shares of the false matches a student lets pass, before and after calibration, at the
    threshold that lets the `share` pass for the teacher.

    A false match is a pair of a query and a database image of another class, without labels of any
    other image. The threshold is the quantile 1 - `share` of the teacher's scores of these.

    None where no match is false, as with one class. queries: the student's; row i of the teacher's
    `database` is the same image. labels: of the queries, and of as many first rows of the database,
    the only ones then used.
    """
    if labels is not None:
        database = database[: len(labels)]
    rows, columns = pairs = _spread_pairs(len(queries), len(database))
    is_false = rows != columns if labels is None else labels[rows] != labels[columns]
    if not is_false.any():
        return None
    threshold = np.quantile(_scores(database, database, pairs)[is_false], 1 - share)
    ours = _scores(queries, database, pairs)[is_false]
    return float((ours > threshold).mean()), float((calibration(ours) > threshold).mean())


def _spread_pairs(queries: int, database: int) -> Pairs:
    """Rows of both at equal distances, all of them if these are `MOST_PAIRS` at the most; else as
    many of the one as of the other, as far as there are.
    """
    count = min(queries, max(math.isqrt(MOST_PAIRS), MOST_PAIRS // database))
    rows, columns = (
        np.linspace(0, every - 1, some).round().astype(np.int64)
        for every, some in ((queries, count), (database, min(database, MOST_PAIRS // count)))
    )
    return rows[:, None], columns[None]


def _scores(
    queries: Float[Tensor, "query dim"], database: Float[Tensor, "database dim"], pairs: Pairs
) -> Float[np.ndarray, "row column"]:
    rows, columns = pairs
    return (queries[rows[:, 0]] @ database[columns[0]].T).cpu().double().numpy()
