"""A toy tournament, with trials, two seeds and a pair of one cost, from nothing to its page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.params import load_params
from pipeline.files import read_json
from pipeline.paths import DatasetPaths
from pipeline.report.report import read_part
from pipeline.report.tournament import read_queries, read_trials
from pipeline.tracking.durations import with_training_seconds
from tests.integration.workspace import run_study

LIGHT = {"backbone": "timm/test_byobnet", "weights": "random", "batch_norm": "live", "dim": 16}
OF_16 = {"dataset": "emblems", "query_px": 16, "baseline": False}
RAML = {"kind": "raml", "lambda_ts": 0.7, "lambda_ss": 0.7}
STUDENTS: dict[str, dict[str, Any]] = {
    "raml": OF_16 | {"distillation": {"loss": RAML}},
    "absolute": OF_16 | {"distillation": {"loss": {"kind": "absolute"}}},
    "independent": OF_16 | {"distillation": {"view_pairs": "independent"}},
    "light": OF_16 | {"query_px": 32, "network": LIGHT},
}
SETTINGS = {
    "seeds": [0, 1],
    "students": STUDENTS,
    "datasets.emblems.source.families": 8,
    "tuning.trials": 2,
}
PATHS = DatasetPaths("emblems")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(tmp_path_factory.mktemp("tournament"), SETTINGS)


@pytest.fixture
def rows(study: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(study)
    return list(read_part(PATHS, load_params().cells_of("emblems"))["rows"])


def test_the_queries_of_a_page_are_those_of_the_evaluation(rows: list[dict[str, Any]]) -> None:
    queries = read_queries(PATHS, rows)
    assert queries.values.keys() == STUDENTS.keys()
    means = {row["network"]: row["map"] for row in rows if row["role"] == "asymmetric"}
    for name, values in queries.values.items():
        assert values.shape == (2, 60)
        assert np.nanmean(values, axis=1).mean() == pytest.approx(means[name])
    table = pd.read_parquet(PATHS.per_query("raml"))
    assert len(set(queries.units.tolist())) == table["unit"].nunique() == 12
    assert table["image"].str.startswith(tuple(table["unit"].unique())).all()


def test_the_best_values_of_the_trials_are_those_that_students_learned_with(
    rows: list[dict[str, Any]],
) -> None:
    trials = read_trials(PATHS, rows)
    assert trials.keys() == STUDENTS.keys()
    for name, best in trials.items():
        tuned = read_json(PATHS.tuning(name))["student"]
        scores = [trial["score"] for trial in tuned["trials"]]
        assert best == [scores[0], max(scores)]
        learned = pd.read_csv(PATHS.student(name).with_suffix(".csv"))["learning_rate"]
        assert 0 < learned.iloc[-1] < tuned["values"]["optimisation"]["learning_rate"]


def test_the_page_says_who_beats_whom_and_what_resolution_is_worth(study: Path) -> None:
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert page.count('<section id="tournament"') == 1
    assert page.count("16 px, timm/test_resnet") >= 1
    section = page.partition('<section id="tournament"')[2].partition("</section>")[0]
    assert section.count("<tr><th scope") == 4  # the head, and an entrant each
    assert section.count("<polyline") == 6  # each entrant's, in both sizes of the drawing
    assert "2 seeds" in section
    costs = page.partition('<section id="equal-costs"')[2].partition("</section>")[0]
    assert costs.count('<th scope="row">') == 3  # the lighter network meets each entrant
    assert "light" in costs
    assert any(word in costs for word in ("confirmed", "refuted", "undecided"))


def test_every_row_has_the_cost_of_its_training(
    rows: list[dict[str, Any]], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the 60 images that train, 20 validate; a student sees two views of the others."""
    costs = {(row["network"], row["role"]): row["train_gmacs"] for row in rows}
    gmacs = {(row["network"], row["role"]): row["gmacs"] for row in rows}
    for key in (("raml", "asymmetric"), ("light", "symmetric")):
        assert costs[key] == pytest.approx(3 * gmacs[key] * 2 * 40)
    table = pd.read_csv(PATHS.teacher.with_suffix(".csv"))
    teacher = ("teacher", "teacher")
    assert costs[teacher] == pytest.approx(3 * gmacs[teacher] * table["views"].sum())
    assert {costs[row["network"], row["role"]] for row in rows if row["role"] == "naive"} == {None}
    assert (PATHS.results / "tradeoff_train_gmacs.svg").read_text().count("MACs of the training")
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert page.count("MACs of the training, log scale") == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{study}/mlflow.db")
    timed = with_training_seconds(PATHS, rows)
    for row in timed:
        assert (row["training_s"] is None) == (row["role"] in ("naive", "adapter"))
    assert min(row["training_s"] for row in timed if row["training_s"] is not None) > 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/lost.db")
    assert with_training_seconds(PATHS, rows) == timed  # they were asked for before


def test_a_student_without_a_baseline_has_no_such_row(rows: list[dict[str, Any]]) -> None:
    assert {row["role"] for row in rows} == {
        *("teacher", "asymmetric", "symmetric", "naive", "adapter")
    }
