"""A study of images without classes, whose teacher is nothing but stored vectors.

The stages run in this process, one after the other, on a study of seconds.
"""

import csv
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.search.databases import open_study_database
from tests.integration.workspace import ROOT, TINY, run_stages, set_params

STUDENT, DIM, FURTHER = "own-16", 24, 30
Row = dict[str, str]
TEACHER = {"kind": "vectors", "view": "cropped"}
COLOURS = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
SLIGHT = {"crop_scale": [0.9, 1.0], "flip_probability": 0.0, **COLOURS}
LOSS = {"kind": "anchors", "centroids": 8, "temperature": 0.1, "absolute_weight": 1.0}


def draw_images(folder: Path) -> list[str]:
    options = {"families": 8, "members": 3, "images_per_class": 5, "image_px": 40}
    names = []
    for number, record in enumerate(render_emblems(**options, jpeg_quality=92, seed=0)):
        names.append(f"{number:03}.jpg")
        (folder / names[-1]).write_bytes(record.encoded)
    return names


def stored_vectors(folder: Path, names: list[str]) -> np.ndarray:
    """Colours in sixteen places, turned at random; behind them some of images that are not here."""
    rng = np.random.default_rng(0)
    seen = [np.array(Image.open(folder / n).convert("RGB").resize((4, 4))).ravel() for n in names]
    colours = np.array(seen, np.float32) / 255 - 0.5
    further = rng.permutation(colours)[:FURTHER] + 0.1 * rng.normal(size=(FURTHER, 48))
    return np.concatenate([colours, further]) @ rng.normal(size=(48, DIM))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    set_params(folder, TINY)
    yaml = YAML()
    params = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    dataset = params["datasets"].pop("emblems")
    dataset |= {"source": {"kind": "images", "skip_unreadable": False}, "teacher": TEACHER}
    dataset["distillation"] |= {"loss": LOSS, "mixup_alpha": 0.0, "augmentation": SLIGHT}
    dataset["distillation"]["optimisation"]["epochs"] = 20
    params["datasets"]["own"] = dataset
    params["inputs"], params["vectors"] = {"own": "images"}, {"own": "vectors"}
    params["students"] = {STUDENT: {"dataset": "own", "query_px": 16}}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    (folder / "images").mkdir()
    names = draw_images(folder / "images")
    vectors = stored_vectors(folder / "images", names)
    ids = names + [f"elsewhere-{number}" for number in range(FURTHER)]
    order = np.random.default_rng(1).permutation(len(ids))  # no store has our order
    batch = VectorBatch([ids[row] for row in order], vectors[order], [""] * len(ids))
    write_vectors(folder / "vectors", [batch])
    order_of_stages = [("code", "study"), ("hash_vectors", "own"), ("inputs", "own")]
    order_of_stages += [("hash_inputs", "own"), ("prepare", "own"), ("train_teacher", "own")]
    order_of_stages += [("embed_database", "own"), ("tune", STUDENT), ("distill", STUDENT)]
    order_of_stages += [("train_baseline", STUDENT), ("evaluate", STUDENT)]
    order_of_stages += [("evaluate", "own"), ("report", "own")]
    with chdir(folder), pytest.MonkeyPatch.context() as settings:
        settings.setenv("L2S_DEVICE", "cpu")
        settings.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        run_stages(*order_of_stages)
    return folder


@pytest.fixture(scope="module")
def rows(study: Path) -> dict[tuple[str, str], Row]:
    with (study / "results/own/tradeoff.csv").open(encoding="utf-8") as file:
        return {(row["network"], row["role"]): row for row in csv.DictReader(file)}


def test_rows_that_need_the_teachers_network_or_all_images_or_labels_are_absent(
    rows: dict[tuple[str, str], Row],
) -> None:
    assert sorted(rows) == [(STUDENT, "asymmetric"), ("teacher", "teacher")]


def test_the_teachers_cost_is_unknown_and_the_students_known(
    rows: dict[tuple[str, str], Row],
) -> None:
    teacher, student = rows["teacher", "teacher"], rows[STUDENT, "asymmetric"]
    assert (teacher["gmacs"], teacher["parameters"], teacher["backbone"]) == (
        "",
        "",
        "stored vectors",
    )
    assert float(student["gmacs"]) > 0
    assert float(student["parameters"]) > 0


def test_the_student_finds_what_the_teacher_finds(rows: dict[tuple[str, str], Row]) -> None:
    teacher, student = rows["teacher", "teacher"], rows[STUDENT, "asymmetric"]
    assert float(teacher["overlap_at_10"]) == float(teacher["self_recall"]) == 1
    chance = 10 / 150
    assert float(student["overlap_at_10_low"]) > 2 * chance
    assert student["map"] == ""


def test_all_stored_vectors_are_searched_the_test_images_first(study: Path) -> None:
    pack = open_pack(study / "data/own/pack.arrow")
    database = np.load(study / "embeddings/own/database.npy")
    assert len(database) == 120 + FURTHER
    names = [pack.names[row] for row in pack.rows("test")]
    vectors = stored_vectors(study / "images", [f"{number:03}.jpg" for number in range(120)])
    expected = vectors[[int(name[:3]) for name in names]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(database[: len(names)], expected, atol=1e-5)
    with chdir(study):
        opened = open_study_database("own")
        assert len(opened) == len(names)
        assert opened.search(opened.vectors[3], 1)[0].name == names[3]


def test_the_report_says_that_the_cost_is_unknown(study: Path) -> None:
    page = (study / "report/own/index.html").read_text(encoding="utf-8")
    assert "unknown" in page
    assert "stored vectors" in page
