"""The map from a student's scores to its teacher's: quantile to quantile, and its use."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.evaluation import calibration
from pipeline.evaluation.calibration import Calibration, false_matches_passed, fit_calibration


def unit_rows(count: int, dim: int, seed: int) -> Tensor:
    """Random ones that lean the same way, as embeddings do: they are similar on average."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return normalize(random + 1.5 * torch.eye(dim)[0], dim=1)


def shrunk(teacher: Tensor, seed: int) -> Tensor:
    """A student whose similarities are lower than the teacher's, and noisy."""
    noise = unit_rows(*teacher.shape, seed)
    return normalize(teacher + 1.5 * (noise - noise.mean(dim=0)), dim=1)


def scores(queries: Tensor, database: Tensor) -> np.ndarray:
    """Those of different images, in loops."""
    found = [
        float(query @ row)
        for i, query in enumerate(queries)
        for j, row in enumerate(database)
        if i != j
    ]
    return np.array(found)


def test_quantiles_become_the_teachers_quantiles() -> None:
    teacher = unit_rows(60, 16, 0)
    student = shrunk(teacher, 1)
    fitted = fit_calibration(student, teacher)
    ours, theirs = scores(student, teacher), scores(teacher, teacher)
    assert (fitted.images, fitted.pairs) == (60, 60 * 59)
    for probability in (0, 0.01, 0.25, 0.5, 0.9, 0.99, 1):
        assert fitted(np.quantile(ours, probability)) == pytest.approx(
            np.quantile(theirs, probability), abs=1e-9
        )
    mapped = fitted(ours)
    assert mapped.mean() == pytest.approx(theirs.mean(), abs=2e-3)
    assert mapped.std() == pytest.approx(theirs.std(), rel=0.02)


def test_the_map_rises_and_has_the_ends_of_a_cosine() -> None:
    teacher = unit_rows(80, 8, 0)
    fitted = fit_calibration(shrunk(teacher, 1), teacher)
    assert fitted(np.array([-1.0, 1.0])).tolist() == [-1.0, 1.0]
    assert all(low < high for low, high in pairwise(fitted.student))
    assert all(low <= high for low, high in pairwise(fitted.teacher))
    grid = fitted(np.linspace(-1, 1, 1001))
    assert (np.diff(grid) >= 0).all()


def test_the_teachers_own_scores_stay_as_they_are() -> None:
    teacher = unit_rows(50, 8, 0)
    fitted = fit_calibration(teacher, teacher)
    own = scores(teacher, teacher)
    np.testing.assert_allclose(fitted(own), own, atol=1e-12)


def test_a_student_with_one_score_for_all_has_a_map() -> None:
    teacher = unit_rows(20, 8, 0)
    fitted = fit_calibration(torch.zeros(20, 8).double(), teacher)
    assert fitted.student == [-1.0, 0.0, 1.0]
    assert fitted(np.array([0.0]))[0] == pytest.approx(scores(teacher, teacher).max())


def test_a_threshold_keeps_its_meaning_on_other_images() -> None:
    every = unit_rows(600, 32, 0)
    student = shrunk(every, 1)
    fitted = fit_calibration(student[:300], every[:300])
    passed = false_matches_passed(student[300:], every[300:], None, fitted)
    assert passed is not None
    before, after = passed
    ours, theirs = scores(student[300:], every[300:]), scores(every[300:], every[300:])
    threshold = np.quantile(theirs, 0.99)
    assert before == pytest.approx((ours > threshold).mean())
    assert after == pytest.approx((fitted(ours) > threshold).mean())
    assert before < 0.008
    assert after == pytest.approx(0.01, abs=0.002)


def test_with_labels_false_matches_are_those_of_two_classes() -> None:
    teacher = unit_rows(40, 8, 0)
    student = shrunk(teacher, 1)
    labels = np.repeat(np.arange(10), 4)
    same = Calibration([-1.0, 1.0], [-1.0, 1.0], 40, 1)
    passed = false_matches_passed(student, teacher, labels, same, share=0.2)
    assert passed is not None
    before, after = passed
    pairs = [(i, j) for i in range(40) for j in range(40) if labels[i] != labels[j]]
    theirs = np.array([float(teacher[i] @ teacher[j]) for i, j in pairs])
    ours = np.array([float(student[i] @ teacher[j]) for i, j in pairs])
    assert before == after == pytest.approx((ours > np.quantile(theirs, 0.8)).mean())
    itself = false_matches_passed(teacher, teacher, labels, same, share=0.2)
    assert itself is not None
    assert itself[0] == pytest.approx(0.2, abs=1 / len(pairs))


def test_of_one_class_no_match_is_false() -> None:
    rows, same = unit_rows(9, 8, 0), Calibration([-1.0, 1.0], [-1.0, 1.0], 9, 1)
    assert false_matches_passed(rows, rows, np.zeros(9, int), same) is None


def test_memory_is_bounded_by_pairs_spread_over_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = unit_rows(100, 8, 0)
    whole = fit_calibration(shrunk(teacher, 1), teacher)
    monkeypatch.setattr(calibration, "MOST_PAIRS", 3000)
    fewer = fit_calibration(shrunk(teacher, 1), teacher)
    assert whole.pairs == 100 * 99
    assert 2900 < fewer.pairs <= 3000
    rows, columns = calibration._spread_pairs(1000, 50_000)
    assert (rows.shape, columns.shape) == ((54, 1), (1, 55))
    assert (rows[-1], columns[0, -1]) == (999, 49_999)
    grid = np.linspace(-0.5, 0.5, 50)
    np.testing.assert_allclose(fewer(grid), whole(grid), atol=0.1)


def test_it_is_kept_as_json_and_used_by_interpolation_alone() -> None:
    teacher = unit_rows(30, 8, 0)
    fitted = fit_calibration(shrunk(teacher, 1), teacher)
    points = json.loads(json.dumps(fitted.content(), allow_nan=False))
    grid = np.linspace(-1, 1, 101)
    np.testing.assert_array_equal(
        np.interp(grid, points["student"], points["teacher"]), fitted(grid)
    )


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 images: two are the least"):
        fit_calibration(torch.ones(1, 2), torch.ones(1, 2))
