"""A tiny study of images without classes from nothing to its table, its page and an export."""

import csv
import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.packs import open_pack
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.evaluation.calibration import Calibration
from tests.integration.workspace import changed_stages, dvc, run, set_params
from tests.own_images import NAME, STUDENT
from tests.unlabelled_study import make_unlabelled_study

L2S = (sys.executable, "-m", "pipeline.cli")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_unlabelled_study(tmp_path_factory.mktemp("unlabelled") / "workspace")
    dvc(folder, "repro")
    return folder


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / f"results/{NAME}/tradeoff.csv").open(encoding="utf-8") as file:
        return {row["role"]: row for row in csv.DictReader(file)}


def test_the_images_are_split_one_by_one_and_that_is_recorded(study: Path) -> None:
    pack = open_pack(study / f"data/{NAME}/pack.arrow")
    assert (pack.labelled, len(pack.rows("train")), len(pack.rows("test"))) == (False, 30, 30)
    recorded = json.loads((study / f"splits/{NAME}.json").read_text())["classes"]
    assert recorded.keys() == set(pack.names)
    assert sum(one["split"] == "train" for one in recorded.values()) == 30
    # Images of one emblem lie on both sides: the folders that they lie in are no classes.
    folders = [
        {pack.names[row].partition("/")[0] for row in pack.rows(s)} for s in ("train", "test")
    ]
    assert len(folders[0] & folders[1]) > 6


def test_the_table_has_every_role_but_the_baseline_with_agreement(study: Path) -> None:
    rows = rows_of(study)
    assert set(rows) == {"teacher", "asymmetric", "symmetric", "naive", "adapter"}
    assert (study / f"models/{NAME}/baselines/{STUDENT}.safetensors").stat().st_size == 0
    for role, row in rows.items():
        assert row["map"] == row["map_low"] == row["map_at_r"] == ""
        assert 0 < float(row["overlap_at_10"]) <= 1
        assert float(row["overlap_at_10_low"]) <= float(row["overlap_at_10_high"])
        assert row["overlap_at_100"] == ""  # 29 others
        assert (row["queries"], row["classes"]) == ("30", "0")
        assert (row["self_recall"] == "") == (role == "symmetric")
    teacher = rows["teacher"]
    assert {teacher[c] for c in ("overlap_at_1", "overlap_at_10", "self_recall")} == {"1.0"}
    student = rows["asymmetric"]
    told = float(student["overlap_at_10_over_naive"])
    gain = float(student["overlap_at_10"]) - float(rows["naive"]["overlap_at_10"])
    assert told == pytest.approx(gain, abs=1e-12)
    assert float(student["overlap_at_10_drop"]) == pytest.approx(
        1 - float(student["overlap_at_10"]), abs=1e-12
    )


