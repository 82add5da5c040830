"""What programs open by `from pipeline import ...`: encoders, databases, and the package itself."""

import io
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, save
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)
from PIL import Image

import pipeline
from pipeline import open_database, open_encoder
from pipeline.datasets.packs import open_pack
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.models.query_encoder import square_view
from pipeline.models.torch_encoder import equal_onnx
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.search.search import NamedNetwork, open_network
from pipeline.search.upkeep import build_index
from pipeline.search.vector_index import Kind
from tests.made_study import CPU, STUDENT, STUDENT_PX, TEACHER_PX, make_finished_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture
def study(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def pictures(count: int = 3) -> list[bytes]:
    pack = open_pack(DatasetPaths("emblems").pack)
    return [pack.encoded(int(row)) for row in pack.rows("test")[:count]]


def test_five_lines_find_a_picture_in_the_database(study: Path) -> None:
    encoder, database = open_encoder("emblems"), open_database("emblems")
    vector = encoder.encode([pictures()[1]])[0]
    first, second = database.search(vector, 2)
    assert (first.row, first.rank, second.rank) == (1, 1, 2)
    assert first.similarity == pytest.approx(1, abs=1e-5)
    assert first.similarity >= second.similarity


@pytest.mark.parametrize("name", [STUDENT, "emblems"])
def test_a_name_and_its_file_give_the_vectors_of_the_network(study: Path, name: str) -> None:
    paths = DatasetPaths("emblems")
    file = paths.teacher if name == "emblems" else paths.student(name)
    key = "teacher" if name == "emblems" else name
    network = open_network(NamedNetwork(key, "emblems"), CPU)
    decoded = [Image.open(io.BytesIO(one)).convert("RGB") for one in pictures()]
    views = np.stack([square_view(one, network.size_px) for one in decoded])
    for encoder in (open_encoder(name), open_encoder(file), open_encoder(str(file))):
        assert encoder.size_px == network.size_px
        np.testing.assert_allclose(encoder.encode(pictures()), network.embed(views), atol=2e-5)


def test_files_bytes_and_pillow_pictures_are_the_same(study: Path, tmp_path: Path) -> None:
    encoded = pictures(1)[0]
    (tmp_path / "one.jpg").write_bytes(encoded)
    opened = Image.open(io.BytesIO(encoded))
    found = open_encoder(STUDENT).encode([encoded, tmp_path / "one.jpg", opened])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def unusual(kind: str) -> Image.Image:
    """A picture of noise that is not upright, opaque, or of 8 bits."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 4), np.uint8)
    match kind:
        case "16 bits":
            return Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
        case "palette":
            picture = Image.fromarray(noise[..., :3]).quantize(8)
            picture.info["transparency"] = 3
            return picture
        case "alpha":
            return Image.fromarray(noise)
    picture = Image.fromarray(noise[..., :3])
    picture.getexif()[0x0112] = 6  # to be turned by 90 degrees
    return picture


@pytest.mark.parametrize("kind", ["turned", "alpha", "palette", "16 bits"])
def test_a_pillow_picture_gives_the_vector_of_its_file(
    study: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "one.png"
    made = unusual(kind)
    made.save(file, exif=made.getexif())
    with Image.open(file) as opened:
        found = open_encoder(STUDENT).encode([file, opened, made])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.new("RGB", (0, 10)), "picture 1: is 0 x 10: has no pixels"),
        (Image.new("F", (4, 4)), "picture 1: has 32-bit samples"),
    ],
)
def test_a_pillow_picture_that_cannot_be_seen_is_refused(
    study: Path, picture: Image.Image, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        open_encoder(STUDENT).encode([*pictures(1), picture])


def test_a_pillow_picture_whose_file_is_cut_is_refused(study: Path) -> None:
    with (
        Image.open(io.BytesIO(pictures(1)[0][:-300])) as cut,
        pytest.raises(ValueError, match="picture 0: cannot be decoded: image file is truncated"),
    ):
        open_encoder(STUDENT).encode([cut])


def test_more_pictures_than_a_batch_keep_their_order(study: Path) -> None:
    encoder, one = open_encoder(STUDENT), pictures(2)
    found = encoder.encode([one[0]] * 64 + [one[1]])
    np.testing.assert_allclose(found[64], encoder.encode([one[1]])[0], atol=1e-5)
    assert len(found) == 65


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "no such network; known: .*emblems"),
        ("absent.onnx", "absent.onnx: is not there"),
        ("absent.safetensors", "absent.safetensors: is not there"),
        ("stages", "no such network; known: .*emblems, or a file, or a folder with encoder.onnx"),
    ],
)
def test_what_is_not_there_is_told(study: Path, name: str, words: str) -> None:
    (study / "stages").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=words):
        open_encoder(name)


def test_a_folder_of_the_same_name_hides_no_network(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(study, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Path(STUDENT).mkdir()
    assert open_encoder(STUDENT).size_px == STUDENT_PX
    teacher = equal_onnx(load_network(DatasetPaths("emblems").teacher, CPU)[0], TEACHER_PX)
    Path(STUDENT, "encoder.onnx").write_bytes(teacher)
    for export in (STUDENT, f"{STUDENT}/encoder.onnx"):
        assert open_encoder(export).size_px == TEACHER_PX


@pytest.mark.parametrize("name", [STUDENT, "emblems"])
def test_a_name_may_come_as_a_path(study: Path, name: str) -> None:
    assert open_encoder(Path(name)).size_px == open_encoder(name).size_px


@pytest.mark.parametrize("end", ["onnx", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07\x12\x02ab" * 50])
def test_a_file_that_holds_no_network_is_refused(
    study: Path, tmp_path: Path, end: str, content: bytes
) -> None:
    file = tmp_path / f"one.{end}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"one\.{end}: "):
        open_encoder(file)


def test_an_onnx_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """One that takes channels first, at any size, under other names."""
    file = tmp_path / "other.onnx"
    given = make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])
    gives = make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = make_graph([make_node("Relu", ["input"], ["output"])], "other", [given], [gives])
    save(make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8), file)
    with pytest.raises(ValueError, match=r"other\.onnx: is no exported encoder"):
        open_encoder(file)


@pytest.mark.parametrize(
    "given", [[], "one.jpg", b"bytes", Path("one.jpg"), Image.new("RGB", (4, 4))]
)
def test_what_is_no_list_of_pictures_is_refused(study: Path, given: Any) -> None:
    with pytest.raises(ValueError, match="must be a list of one or more"):
        open_encoder(STUDENT).encode(given)


def test_an_absent_database_is_told(study: Path) -> None:
    with pytest.raises(ValueError, match="has no database yet"):
        open_database("absent")


def test_names_are_listed_and_others_are_none() -> None:
    assert set(pipeline.__all__) <= set(dir(pipeline))
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = pipeline.absent


def test_the_package_alone_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import pipeline; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "pipeline" in loaded
    assert {one for one in loaded if one.startswith("pipeline.")} == set()
    assert len(loaded) < 30  # of Python itself: importlib, typing and what they need


def test_types_are_for_users_too() -> None:
    assert Path(pipeline.__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize(
    "kind", ["exact", "hnsw", *(["qdrant"] if find_spec("qdrant_client") else [])]
)
def test_an_index_of_vectors_is_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"birds/{row}.jpg" for row in range(300)]
    monkeypatch.chdir(tmp_path)
    write_vectors(Path("vectors"), [VectorBatch(ids, vectors, [""] * 300)])
    build_index(Path("indexes/all"), Path("vectors"), kind)
    for name in ("all", "indexes/all", Path("indexes/all").resolve()):
        database = open_database(name)
        assert len(database) == 300
        best, *_ = database.search(vectors[7], 3)
        assert (best.name, best.class_name, best.rank) == ("birds/7.jpg", "birds", 1)
        del database  # the folder of Qdrant's local mode is open once at a time


def test_what_is_no_index_is_told(study: Path) -> None:
    with pytest.raises(ValueError, match="must be letters, digits"):
        open_database(Path("absent/index"))
