"""Scores of a student as scores of its teacher, so that a threshold in service keeps its meaning.

A student's similarities are shifted against its teacher's. The map that undoes it is the one that
gives both the same distribution over pairs of images: quantile to quantile.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.datasets.packs import Pack, validation_split
from pipeline.embedding.embeddings import Embed, EvaluationViews, embed_views
from pipeline.teachers.stored_vectors import StoredVectors
from pipeline.teachers.teacher import Teacher

MOST_IMAGES = 2000
MOST_PAIRS = 1 << 22  # whose scores are held at a time: more queries than give so many are left out
FALSE_SHARE = 0.01  # of the false matches that the teacher's threshold lets pass
# Thresholds lie among the highest scores: there the quantiles are close.
_PROBABILITIES = np.unique(
    np.concatenate([np.linspace(0, 1, 101), 1 - np.geomspace(1e-2, 1e-6, 41)])
)


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
    rows = _spread_rows(len(queries), len(teacher))
    apart = _apart(rows, len(teacher))
    at = _PROBABILITIES[1 - 1 / apart.sum() >= _PROBABILITIES]
    at = np.append(at, 1.0)
    ours, theirs = (
        np.quantile(_scores(asked, teacher, rows)[apart], at) for asked in (queries, teacher)
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
    rows = _spread_rows(len(queries), len(database))
    if labels is None:
        is_false = _apart(rows, len(database))
    else:
        database = database[: len(labels)]
        is_false = labels[rows][:, None] != labels[None]
    if not is_false.any():
        return None
    threshold = np.quantile(_scores(database, database, rows)[is_false], 1 - share)
    ours = _scores(queries, database, rows)[is_false]
    return float((ours > threshold).mean()), float((calibration(ours) > threshold).mean())


def _spread_rows(queries: int, database: int) -> Int[np.ndarray, " row"]:
    """Queries at equal distances, as many as `MOST_PAIRS` allows."""
    count = min(queries, max(1, MOST_PAIRS // database))
    return np.linspace(0, queries - 1, count).round().astype(np.int64)


def _scores(
    queries: Float[Tensor, "query dim"],
    database: Float[Tensor, "database dim"],
    rows: Int[np.ndarray, " row"],
) -> Float[np.ndarray, "row database"]:
    return (queries[rows] @ database.T).cpu().double().numpy()


def _apart(rows: Int[np.ndarray, " row"], database: int) -> Bool[np.ndarray, "row database"]:
    """All pairs but those of an image with itself."""
    return rows[:, None] != np.arange(database)[None]
