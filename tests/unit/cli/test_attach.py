"""`l2s attach`: it compares, estimates, refuses in words, and leaves the study to be run."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.config.params import load_params
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.vectors import read_vectors
from pipeline.embedding.preprocessing import Preprocessing, network_input
from pipeline.models import requirements
from pipeline.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from pipeline.models.weights import build_embedder
from tests.integration.workspace import ROOT
from tests.made_onnx import averaging_model, write_model

NETWORK = "timm/test_resnet"
NONE, ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
RANDOM = ("-S", "datasets.images.network.weights=random")


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    options = {"families": 4, "members": 3, "images_per_class": 5, "image_px": 40}
    drawn = render_emblems(**options, jpeg_quality=92, seed=0)
    return {f"{number:02}.jpg": one.encoded for number, one in enumerate(drawn)}


@pytest.fixture
def folder(tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pictures").mkdir()
    for name, content in pictures.items():
        (tmp_path / "pictures" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    return tmp_path


def write_vectors_of(pictures: dict[str, bytes], file: Path) -> None:
    """What the network of the study gives, native pooling, at 32 px, twice as long as a unit."""
    network = build_embedder(NETWORK, None, weights="random", seed=0, pooling="native").eval()
    own = tuple(network.mean.flatten().tolist()), tuple(network.std.flatten().tolist())
    way = Preprocessing(32, *own)
    images = [network_input(content, name, way, own) for name, content in pictures.items()]
    with torch.inference_mode():
        vectors = 2 * network(torch.stack(images)).numpy()
    pq.write_table(pa.table({"id": list(pictures), "vector": vectors.tolist()}), file)


def attach(*options: str) -> Result:
    fixed = ("attach", "--images", "pictures", "--query-px", "16", "--teacher-px", "32")
    few = ("-S", "datasets.images.validation_share=0.5")
    return CliRunner().invoke(app, [*fixed, *few, *options])


def test_a_plan_compares_and_estimates_and_changes_nothing(
    folder: Path, pictures: dict[str, bytes]
) -> None:
    write_vectors_of(pictures, folder / "v.parquet")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = ("--teacher", NETWORK, *RANDOM, "--vectors", "v.parquet", "--plan")
    done = attach(*options)
    assert done.exit_code == 0, done.output
    assert f"{len(pictures)} images in " in done.output
    assert "not of unit length" in done.output
    assert "mean cosine to their stored vectors 1.0000" in done.output
    assert "the teacher is the one that made the vectors" in done.output
    assert "estimate: about " in done.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_table_of_images_brings_its_own_vectors(folder: Path, pictures: dict[str, bytes]) -> None:
    write_vectors_of(pictures, folder / "v.parquet")
    columns = {"id": list(pictures), "image": list(pictures.values())}
    vectors = pq.read_table(folder / "v.parquet")["vector"]
    pq.write_table(pa.table({**columns, "vector": vectors}), folder / "t.parquet")
    done = attach("--images", "t.parquet", "--teacher", NETWORK, *RANDOM, "--plan")
    assert done.exit_code == 0, done.output
    assert "mean cosine to their stored vectors 1.0000" in done.output
    own = ("network.backbone=timm/test_resnet", "distillation.loss.centroids=8")
    options = [word for value in own for word in ("-S", f"datasets.images.{value}")]
    done = attach("--images", "t.parquet", "--teacher", "none", *RANDOM, *options, "--plan")
    assert done.exit_code == 0, done.output
    assert f"{len(pictures)} vectors of " in done.output


def test_vectors_of_another_model_are_refused(folder: Path, pictures: dict[str, bytes]) -> None:
    dim = build_embedder(NETWORK, None, weights="random", seed=0, pooling="native").channels
    vectors = np.random.default_rng(0).normal(size=(len(pictures), dim)).tolist()
    pq.write_table(pa.table({"id": list(pictures), "vector": vectors}), folder / "v.parquet")
    before = (folder / "params.yaml").read_bytes()
    done = attach("--teacher", NETWORK, *RANDOM, "--vectors", "v.parquet")
    assert done.exit_code == 2
    assert "another model altogether" in done.output
    assert "--teacher none" in done.output
    assert (folder / "params.yaml").read_bytes() == before


def test_a_size_that_the_student_cannot_take_is_refused_before_anything_is_written(
    folder: Path,
) -> None:
    before = (folder / "params.yaml").read_bytes()
    done = attach("--teacher", "timm/test_vit", *RANDOM, "--query-px", "24")
    assert done.exit_code == 2
    assert "students.images-24.query_px = 24: must be a multiple of 16" in done.output
    assert (folder / "params.yaml").read_bytes() == before


def test_weights_that_cannot_be_had_are_told_with_their_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "params.yaml").read_bytes()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(requirements, "_download", lambda name, keys: f"{keys[0]}: not {name}")
    done = attach("--teacher", NETWORK)
    assert done.exit_code == 2, done.output
    assert f"datasets.images.network.weights: not {NETWORK}" in " ".join(done.output.split())
    assert (folder / "params.yaml").read_bytes() == before


def test_vectors_alone_become_a_study_that_is_run(
    folder: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vectors_of(pictures, folder / "v.parquet")
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: ran.append(command))
    own = "datasets.images"
    values = (
        f"network.backbone={NETWORK}",
        "teacher.view=squashed",
        "distillation.loss.centroids=8",
    )
    options = [word for value in values for word in ("-S", f"{own}.{value}")]
    done = attach("--teacher", "none", "--vectors", "v.parquet", *RANDOM, *options)
    assert done.exit_code == 0, done.output
    assert ran[0][1:] == ["-m", "pipeline.cli", "study"]
    params = load_params()
    dataset = params.datasets["images"]
    assert dataset.teacher.model_dump() == {"kind": "vectors", "view": "squashed"}
    assert dataset.distillation.loss.kind == "anchors"
    assert dataset.distillation.mixup_alpha == dataset.distillation.augmentation.hue == 0
    assert dataset.teacher_px == 32
    assert {key: one.query_px for key, one in params.students.items()} == {"images-16": 16}
    assert params.inputs == {"images": str(folder / "pictures")}
    assert (params.weights, params.vectors) == ({}, {"images": "vectors/images"})
    (found,) = read_vectors(folder / "vectors/images").batches()
    assert found.ids == list(pictures)


def test_a_network_becomes_a_frozen_teacher_whose_students_start_from_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: None)
    done = attach("--teacher", NETWORK, *RANDOM, "--query-px", "24")
    assert done.exit_code == 0, done.output
    params = load_params()
    dataset = params.datasets["images"]
    assert (dataset.teacher.kind, dataset.network.pooling) == ("frozen", "native")
    assert list(params.students) == ["images-16", "images-24"]
    assert params.student_network("images-24").weights == "teacher"


def test_an_onnx_file_is_compared_by_how_it_wants_its_images(
    folder: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vectors were made with the channels turned round; -S says so then."""
    file = write_model(folder / "theirs.onnx", averaging_model())
    session = onnxruntime.InferenceSession(str(file))
    own = IMAGENET_MEAN, IMAGENET_STD
    images = [
        network_input(content, name, Preprocessing(32, *own), (NONE, ONES))
        for name, content in pictures.items()
    ]
    (vectors,) = session.run(None, {"pixels": torch.stack(images).flip(1).numpy()})
    pq.write_table(
        pa.table({"id": list(pictures), "vector": vectors.tolist()}), folder / "v.parquet"
    )
    options = ("--teacher", str(file), "--vectors", "v.parquet")
    done = attach(*options, "--plan", "--force")
    assert done.exit_code == 0, done.output
    assert "what fits: " in done.output
    monkeypatch.setattr(os, "execv", lambda *_: None)
    done = attach(*options, "-S", "datasets.images.teacher.channels=bgr")
    assert "mean cosine to their stored vectors 1.0000" in done.output, done.output
    params = load_params()  # what is stored is the database that is searched
    assert (params.weights, params.vectors) == ({"images": str(file)}, {"images": "vectors/images"})
    (found,) = read_vectors(folder / "vectors/images").batches()
    np.testing.assert_allclose(
        found.vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-3
    )  # float16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--teacher", "none"), "the stored vectors must be named: --vectors"),
        (
            ("--teacher", "resnet50"),
            "must be timm/NAME, torchvision/NAME, FILE.onnx, its folder, or none",
        ),
        (("--teacher", "timm/no_such_net"), "no_such_net"),
        (("--teacher", NETWORK, "-S", "datasets.images.network.weights=mine"), "must be random, "),
        (("--teacher", NETWORK, "--images", "nowhere"), "must be a folder of images or of tar"),
        (("--teacher", "none", "--vectors", "v.parquet"), "v.parquet: there is no such file"),
        (("--teacher", "none", "--vectors", "milvus://db/x"), "or begin with lancedb:// or qdr"),
        (("--teacher", NETWORK, *RANDOM, "-S", "a"), "-S a: must be KEY=VALUE"),
        (("--teacher", "missing.onnx"), "missing.onnx: there is no such file"),
    ],
)
def test_faults_in_words(folder: Path, options: tuple[str, ...], words: str) -> None:
    done = attach(*options)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())


def test_whitened_vectors_are_not_the_stored_ones(folder: Path, pictures: dict[str, bytes]) -> None:
    write_vectors_of(pictures, folder / "v.parquet")
    whitened = ("-S", "datasets.images.teacher.whitening=16")
    done = attach("--teacher", NETWORK, *RANDOM, *whitened, "--vectors", "v.parquet")
    assert done.exit_code == 2, done.output
    assert "whitened vectors are not the stored ones" in " ".join(done.output.split())


def test_too_few_vectors_for_the_centroids_are_told_before_the_training(
    folder: Path, pictures: dict[str, bytes]
) -> None:
    write_vectors_of(pictures, folder / "v.parquet")
    done = attach("--teacher", "none", "--vectors", "v.parquet")
    assert done.exit_code == 2, done.output
    assert "fewer than the 256 centroids" in " ".join(done.output.split())
