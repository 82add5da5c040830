"""Teachers that nobody trains here, from a frozen transformer or an ONNX file to the results.

The stages run in this process, one after the other, on a study of seconds.
"""

import csv
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.params import load_params
from pipeline.datasets.packs import open_pack
from pipeline.embedding.embeddings import EvaluationViews
from pipeline.models.weights import build_embedder, load_network, read_card
from pipeline.paths import DatasetPaths
from pipeline.search.indexing import index_folder
from pipeline.search.search import choose_network, open_network, open_searcher, search_picture
from pipeline.teachers.teacher import Teacher
from pipeline.tracking.store import open_store
from tests.integration.workspace import ROOT, TINY, run_stages, set_params
from tests.made_onnx import DIM, averaging_model, write_model
from tests.made_training import CPU, equal_states

PATHS = DatasetPaths("emblems")
VIT = {
    "datasets.emblems.network.backbone": "timm/test_vit",
    "datasets.emblems.network.pooling": "native",
    "datasets.emblems.teacher": {"kind": "frozen"},
    "datasets.emblems.distillation.offset": "learned",
    "students": {
        "vit-16": {"dataset": "emblems", "query_px": 16, "network": {"weights": "teacher"}}
    },
}
ONNX = {
    "datasets.emblems.teacher": {
        "kind": "onnx",
        "layout": "channels_first",
        "channels": "rgb",
        "white": 1,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    "weights": {"emblems": "theirs.onnx"},
    "students": {"onnx-16": {"dataset": "emblems", "query_px": 16}},
}
OF_SMALL = ["adapter", "asymmetric", "naive", "symmetric"]


def stages_of(student: str) -> list[tuple[str, str]]:
    """From the teacher on."""
    return [
        ("train_teacher", "emblems"),
        ("embed_database", "emblems"),
        *((name, student) for name in ("tune", "distill", "train_baseline", "evaluate")),
        ("evaluate", "emblems"),
        ("report", "emblems"),
    ]


def roles_of(student: str) -> list[str]:
    with (PATHS.results / "tradeoff.csv").open(encoding="utf-8") as file:
        return sorted(row["role"] for row in csv.DictReader(file) if row["network"] == student)


def first_image(folder: Path) -> Path:
    """The first test image as a file."""
    pack = open_pack(PATHS.pack)
    file = folder / "first.jpg"
    file.write_bytes(pack.encoded(int(pack.rows("test")[0])))
    return file


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    set_params(folder, TINY | VIT)
    with chdir(folder), pytest.MonkeyPatch.context() as settings:
        settings.setenv("L2S_DEVICE", "cpu")
        settings.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        run_stages(
            ("code", "study"), ("inputs", "emblems"), ("prepare", "emblems"), *stages_of("vit-16")
        )
    return folder


@pytest.fixture(autouse=True)
def within(frozen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(frozen)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{frozen}/mlflow.db")


def test_a_frozen_transformer_is_the_librarys_own() -> None:
    network, card = load_network(PATHS.teacher, CPU)
    assert (card.backbone, card.pooling, card.dim) == ("timm/test_vit", "native", 64)
    drawn = build_embedder("timm/test_vit", None, weights="random", seed=0, pooling="native")
    assert equal_states(network, drawn)
    assert PATHS.teacher.with_suffix(".csv").read_text() == "epoch,validation\n"
    store = open_store()
    (run_of_it,) = store.client.search_runs(
        [store.experiment_id], "tags.dvc_stage = 'train_teacher@emblems'"
    )
    assert run_of_it.info.status == "FINISHED"
    assert run_of_it.data.params["kind"] == "frozen"
    assert run_of_it.data.tags["backbone"] == "timm/test_vit"


def test_its_student_learned_from_its_weights_and_has_no_baseline() -> None:
    student, card = load_network(PATHS.student("vit-16"), CPU)
    teacher, taught = load_network(PATHS.teacher, CPU)
    assert (card.dim, card.projection, card.size_px) == (taught.dim, False, 16)
    assert student.state_dict().keys() == teacher.state_dict().keys()
    assert not equal_states(student, teacher)
    assert PATHS.baseline("vit-16").read_bytes() == b""
    assert roles_of("vit-16") == OF_SMALL


def test_whitening_is_fitted_on_training_images(frozen: Path) -> None:
    set_params(frozen, {"datasets.emblems.teacher": {"kind": "frozen", "whitening": 12}})
    before = np.load(PATHS.database)
    run_stages(("train_teacher", "emblems"), ("embed_database", "emblems"))
    assert (read_card(PATHS.teacher).dim, read_card(PATHS.teacher).projection) == (12, True)
    network, _ = load_network(PATHS.teacher, CPU)
    pack = open_pack(PATHS.pack)
    views = EvaluationViews(pack, pack.rows("train"), 32)
    images = torch.stack([views[place] for place in range(len(views))]) / 255
    with torch.no_grad():
        whitened = network.projection(network.pooled(images))
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(12), atol=1e-2, rtol=0)
    after = np.load(PATHS.database)
    assert after.shape == (len(before), 12)
    set_params(frozen, {"datasets.emblems.teacher": {"kind": "frozen", "whitening": 65}})
    with pytest.raises(SystemExit):
        run_stages(("train_teacher", "emblems"))


def test_an_onnx_file_teaches_and_is_searched(
    frozen: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whole path; then with a file of one size, which the small images do not fit."""
    write_model(Path("theirs.onnx"), averaging_model())
    set_params(frozen, ONNX | {"datasets.emblems.network.backbone": "timm/test_resnet"})
    set_params(frozen, {"datasets.emblems.network.pooling": "gem"})
    run_stages(("hash_weights", "emblems"), ("inputs", "emblems"), *stages_of("onnx-16"))
    assert roles_of("onnx-16") == OF_SMALL
    assert read_card(PATHS.student("onnx-16")).dim == DIM
    with (PATHS.results / "tradeoff.csv").open(encoding="utf-8") as file:
        teacher = next(row for row in csv.DictReader(file) if row["role"] == "teacher")
    assert teacher["backbone"] == "onnx/theirs"
    assert float(teacher["gmacs"]) == 32 * 32 * DIM * 27 / 1e9
    params = load_params()
    first = Image.open(first_image(tmp_path)).convert("RGB")
    with open_searcher(lambda *_: params, "teacher", None, None) as searcher:
        answer = search_picture(first, searcher.encoder, searcher.database, 1)
    assert answer.hits[0].row == 0
    assert answer.hits[0].similarity == pytest.approx(1, abs=1e-5)
    named = choose_network(params, "teacher", None)
    opened = open_network(named, CPU)
    assert isinstance(opened, Teacher)
    assert index_folder(tmp_path, "own", named, opened).added == 1

    write_model(Path("theirs.onnx"), averaging_model((1, 3, 32, 32)))
    run_stages(
        *(one for one in stages_of("onnx-16") if one[0] not in ("distill", "train_baseline"))
    )
    assert roles_of("onnx-16") == ["asymmetric", "symmetric"]
    told = "onnx-16: no rows naive and adapter: onnx/theirs takes images of 32 px alone"
    assert told in capfd.readouterr().err


def test_a_file_that_does_not_fit_is_told_before_anything_runs(
    frozen: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_model(Path("theirs.onnx"), averaging_model(("batch", 3, 64, 64)))
    set_params(frozen, ONNX)
    with pytest.raises(SystemExit) as ended:
        run_stages(("inputs", "emblems"))
    assert ended.value.code == 2
    told = "weights.emblems: theirs.onnx: takes images of 64 x 64 pixels: teacher_px = 32 must be"
    assert told in capfd.readouterr().err