def test_validation_is_the_overlap_of_held_out_images(study: Path) -> None:
    with (study / f"models/{NAME}/students/{STUDENT}.csv").open(encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 2
    assert all(0 < float(row["validation"]) <= 1 for row in epochs)


def test_table_figure_page_and_metrics_speak_of_the_overlap(study: Path) -> None:
    words = (study / f"results/{NAME}/tradeoff.md").read_text()
    assert "overlap@10 %" in words
    assert "mAP" not in words
    assert ">overlap@10 %</text>" in (study / f"results/{NAME}/tradeoff.svg").read_text()
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert page.count('<tr id="row-') == 5
    assert page.count('<article class="query"') >= 3
    shown = json.loads(dvc(study, "metrics", "show", "--json").stdout)
    figures = shown[""]["data"][f"report/{NAME}/metrics.json"]["data"][STUDENT]["asymmetric"]
    assert figures.keys() == {"overlap_at_10", "gmacs"}
    dvc(study, "plots", "show", "--out", "plots")
    page = (study / "plots/index.html").read_text(encoding="utf-8")
    with (study / f"models/{NAME}/students/{STUDENT}.csv").open(encoding="utf-8") as file:
        drawn = [row["validation"] for row in csv.DictReader(file)]
    assert drawn
    assert all(f'"validation": "{value}"' in page for value in drawn)
    told = " ".join(run(study, *L2S, "table").stdout.split())
    assert "overlap@10" in told
    verdict = words.strip().splitlines()[-1]
    assert f"verdict {verdict}" in told


def test_the_record_has_the_overlap_and_no_map(study: Path) -> None:
    with sqlite3.connect(study / "mlflow.db") as database:
        found = database.execute(
            "select tags.value, metrics.key from tags join metrics using (run_uuid) "
            "where tags.key = 'role'"
        ).fetchall()
    of_role = {role: {key for other, key in found if other == role} for role, _ in found}
    assert {"overlap_at_10", "overlap_at_10_low", "rbo", "cosine"} <= of_role["asymmetric"]
    assert {"false_matches_passed", "false_matches_passed_calibrated"} <= of_role["asymmetric"]
    assert "validation_overlap" in of_role["student"]
    assert not any(key.startswith("map") for keys in of_role.values() for key in keys)


def test_a_network_is_recommended_by_its_overlap(study: Path) -> None:
    answer = run(study, *L2S, "recommend", "--min-overlap", "0.01", "--json").stdout
    chosen = json.loads(answer)["datasets"][NAME]["chosen"]
    assert chosen["network"] == STUDENT
    assert chosen["overlap_at_10_low"] >= 0.01
    told = run(study, *L2S, "recommend", "--min-overlap", "0.999", check=False)
    assert told.returncode == 1
    assert "of the ten nearest" in told.stdout


def test_the_export_brings_the_calibration(study: Path) -> None:
    run(study, *L2S, "export", "--network", STUDENT, "--output", "out")
    points = json.loads((study / "out/calibration.json").read_text())
    assert points == json.loads((study / f"results/{NAME}/calibration/{STUDENT}.json").read_text())
    calibration = Calibration(**points)
    assert (calibration.images, calibration.pairs) == (12, 12 * 11)
    assert (np.diff(calibration.student) > 0).all()
    card = (study / "out/README.md").read_text()
    assert "numpy.interp(score" in card
    assert "overlap_at_10 (95%)" in card
    assert "of images that no training saw" in card


def test_nothing_is_left_to_do(study: Path) -> None:
    assert changed_stages(study) == set()


def test_all_seeds_of_students_share_a_teacher_that_nobody_trains(study: Path) -> None:
    teacher = (study / f"models/{NAME}/teacher.safetensors").read_bytes()
    set_params(study, {"seeds": [0, 1]})
    dvc(study, "repro")
    assert (study / f"models/{NAME}/teacher.safetensors").read_bytes() == teacher
    for folder in (f"models/{NAME}/teacher.seeds", f"embeddings/{NAME}/database.seeds"):
        assert list((study / folder).iterdir()) == []
    first, other = (
        (study / f"models/{NAME}/students/{STUDENT}{place}.safetensors").read_bytes()
        for place in ("", ".seeds/1")
    )
    assert first != other
    rows = rows_of(study)
    seeds = {role: row["seeds"] for role, row in rows.items()}
    assert seeds == {
        "teacher": "1",
        "naive": "1",
        "adapter": "1",
        "asymmetric": "2",
        "symmetric": "2",
    }
    student = rows["asymmetric"]
    low, high = (float(student[f"overlap_at_10_seed_{end}"]) for end in ("low", "high"))
    assert low <= float(student["overlap_at_10"]) <= high
    assert rows["naive"]["overlap_at_10_seed_low"] == ""
    assert "Figures are means of 2 seeds." in (study / "report/index.html").read_text()


def test_stored_vectors_beside_the_teacher_are_all_searched_and_nothing_is_trained(
    study: Path,
) -> None:
    pack, before = open_pack(study / f"data/{NAME}/pack.arrow"), rows_of(study)
    test = pack.rows("test")
    own = np.load(study / f"embeddings/{NAME}/database.npy")
    drawn = np.random.default_rng(0)  # near to images, so that they are found
    others = own[drawn.integers(len(own), size=70)] + 0.01 * drawn.normal(size=(70, own.shape[1]))
    others = others.astype(np.float32)
    train = [pack.names[row] for row in pack.rows("train")]
    ids = [f"elsewhere-{number}" for number in range(40)] + train + [pack.names[i] for i in test]
    rows = np.concatenate([others, own])
    write_vectors(study / "stored", [VectorBatch(ids, rows, [""] * len(ids))])
    networks = list((study / "models").rglob("*.safetensors"))
    trained = [file.stat().st_mtime_ns for file in networks]
    set_params(study, {f"vectors.{NAME}": "stored"})
    dvc(study, "repro")
    assert [file.stat().st_mtime_ns for file in networks] == trained
    database = np.load(study / f"embeddings/{NAME}/database.npy")
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    np.testing.assert_allclose(database, np.concatenate([own, others]), atol=1e-3)  # float16
    after = rows_of(study)
    assert set(after) == set(before) - {"symmetric"}  # some vectors have no image here
    assert float(after["teacher"]["overlap_at_10"]) == 1
    searched = [
        (of["asymmetric"]["overlap_at_10"], of["asymmetric"]["rbo"]) for of in (before, after)
    ]
    assert searched[0] != searched[1]
    set_params(study, {"vectors": {}})
    dvc(study, "repro")
    assert rows_of(study) == before
