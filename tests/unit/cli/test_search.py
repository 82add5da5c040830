"""`l2s search`, `index`, `export` and `recommend`: what they take, print and refuse."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.embedding.shards import vectors_digest
from pipeline.files import file_md5
from pipeline.flows.run_state import hold_workspace
from pipeline.models.weights import load_network, save_network
from pipeline.paths import DatasetPaths
from pipeline.search.champions import Champion, keep_champion
from pipeline.search.databases import open_study_database
from tests.made_site import made_runtime
from tests.made_study import STUDENT, make_finished_study, write_test_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_finished_study(tmp_path_factory.mktemp("made") / "study")
    write_test_images(folder, folder / "photos", rows=6)
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study of one's own with six photographs, and the current folder."""
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    return folder


@pytest.fixture
def photo(study: Path) -> Path:
    return sorted((study / "photos").rglob("*.jpg"))[0].relative_to(study)


def l2s(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=given)


def found(*arguments: object, given: str | None = None, code: int = 0) -> dict[str, Any]:
    result = l2s("search", *arguments, "--json", given=given)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_picture_of_the_database_finds_itself_by_the_teacher(photo: Path) -> None:
    answer = found(photo, "--network", "teacher", "-k", 3)
    (query,) = answer.pop("queries")
    assert answer == {
        "network": "teacher",
        "champion_version": None,
        "query_px": 32,
        "database": "emblems",
        "database_images": 30,
    }
    assert query["image"] == str(photo)
    assert [hit["rank"] for hit in query["results"]] == [1, 2, 3]
    assert query["results"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert query["results"][0]["class_name"].replace("/", "-") == photo.parent.name


def test_a_search_imports_only_what_it_needs(study: Path, photo: Path) -> None:
    """Each of these takes from 0.3 to 3 seconds of CPU time to import."""
    unused = {"torch._dynamo", "pandas", "mlflow", "prefect", "dvc", "fastapi", "matplotlib"}
    first, modules = _searched_alone(photo)
    assert {"torch", "faiss", "timm"} <= modules
    assert not unused & modules
    again, modules = _searched_alone(photo)
    assert {"onnxruntime", "faiss"} <= modules
    assert not (unused | {"torch", "timm", "torchvision", "onnx"}) & modules
    assert len(first) == len(again) == 10
    for one, other in zip(first, again, strict=True):
        assert one.pop("similarity") == pytest.approx(other.pop("similarity"), abs=1e-5)
        assert one == other


def _searched_alone(photo: Path) -> tuple[list[dict[str, Any]], set[str]]:
    """What a search finds in a process of its own, and the modules that it imports."""
    program = (
        "import json, sys\n"
        "from pipeline.cli.__main__ import app\n"
        f"try:\n    app(['search', {str(photo)!r}, '--json'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    (query,) = json.loads(done.stdout)["queries"]
    return query["results"], set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("kind", ["exact", "hnsw", "lancedb", "qdrant"])
def test_a_picture_is_found_in_an_index_of_vectors(study: Path, photo: Path, kind: str) -> None:
    if kind in ("lancedb", "qdrant"):
        pytest.importorskip({"lancedb": "lancedb", "qdrant": "qdrant_client"}[kind])
    studied = open_study_database("emblems")
    names = [f"{name}/{number}.jpg" for number, name in enumerate(studied.class_names)]
    batch = VectorBatch(names, np.array(studied.vectors), [""] * len(names))
    teacher = vectors_digest(DatasetPaths("emblems").teacher, "float16", is_reduced=False)
    write_vectors(study / "vectors", [batch], network=teacher)
    (study / "below").mkdir()
    assert l2s("index", "build", "vectors", "--to", "below/i", "--kind", kind).exit_code == 0
    answer = found(photo, "--network", "teacher", "-k", 3, "--index", "below/i")
    assert (answer["database"], answer["database_images"]) == ("i", 30)
    expected = found(photo, "--network", "teacher", "-k", 3)["queries"][0]["results"]
    for hit, other in zip(answer["queries"][0]["results"], expected, strict=True):
        assert hit["name"] == names[other["row"]]
        assert hit["class_name"] == names[other["row"]].partition("/")[0]
        assert hit["similarity"] == pytest.approx(other["similarity"], abs=1e-5)
    assert "i, 30 vectors" in l2s("search", photo, "--index", "below/i", "--html", "p.html").stdout
    write_vectors(study / "other", [batch], network="n")
    l2s("index", "build", "other", "--to", "other-index", "--kind", kind)
    refused = l2s("search", photo, "--index", "other-index")
    assert refused.exit_code == 2
    assert "are neither of models/emblems/teacher.safetensors as it is now nor" in refused.stderr
    short = VectorBatch(names, np.array(studied.vectors)[:, :3], [""] * len(names))
    write_vectors(study / "short", [short])
    l2s("index", "build", "short", "--to", "short-index", "--kind", kind)
    refused = l2s("search", photo, "--index", "short-index")
    assert refused.exit_code == 2
    assert "they come from different networks" in refused.stderr


def test_a_picture_may_be_decoded_to_a_fraction_of_its_size(study: Path, photo: Path) -> None:
    Image.open(study / photo).resize((1024, 1024)).save(study / "large.jpg", quality=95)
    full, reduced = (
        found("large.jpg", *option, "-k", 1)["queries"][0]["results"][0]
        for option in ((), ("--reduced-decode",))
    )
    assert full["id"] == reduced["id"]
    assert full["similarity"] != reduced["similarity"]
    assert full["similarity"] == pytest.approx(reduced["similarity"], abs=1e-3)


def test_the_table_shows_rank_similarity_class_and_path(photo: Path) -> None:
    result = l2s("search", photo, "-k", 2)
    assert result.exit_code == 0
    assert f"{STUDENT} (16 px) in emblems, 30 test images of 60; `l2s index" in result.stdout
    for word in ("rank", "similarity", "class", "image", str(photo)):
        assert word in result.stdout


def test_folders_globs_and_lists_name_the_same_pictures(study: Path) -> None:
    names = sorted(str(file.relative_to(study)) for file in (study / "photos").rglob("*.jpg"))
    assert len(names) == 6
    asked = {
        "folder": found("photos"),
        "glob": found("photos/**/*.jpg"),
        "list": found("-", given="\n".join(names) + "\n\n"),
    }
    for way, answer in asked.items():
        assert sorted(query["image"] for query in answer["queries"]) == names, way


def test_names_refer_to_the_folder_where_the_command_was_given(
    study: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argument in (photo.name, "*.jpg"):
        monkeypatch.chdir(study / photo.parent)  # the command goes to the workspace above
        names = [query["image"] for query in found(argument)["queries"]]
        assert photo.name in names
    monkeypatch.chdir(study / photo.parent)
    assert l2s("search", photo.name, "--html", "sheet.html").exit_code == 0
    assert (study / photo.parent / "sheet.html").is_file()


def test_a_broken_picture_is_reported_and_the_rest_goes_on(study: Path, photo: Path) -> None:
    (study / "broken.jpg").write_bytes((study / photo).read_bytes()[:200])
    given = f"{photo}\nbroken.jpg\nmissing.jpg\n"
    result = l2s("search", "-", "--json", given=given)
    assert result.exit_code == 1
    queries = json.loads(result.stdout)["queries"]
    assert [("results" in query) for query in queries] == [True, False, False]
    assert "error: broken.jpg: " in result.stderr
    assert "error: missing.jpg: there is no such file" in result.stderr
    assert "2 of 3 pictures could not be searched" in result.stderr


def test_a_name_that_would_steer_the_terminal_is_shown_harmless(study: Path, photo: Path) -> None:
    name = "evil\x1b]0;title\x07.jpg"
    (study / name).write_bytes((study / photo).read_bytes())
    (study / "bad\x1b[31m.jpg").write_bytes(b"")
    result = l2s("search", name, "bad\x1b[31m.jpg")
    assert result.exit_code == 1
    assert "\x1b]" not in result.output
    assert "\x1b[31m" not in result.output
    assert "evil\N{REPLACEMENT CHARACTER}]0;title" in result.stdout


def test_the_picture_sheet_is_one_file(study: Path) -> None:
    result = l2s("search", "photos", "--html", "sheet.html", "-k", 4)
    assert result.exit_code == 0
    page = (study / "sheet.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 6 * 5
    assert "http://" not in page


def test_an_index_of_new_images_is_made_extended_and_searched(study: Path) -> None:
    files = sorted((study / "photos").rglob("*.jpg"))
    moved = files[-1].rename(study / "later.jpg")
    assert "5 images (exact): 5 added" in l2s("index", "photos").stdout
    before = {hit["name"]: hit["id"] for hit in _hits(files[0])}
    moved.rename(files[-1])
    assert "6 images (exact): 1 added, 0 replaced, 5 unchanged" in l2s("index", "photos").stdout
    after = {hit["name"]: hit["id"] for hit in _hits(files[0])}
    assert before.items() < after.items()
    assert "6 images (exact): 6 added" in l2s("index", "photos", "--rebuild").stdout
    assert {hit["name"]: hit["id"] for hit in _hits(files[0])} == after


def _hits(file: Path) -> list[dict[str, Any]]:
    by_name, by_folder = (
        found(file, "--index", index, "-k", 10)["queries"][0]["results"]
        for index in ("photos", "indexes/photos")
    )
    assert [hit["id"] for hit in by_name] == [hit["id"] for hit in by_folder]
    return by_name


def test_an_export_has_an_encoder_in_8_bits_on_demand(study: Path) -> None:
    folder = study / "exports" / STUDENT
    plain = l2s("export", "--network", STUDENT)
    assert plain.exit_code == 0, plain.output
    assert "8 bits" not in plain.stdout + (folder / "README.md").read_text()
    files = {path.name for path in folder.iterdir()}
    assert files == {"README.md", "encoder.onnx", "licences.json", "mlflow_model", "parity.json"}
    both = l2s("export", "--network", STUDENT, "--int8", "--force")
    assert both.exit_code == 0, both.output
    assert "in 8 bits " in both.stdout
    assert {path.name for path in folder.iterdir()} == files | {"encoder_int8.onnx"}


def test_an_export_has_a_web_page_on_demand(study: Path) -> None:
    made_runtime(study / "runtime")
    export = ("export", "--network", STUDENT, "--web", "--runtime", "runtime", "--output", "out")
    plain = l2s(*export, "--pictures", "5")
    assert plain.exit_code == 0, plain.output
    assert "page over 30 images: network " in plain.stdout
    assert f"python -m http.server --bind 127.0.0.1 -d {study / 'out/web'}" in plain.stdout
    web = study / "out/web"
    index = json.loads((web / "index.json").read_text())
    assert (index["network"], sum(map(len, index["pictures"]))) == (STUDENT, 5)
    assert 0 < index["nothing_below"] < 1
    assert (web / "encoder.onnx").read_bytes() == (study / "out/encoder.onnx").read_bytes()
    card = (study / "out/README.md").read_text()
    assert "| 16 | 64 | 1.000 | 20 | " in card
    assert "a page that searches 30 images in the browser" in card
    assert l2s("index", "photos").exit_code == 0
    eight = l2s(*export, "--index", "photos", "--int8", "--force")
    assert eight.exit_code == 0, eight.output
    assert "page over 6 images: " in eight.stdout
    index = json.loads((web / "index.json").read_text())
    assert index["licences"]["database"] == "unknown"
    assert (web / "encoder.onnx").read_bytes() == (study / "out/encoder_int8.onnx").read_bytes()


def make_bad_files(study: Path) -> None:
    (study / "empty").mkdir()
    (study / "text.jpg").write_text("no picture")
    (study / "zero.jpg").write_bytes(b"")
    Image.new("L", (20_000, 20_000)).save(study / "vast.png")


BAD: dict[str, tuple[list[str], str]] = {
    "no argument": (["search"], "Missing argument"),
    "no such picture": (["search", "nothing.jpg"], "there is no such file"),
    "empty folder": (["search", "empty"], "IMAGE = 'empty': names no image"),
    "glob of nothing": (["search", "photos/*.bmp"], "'photos/*.bmp': names no image"),
    "empty list": (["search", "-"], "IMAGE = '-': names no image"),
    "empty name": (["search", ""], "an argument: must not be empty"),
    "text as picture": (["search", "text.jpg"], "text.jpg: "),
    "empty picture": (["search", "zero.jpg"], "zero.jpg: "),
    "decompression bomb": (["search", "vast.png"], "vast.png: "),
    "device": (["search", "/dev/null"], "is not a plain file"),
    "unknown network": (["search", "photos", "--network", "big"], "known: teacher, tiny-16"),
    "unknown data set": (["search", "photos", "--dataset", "cub"], "known: emblems"),
    "no results": (["search", "photos", "-k", "0"], "Invalid value for '-k'"),
    "k in words": (["search", "photos", "-k", "ten"], "Invalid value for '-k'"),
    "unknown index": (["search", "photos", "--index", "none"], "none"),
    "index outside": (["search", "photos", "--index", "../x"], "../x"),
    "index of nothing": (["index", "nowhere"], "is not a folder"),
    "index of a file": (["index", "text.jpg"], "is not a folder"),
    "index of an empty folder": (["index", "empty"], "empty"),
    "index without a name": (["index", "photos", "--name", ""], "--name: must not be empty"),
    "index name with a path": (["index", "photos", "--name", "a/b"], "a/b"),
    "index name hidden": (["index", "photos", "--name", ".."], ".."),
    "unknown kind": (["index", "photos", "--kind", "lsh"], "lsh"),
    "ivfpq of few": (["index", "photos", "--kind", "ivfpq"], "ivfpq"),
    "index of another": (["index", "photos", "--dataset", "cub"], "known: emblems"),
    "export without network": (["export"], "Missing option"),
    "export of unknown": (["export", "--network", "big"], "known: teacher, tiny-16"),
    "export for another": (["export", "--network", STUDENT, "--dataset", "cub"], "known: emblems"),
    "export into a file": (["export", "--network", STUDENT, "--output", "text.jpg"], "text.jpg"),
    "export into used": (["export", "--network", STUDENT, "--output", "photos"], "photos"),
    "page without its runtime": (
        ["export", "--network", STUDENT, "--web", "--runtime", "photos"],
        "photos: holds no such files; --web needs ONNX Runtime Web",
    ),
    "runtime without a page": (["export", "--network", STUDENT, "--runtime", "photos"], "--web"),
    "pictures without a page": (["export", "--network", STUDENT, "--pictures", "9"], "--web"),
    "page of no pictures": (
        ["export", "--network", STUDENT, "--web", "--pictures", "-1"],
        "Invalid value for '--pictures'",
    ),
    "recommend without bound": (["recommend"], "--max-drop"),
    "recommend negative": (["recommend", "--max-drop", "-1"], "max-drop"),
    "recommend in words": (["recommend", "--max-gmacs", "few"], "Invalid value for '--max-gmacs'"),
    "recommend nan": (["recommend", "--max-latency-ms", "nan"], "max-latency-ms"),
    "recommend another": (["recommend", "--max-drop", "5", "--dataset", "cub"], "known: emblems"),
    "page without database": (["ui", "--port", "0"], "no database to search yet"),
    "page port too large": (["ui", "--port", "70000"], "Invalid value for '--port'"),
    "page port in words": (["ui", "--port", "http"], "Invalid value for '--port'"),
    "page for all without a token": (["ui", "--host", "0.0.0.0"], "so that a token is needed"),  # noqa: S104
    "page with a weak token": (["ui", "--token-file", "text.jpg"], "16 characters or more"),
    "page with a token of nowhere": (["ui", "--token-file", "none"], "none"),
    "page of a key": (["ui", "--network", "teacher"], "must be a file, NAME.safetensors; the page"),
    "page of no file": (["ui", "--network", "no.safetensors"], "there is no such file"),
    "page at no address": (["ui", "--host", "300.1.1.1"], "is no address of this machine"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_exit_code_2_and_nothing_lost(study: Path, case: str) -> None:
    make_bad_files(study)
    if case == "page without database":
        shutil.rmtree(study / "embeddings")
    arguments, words = BAD[case]
    before = _stamps(study)
    result = l2s(*arguments, given="")
    shown = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == 2, result.output
    assert words in shown
    assert "Traceback" not in shown
    assert _stamps(study) == before


def _stamps(folder: Path) -> dict[Path, int]:
    """When each file was written; but for locks, which hold nothing, and kept encoders."""
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.parent.name != "encoders"
    ]
    return {path: path.stat().st_mtime_ns for path in files}


def put_champion(study: Path, *, teacher: str = "teacher.safetensors") -> None:
    """Let the teacher's own network at 16 px lead, found fit for the database of `teacher`."""
    models = study / "models/emblems"
    network, card = load_network(models / "teacher.safetensors", torch.device("cpu"))
    path = study / "better.safetensors"
    save_network(path, network, replace(card, size_px=16))
    md5 = file_md5(models / teacher)
    keep_champion(Champion("emblems", 16, STUDENT, "7", file_md5(path), md5), path)


def test_the_champion_answers_and_not_the_newest_student(study: Path, photo: Path) -> None:
    put_champion(study)
    (study / f"models/emblems/students/{STUDENT}.safetensors").unlink()  # it is being retrained
    assert found(photo)["champion_version"] == "7"
    assert f"{STUDENT} (16 px, champion version 7) in emblems" in l2s("search", photo).stdout
    newest = l2s("search", photo, "--newest")
    assert newest.exit_code == 2
    assert f"{STUDENT} is not trained yet" in newest.stderr


def test_a_champion_of_another_teacher_answers_no_more(study: Path, photo: Path) -> None:
    put_champion(study, teacher=f"students/{STUDENT}.safetensors")
    assert found(photo)["champion_version"] is None


def test_a_damaged_card_of_a_champion_is_told(study: Path, photo: Path) -> None:
    put_champion(study)
    (study / "champions/emblems/16px.json").write_text("{}")
    result = l2s("search", photo)
    assert result.exit_code == 2
    assert "champions/emblems/16px.json: is damaged" in result.stderr


def test_a_champion_whose_copy_was_swapped_or_lost_answers_nothing(
    study: Path, photo: Path
) -> None:
    put_champion(study)
    (copy,) = (study / "champions/emblems").glob("*.safetensors")
    shutil.copyfile(study / "models/emblems/teacher.safetensors", copy)
    for _ in range(2):
        result = l2s("search", photo)
        assert result.exit_code == 2
        assert f"{copy.name}: is gone, or not the network of champion version 7" in result.stderr
        assert "`l2s retrain` fetches it anew" in result.stderr
        assert l2s("search", photo, "--newest").exit_code == 0
        copy.unlink(missing_ok=True)
    put_champion(study)  # as `l2s retrain` does
    assert found(photo)["champion_version"] == "7"


def test_what_a_running_study_has_taken_away_is_told(study: Path, photo: Path) -> None:
    (study / f"models/emblems/students/{STUDENT}.safetensors").unlink()
    alone = l2s("search", photo)
    assert "try again when it has ended" not in alone.stderr
    with hold_workspace() as record:
        record.note()
        beside = l2s("search", photo)
        assert beside.exit_code == 2
        assert f"runs here (process {os.getpid()} on " in beside.stderr
        assert "try again when it has ended" in beside.stderr
        params = Path("params.yaml").read_bytes()
        refused = l2s("select", "cub200")
        assert refused.exit_code == 2
        assert "): select when it has ended" in refused.stderr
        assert Path("params.yaml").read_bytes() == params


def test_an_export_of_a_champion_has_figures_of_its_own(study: Path) -> None:
    put_champion(study)
    (study / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        f"  evaluate@{STUDENT}:\n    cmd: x\n    deps:\n"
        f"    - path: models/emblems/students/{STUDENT}.safetensors\n      md5: other\n"
    )
    result = l2s("export", "--network", STUDENT, "--output", "out", "--with-database")
    assert result.exit_code == 0, result.output
    assert f"exported {STUDENT} (champion, version 7) to " in result.stdout
    card = (study / "out/README.md").read_text()
    assert "Version 7 of its champions." in card
    assert "vectors of 30 images" in card
    old = json.loads((study / f"results/emblems/cells/{STUDENT}.json").read_text())
    assert "| symmetric | 16 | 16 |" in card  # evaluated anew; the results have no such row
    assert "symmetric" not in old


def test_the_vectors_of_an_index_go_out_with_an_encoder(study: Path) -> None:
    assert l2s("index", "photos").exit_code == 0
    export = ("export", "--network", STUDENT, "--output", "out")
    assert l2s(*export, "--index", "photos").exit_code == 2
    assert l2s(*export, "--index", "photos", "--with-database").exit_code == 0
    licences = json.loads((study / "out/licences.json").read_text())
    assert (licences["data"], licences["database"]) == ("the user's own", "unknown")
    card = (study / "out/README.md").read_text()
    assert "Licence of the images: the user's own\n" in card
    assert "Licence of the images of the database: unknown (find out" in card
    table = pd.read_parquet(study / "out/database/database.parquet")
    answers = found("photos", "--index", "photos", "-k", 1)["queries"]
    assert len(table) == 6
    assert {hit["id"] for one in answers for hit in one["results"]} <= set(table["id"])


def test_an_export_where_no_folder_can_be_is_refused(study: Path) -> None:
    (study / "file").write_text("")
    result = l2s("export", "--network", STUDENT, "--output", "file/out")
    assert result.exit_code == 2
    assert f"error: [Errno 17] File exists: '{study / 'file'}'" in result.stderr


def test_the_copy_before_the_present_champion_stays_for_those_who_open_it(study: Path) -> None:
    source = study / f"models/emblems/students/{STUDENT}.safetensors"
    made = [Champion("emblems", 16, STUDENT, str(n), f"md5{n}", "teacher") for n in range(3)]
    for champion in made:
        keep_champion(champion, source)
        keep_champion(champion, source)  # told again, nothing changes
    assert [champion.path.exists() for champion in made] == [False, True, True]
    assert json.loads((study / "champions/emblems/16px.json").read_text())["version"] == "2"
