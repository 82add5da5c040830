"""What is told beside a result: a query's cost, and the score below which nothing is similar."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pipeline.evaluation import calibration
from pipeline.evaluation.calibration import Calibration
from pipeline.files import file_md5, read_json, write_json
from pipeline.paths import DatasetPaths
from pipeline.search.champions import Champion
from pipeline.search.databases import open_study_database
from pipeline.search.page import figures
from pipeline.search.page.figures import false_match_score, own_threshold, query_gmacs
from pipeline.search.search import NamedNetwork
from tests.made_study import STUDENT

NAMED = NamedNetwork(STUDENT, "emblems")
TEACHER = NamedNetwork("teacher", "emblems")
PATHS = DatasetPaths("emblems")


def test_the_share_is_that_of_the_calibration() -> None:
    assert figures.FALSE_SHARE == calibration.FALSE_SHARE


def test_one_in_a_hundred_false_matches_reaches_the_score(study: Path) -> None:
    """Pair by pair, in the order of the highest."""
    database = open_study_database("emblems")
    scores = sorted(
        float(database.vectors[i] @ database.vectors[j])
        for i, j in product(range(len(database)), repeat=2)
        if database.class_names[i] != database.class_names[j]
    )
    place = 0.99 * (len(scores) - 1)
    low, high = scores[int(place)], scores[int(place) + 1]
    expected = low + (place - int(place)) * (high - low)
    assert false_match_score(database) == pytest.approx(expected, abs=1e-6)


def test_without_classes_all_pairs_of_two_images_count(study: Path) -> None:
    database = open_study_database("emblems")
    one = type(database)(**{**vars(database), "class_names": [""] * len(database)})
    scores = np.asarray(database.vectors) @ np.asarray(database.vectors).T
    apart = scores[~np.eye(len(database), dtype=bool)]
    assert false_match_score(one) == pytest.approx(np.quantile(apart, 0.99), abs=1e-6)
    same = type(database)(**{**vars(database), "class_names": ["one"] * len(database)})
    assert false_match_score(same) is None


def test_a_student_s_threshold_is_what_its_calibration_maps_to_the_teachers(study: Path) -> None:
    assert own_threshold(TEACHER, 0.5) == 0.5
    assert own_threshold(NAMED, 0.5) is None  # nothing is known
    made = Calibration([-1.0, 0.2, 0.6, 1.0], [-1.0, 0.1, 0.7, 1.0], 9, 72)
    write_json(PATHS.calibration(STUDENT), made.content())
    for score in (-0.9, 0.1, 0.55, 0.99):
        found = own_threshold(NAMED, score)
        assert found is not None
        assert made(np.array([found]))[0] == pytest.approx(score)
    assert own_threshold(NAMED, None) is None
    for content in ("null", "{"):
        PATHS.calibration(STUDENT).write_text(content)
        assert own_threshold(NAMED, 0.5) is None


def test_a_champion_has_the_calibration_of_the_student_that_it_is(study: Path) -> None:
    write_json(PATHS.calibration(STUDENT), {"student": [-1.0, 1.0], "teacher": [-1.0, 1.0]})
    for md5, expected in ((file_md5(PATHS.student(STUDENT)), 0.5), ("another", None)):
        champion = Champion("emblems", 16, STUDENT, "1", md5, "")
        assert own_threshold(NamedNetwork(STUDENT, "emblems", champion), 0.5) == expected


def test_the_cost_is_that_of_the_evaluation(study: Path, client: TestClient) -> None:
    row = read_json(PATHS.cell(STUDENT))["asymmetric"]
    assert query_gmacs(NAMED) == row["gmacs"] > 0
    assert query_gmacs(TEACHER) == pytest.approx(4 * row["gmacs"], rel=0.2)
    write_json(PATHS.cell(STUDENT), {"asymmetric": row | {"backbone": "timm/other"}})
    assert query_gmacs(NAMED) is None
    PATHS.cell(STUDENT).unlink()
    got = client.post(f"/search?network={STUDENT}", content=PATHS.pack.read_bytes()[:0])
    assert got.status_code == 422  # and no 500
    assert query_gmacs(NAMED) is None
