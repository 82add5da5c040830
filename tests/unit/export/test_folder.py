"""The exported encoder: view, served code, parity, card, and vectors for other engines."""

import base64
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.params import load_params
from pipeline.export import folder
from pipeline.export.folder import default_target, export_network, write_database
from pipeline.export.parity import LARGEST_DIFFERENCE, embedding_parity
from pipeline.export.trained import open_for_export
from pipeline.files import write_json
from pipeline.models.query_encoder import DECODE_MARGIN, QueryEncoder, least_decoded_px, square_view
from pipeline.paths import DatasetPaths
from pipeline.search.databases import open_study_database
from pipeline.search.search import NamedNetwork
from pipeline.tracking.served_package import load_served_model
from pipeline.views.evaluation import evaluation_view
from tests.made_study import DIM, STUDENT, STUDENT_PX, make_finished_study

STUDENT_OF_EMBLEMS = NamedNetwork(STUDENT, "emblems")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export with its database and the encoder in 8 bits, which the tests only read."""
    target = tmp_path_factory.mktemp("exports") / "encoder"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        params = load_params()
        trained = open_for_export(lambda *_: params, STUDENT, None)
        export_network(trained, target, with_database=True, int8=True)
    return target


def test_the_served_view_is_the_evaluation_view() -> None:
    generator = np.random.default_rng(0)
    seen = 0
    for width, height in ((40, 40), (33, 57), (500, 61), (7, 9), (1, 3)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        for size_px in (1, 16, 56, 112):
            expected = evaluation_view(image, size_px).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(square_view(image, size_px), expected)
            seen += 1
    assert seen == 20


def test_a_reduced_decode_leaves_twice_what_the_view_needs() -> None:
    assert DECODE_MARGIN == 2
    assert least_decoded_px(112) == 256
    assert least_decoded_px(112, margin=1) == 128
    assert least_decoded_px(448) == 1024


def test_parity_by_hand() -> None:
    database = np.eye(3, dtype=np.float32)
    reference = np.array([[0.8, 0.6, 0.0], [0.6, 0.0, 0.8]], dtype=np.float32)
    own_row = np.array([0, 1])
    same = embedding_parity(reference, reference.copy(), database, own_row)
    assert same.pop("least_cosine") == pytest.approx(1)
    assert same == {"images": 2, "largest_difference": 0, "ties": 0, "other_first_hits": 0}
    other = reference.copy()
    other[1] = [0.8, 0.0, 0.6]  # finds row 0 first instead of row 2
    parity = embedding_parity(reference, other, database, own_row)
    assert parity["largest_difference"] == pytest.approx(0.2)
    assert parity["least_cosine"] == pytest.approx(0.96)
    assert (parity["ties"], parity["other_first_hits"]) == (0, 1)
    tied = np.array([[0.0, 0.6, 0.6 + 1e-6]], dtype=np.float32)
    swapped = tied[:, [0, 2, 1]].copy()
    parity = embedding_parity(tied, swapped, database, np.array([0]))
    assert (parity["ties"], parity["other_first_hits"]) == (1, 0)
    broken = np.full_like(reference, np.nan)
    assert embedding_parity(reference, broken, database, own_row)["largest_difference"] == np.inf


def test_a_student_that_no_image_validates_is_exported_without_calibration(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    shutil.copytree(made, study)
    monkeypatch.chdir(study)
    write_json(DatasetPaths("emblems").calibration(STUDENT), {})  # as the evaluation leaves it
    params = load_params()
    export_network(open_for_export(lambda *_: params, STUDENT, None), tmp_path / "x")
    assert (tmp_path / "x/encoder.onnx").exists()
    assert not (tmp_path / "x/calibration.json").exists()


@pytest.mark.parametrize("off_by", [2 * LARGEST_DIFFERENCE, np.nan])
def test_an_encoder_that_embeds_otherwise_is_not_exported(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_by: float
) -> None:
    monkeypatch.chdir(made)
    save = folder.save_served_model

    def save_another(model: Path, onnx: Path, dim: int) -> Callable[[Sequence[bytes]], np.ndarray]:
        embed = save(model, onnx, dim)
        return lambda pictures: embed(pictures) + off_by

    monkeypatch.setattr(folder, "save_served_model", save_another)
    params = load_params()
    with pytest.raises(ValueError, match="does not embed as PyTorch does"):
        export_network(open_for_export(lambda *_: params, STUDENT, None), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_export_holds_what_its_card_says(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "README.md",
        "database",
        "encoder.onnx",
        "encoder_int8.onnx",
        "licences.json",
        "mlflow_model",
        "parity.json",
    }
    parity = json.loads((exported / "parity.json").read_text())
    assert parity["images"] == 30
    assert parity["largest_difference"] < 1e-5
    assert parity["other_first_hits"] == 0
    licences = json.loads((exported / "licences.json").read_text())
    assert licences.keys() == {"data", "network", "teacher"}
    assert licences["data"] == "the user's own"
    card = (exported / "README.md").read_text()
    for told in (
        "# Query encoder `tiny-16` of `emblems`",
        "| asymmetric | 16 | 32 | 0.",
        "GMACs, 374,241 parameters, 768 bytes",
        "Licence of the images: the user's own\n",
        "Licence of the weights that this encoder began with: none: the training began with",
        "Licence of the teacher's weights, which made the vectors: none: the training began",
        "## Intended use",
        "## Limits",
        "30 test images from their encoded bytes",
    ):
        assert told in card
    assert list(exported.parent.iterdir()) == [exported]


def test_how_far_the_encoder_in_8_bits_is_off_is_told(exported: Path) -> None:
    told = json.loads((exported / "parity.json").read_text())["int8"]
    assert told["images"] == 30
    assert told["least_cosine"] > 0.95
    assert told["largest_difference"] > 1e-4  # more than the one in 32 bits may
    share = 1 - told["other_first_hits"] / 30
    assert told["same_first_share"] == share
    card = (exported / "README.md").read_text()
    assert "## In 8 bits" in card
    assert f"{share:.1%} find the same image first" in " ".join(card.split())


def test_serving_needs_neither_torch_nor_this_repository(exported: Path, tmp_path: Path) -> None:
    """The package alone, in a Python that does not find `pipeline`."""
    picture = tmp_path / "picture.png"
    Image.new("RGB", (30, 20), "teal").save(picture)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from l2s_query_encoder.query_encoder import QueryEncoder\n"
        "encoder = QueryEncoder(Path(sys.argv[2]), threads=1)\n"
        "print(encoder.encode([Path(sys.argv[3]).read_bytes()]).shape)\n"
        "print({'torch', 'pipeline', 'mlflow'} & set(sys.modules))\n"
    )
    arguments = [exported / "mlflow_model/code", exported / "encoder.onnx", picture]
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"(1, {DIM})\nset()\n", done.stderr


def test_the_mlflow_model_takes_bytes_and_refuses_what_is_no_picture(
    exported: Path, without_shape_checks: None
) -> None:
    embed = load_served_model(exported / "mlflow_model")
    from mlflow.exceptions import MlflowException

    buffer = BytesIO()
    Image.new("L", (50, 40), 90).save(buffer, format="PNG")
    pictures = [buffer.getvalue()] * 70  # more than one batch
    found = embed(pictures)
    assert found.shape == (70, DIM)
    np.testing.assert_allclose(found[0], found[69], atol=1e-6)
    direct = QueryEncoder(exported / "encoder.onnx", threads=1)
    assert (direct.size_px, direct.dim) == (STUDENT_PX, DIM)
    np.testing.assert_allclose(found[:1], direct.encode(pictures[:1]), atol=1e-6)
    assert direct.encode([]).shape == (0, DIM)
    with pytest.raises(
        MlflowException, match="image 1: is not an image of a known format"
    ) as caught:
        embed([pictures[0], b"text"])
    assert caught.value.get_http_status_code() == 400
    with pytest.raises(ValueError, match="must be the bytes of a picture, not str"):
        direct.encode(["text"])  # type: ignore[list-item]


def test_duckdb_finds_what_we_find(
    exported: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    database = open_study_database("emblems")
    vectors = np.load(exported / "database/database.npy")
    np.testing.assert_array_equal(vectors, database.vectors)
    table = str(exported / "database/database.parquet")
    assert DIM == 16
    with duckdb.connect() as engine:
        engine.execute("SET threads = 1")
        engine.execute(
            "CREATE TABLE pictures AS SELECT id, name, vector::FLOAT[16] AS vector "
            "FROM read_parquet(?)",
            [table],
        )
        assert engine.execute("SELECT count(DISTINCT id) FROM pictures").fetchall() == [(30,)]
        for row in range(len(database)):
            query = np.asarray(vectors[row])
            found = engine.execute(
                "SELECT name, array_cosine_similarity(vector, ?::FLOAT[16]) AS similarity "
                "FROM pictures ORDER BY similarity DESC LIMIT 10",
                [query.tolist()],
            ).fetchall()
            ours = database.search(query, 10)
            assert [name for name, _ in found] == [hit.name for hit in ours]
            similarities = [similarity for _, similarity in found]
            np.testing.assert_allclose(similarities, [hit.similarity for hit in ours], atol=1e-6)


def test_a_database_keeps_its_ids_in_any_order(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from pipeline.search.databases import image_id

    monkeypatch.chdir(made)
    write_database(tmp_path, open_study_database("emblems"))
    table = pd.read_parquet(tmp_path / "database.parquet")
    assert list(table.columns) == ["id", "name", "class_name", "vector"]
    assert table["id"].tolist() == [image_id(name) for name in table["name"]]


def test_the_teacher_has_a_place_of_its_own() -> None:
    assert default_target(NamedNetwork("teacher", "emblems")) == Path("exports/emblems-teacher")
    assert default_target(STUDENT_OF_EMBLEMS) == Path("exports/tiny-16")


def test_only_an_export_is_replaced(
    made: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    params = load_params()
    trained = open_for_export(lambda *_: params, STUDENT, None)

    def export(target: Path, *, force: bool) -> None:
        export_network(trained, target, force=force)

    target = tmp_path / "mine"
    shutil.copytree(exported, target)
    with pytest.raises(ValueError, match="--force replaces it"):
        export(target, force=False)
    (target / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(ValueError, match="is no export"):
            export(target, force=force)
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "encoder.onnx").exists()
    own = tmp_path / "own"  # names that an export has, too
    (own / "database").mkdir(parents=True)
    (own / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="is no export"):
        export(own, force=True)
    assert (own / "README.md").read_text() == "mine"


def test_an_export_that_fails_leaves_the_one_before(
    made: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "mine"
    shutil.copytree(exported, target)
    before = {file: file.stat().st_mtime_ns for file in target.rglob("*")}
    monkeypatch.chdir(made)

    def full_disk(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_text", full_disk)  # of the card, which comes last
    params = load_params()
    with pytest.raises(OSError, match="No space"):
        export_network(open_for_export(lambda *_: params, STUDENT, None), target, force=True)
    assert {file: file.stat().st_mtime_ns for file in target.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [target]


def test_the_mlflow_model_takes_a_picture_in_every_form_of_mlflow(
    exported: Path, without_shape_checks: None
) -> None:
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    buffer = BytesIO()
    Image.new("RGB", (50, 40), "orange").save(buffer, format="JPEG")
    picture = buffer.getvalue()
    text = base64.b64encode(picture).decode()
    wrapped = base64.encodebytes(picture).decode()  # in lines, as the command base64 writes it
    expected = QueryEncoder(exported / "encoder.onnx", threads=1).encode([picture] * 2)
    with warnings.catch_warnings(action="ignore"):  # MLflow's own
        model = mlflow.pyfunc.load_model(str(exported / "mlflow_model"))
        for given in (picture, bytearray(picture), memoryview(picture), text, text.encode()):
            found = model.predict(pd.DataFrame({"image": [given, picture]}))
            np.testing.assert_allclose(found, expected, atol=1e-6)
        found = model.predict({"image": [picture, picture]})
        np.testing.assert_allclose(found, expected, atol=1e-6)
        client = TestClient(init(model))
        for body in (
            {"dataframe_records": [{"image": text}, {"image": wrapped}]},
            {"dataframe_split": {"columns": ["image"], "data": [[text], [text]]}},
            {"inputs": [text, wrapped]},
            {"inputs": {"image": [text, text]}},
            {"instances": [{"image": text}, {"image": text}]},
        ):
            answer = client.post("/invocations", json=body)
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)
        for wrong, message in (
            ({"inputs": ["no picture"]}, "image 0: is not an image of a known format"),
            ({"inputs": [7]}, "image 0: "),
            ({"dataframe_records": [{"image": ""}]}, "image 0: is empty"),
        ):
            answer = client.post("/invocations", json=wrong)
            assert answer.status_code == 400, answer.text
            assert message in answer.text
