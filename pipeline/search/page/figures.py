"""What is known of a network from the evaluation of its study, without PyTorch: cost, threshold."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import known_md5, read_json
from pipeline.paths import DatasetPaths
from pipeline.search.databases import Database
from pipeline.search.search import TEACHER, NamedNetwork
from pipeline.teachers import teacher_card

FALSE_SHARE = 0.01  # that of `pipeline.evaluation.calibration`, which needs PyTorch
MOST_IMAGES = 2048  # of a database, whose pairs are looked at


def query_gmacs(named: NamedNetwork) -> float | None:
    """10^9 multiply-accumulates of a query; None where the study has not evaluated such a network.

    What is evaluated is the student trained last: a champion costs as much where its backbone and
    size are the same.
    """
    if named.file:
        return None
    role = TEACHER if named.key == TEACHER else "asymmetric"
    row = (_read(DatasetPaths(named.dataset).cell(named.key)) or {}).get(role)
    card = teacher_card(named.path)
    size_px = card.get("size_px")
    if row is None or (row["backbone"], row["query_px"]) != (card.get("backbone"), size_px):
        return None
    return None if row["gmacs"] is None else float(row["gmacs"])


def false_match_score(database: Database) -> float | None:
    """The teacher's score that `FALSE_SHARE` of the false matches within a database reach.

    A false match is a pair of images of different classes, without classes of different images, as
    in `false_matches_passed`; of a large database among `MOST_IMAGES` that are evenly spread. None
    where there is no such pair.
    """
    rows = np.linspace(0, len(database) - 1, min(len(database), MOST_IMAGES)).round().astype(int)
    vectors = np.asarray(database.vectors[rows], dtype=np.float32)
    classes = np.array([database.class_names[row] for row in rows])
    is_false = classes[:, None] != classes[None]
    if not classes.astype(bool).any():
        is_false = ~np.eye(len(rows), dtype=bool)
    if not is_false.any():
        return None
    return float(np.quantile((vectors @ vectors.T)[is_false], 1 - FALSE_SHARE))


def own_threshold(named: NamedNetwork, score: float | None) -> float | None:
    """A score of the teacher as one of the network, by its calibration; None where it has none.

    The calibration is that of the student trained last, and of a champion only if it is the same.
    """
    if score is None or named.key == TEACHER:
        return score
    paths = DatasetPaths(named.dataset)
    trained, champion = paths.student(named.key), named.champion
    if champion and not (trained.exists() and known_md5(trained) == champion.md5):
        return None
    if not (found := _read(paths.calibration(named.key))):  # empty: no image validates
        return None
    return float(np.interp(score, found["teacher"], found["student"]))


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON of a file; None where there is none, as before an evaluation, or a damaged one: what
    is told beside a result must not disable it.
    """
    with suppress(OSError, ValueError):
        return read_json(path)
    return None
