"""Made-up archives in every published layout, and users' own images, through the real stages.

The stages run in this process, which has torch loaded already, and once as DVC runs them.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from pipeline.datasets.packs import open_pack
from pipeline.datasets.sources import DATASETS
from stages import run_stage
from tests import made_archives as made
from tests.integration.workspace import ROOT, set_params

PUBLISHED = {"accept_subset": True, "skip_unreadable": False}


class Case(NamedTuple):
    """A source of params.yaml, a maker of its files, and the images of the two splits."""

    source: dict[str, Any]
    make: Callable[[Path], object]
    train: int
    test: int


def write_cub(folder: Path) -> Path:
    return made.write_tgz(folder / "CUB_200_2011.tgz", made.shuffled(made.cub_members()))


def write_sop(folder: Path) -> Path:
    return made.write_zip(folder / "Stanford_Online_Products.zip", made.sop_members())


LAYOUTS: dict[str, Case] = {
    "cub": Case({"kind": "cub200", "layout": "cub"} | PUBLISHED, write_cub, 6, 6),
    "sop": Case({"kind": "sop", "layout": "sop"} | PUBLISHED, write_sop, 6, 4),
    "sop_parquet": Case(
        {"kind": "sop", "layout": "sop_parquet"} | PUBLISHED, made.write_sop_parquet, 6, 4
    ),
    "cars_whole": Case(
        {"kind": "cars196", "layout": "cars_whole"} | PUBLISHED, made.write_cars_whole, 4, 4
    ),
    "cars_halves": Case(
        {"kind": "cars196", "layout": "cars_halves"} | PUBLISHED, made.write_cars_halves, 5, 4
    ),
    "cars_parquet": Case(
        {"kind": "cars196", "layout": "cars_parquet"} | PUBLISHED, made.write_cars_parquet, 5, 4
    ),
}
CSV_ROWS = [("a/1.jpg", "a"), ("a/2.jpg", "a"), ("b/1.jpg", "b"), ("b/2.jpg", "b")]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with params.yaml alone; the code is the repository's."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    return folder


def use(workspace: Path, source: Mapping[str, Any], given: Path | None) -> None:
    """Make `source` that of the data set emblems, read at `given` if that is not None."""
    archives = {"archives": "given" if given else "downloaded"} if "layout" in source else {}
    inputs = {"emblems": str(given)} if given else {}
    set_params(workspace, {"datasets.emblems.source": {**source, **archives}, "inputs": inputs})


def stage(workspace: Path, name: str, archives: Path | None = None) -> tuple[int, str]:
    """Exit code and messages of a stage."""
    run = getattr(import_module(f"stages.{name}"), name)
    told = io.StringIO()
    environment = {"L2S_ARCHIVES": str(archives)} if archives else {}
    with (
        chdir(workspace),
        redirect_stderr(told),
        patch.object(sys, "argv", [f"stages/{name}.py", "emblems"]),
        patch.dict(os.environ, environment),
    ):
        try:
            run_stage(run)
        except SystemExit as end:
            return int(str(end.code)), told.getvalue()
    return 0, told.getvalue()


def succeed(workspace: Path, *names: str, archives: Path | None = None) -> None:
    for name in names:
        code, told = stage(workspace, name, archives)
        assert code == 0, told


def fail(workspace: Path, name: str, archives: Path | None = None) -> str:
    """The one message of a stage that ends with exit code 2."""
    code, told = stage(workspace, name, archives)
    assert code == 2, told
    assert told.count("error: ") == 1
    return told


def described(workspace: Path, file: str) -> dict[str, Any]:
    return json.loads((workspace / "data/emblems" / file).read_text(encoding="utf-8"))


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_from_its_files_to_a_pack(
    workspace: Path, tmp_path: Path, layout: str
) -> None:
    case = LAYOUTS[layout]
    given = tmp_path / "given"
    given.mkdir()
    case.make(given)
    use(workspace, case.source, given)
    succeed(workspace, "inputs", "hash_inputs", "prepare")
    pack = open_pack(workspace / "data/emblems/pack.arrow")
    assert len(pack.rows("train")) == case.train
    assert len(pack.rows("test")) == case.test
    assert pack.is_subset
    assert pack.image(0).size == (24, 16)
    summary = described(workspace, "pack.json")
    assert summary["subset"] is True
    assert summary["licence"] == DATASETS[case.source["kind"]].licence
    assert summary["images"] == case.train + case.test == summary["images_smaller_than_teacher_px"]
    assert summary["shorter_side_px_median"] == 16
    found = described(workspace, "source/input.json")
    assert {file["name"] for file in found["files"]} == {path.name for path in given.iterdir()}
    before = (workspace / "data/emblems/source/input.json").read_bytes()
    succeed(workspace, "hash_inputs")
    assert (workspace / "data/emblems/source/input.json").read_bytes() == before
    assert str(tmp_path) not in before.decode()
    assert set(files_of(workspace / ".work")) <= {"accepted_networks"}


def test_large_pictures_are_shrunk_in_the_pack_and_counted(workspace: Path, tmp_path: Path) -> None:
    case = LAYOUTS["sop"]
    given = tmp_path / "given"
    given.mkdir()
    case.make(given)
    use(workspace, case.source, given)
    succeed(workspace, "inputs", "hash_inputs", "prepare")
    whole = described(workspace, "pack.json")
    assert (whole["largest_side_px"], whole["shrunk_to_largest_side"]) == (220, 0)
    use(workspace, {**case.source, "largest_side_px": 18}, given)
    succeed(workspace, "prepare")
    pack, summary = (
        open_pack(workspace / "data/emblems/pack.arrow"),
        described(workspace, "pack.json"),
    )
    assert (summary["largest_side_px"], summary["shrunk_to_largest_side"]) == (18, len(pack))
    assert {pack.image(row).size for row in range(len(pack))} == {(18, 12)}


def test_the_stages_as_dvc_runs_them(workspace: Path, tmp_path: Path) -> None:
    """Processes of their own; the last one refuses in one line, without a traceback."""
    archive = write_sop(tmp_path)
    use(workspace, LAYOUTS["sop"].source, archive)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"stages.{name}", "emblems"]
        return subprocess.run(
            command, cwd=workspace, env=environment, capture_output=True, text=True, check=False
        )

    for name in ("inputs", "hash_inputs", "prepare"):
        done = run(name)
        assert done.returncode == 0, done.stderr
    assert "reading: 10/10 image" in done.stderr
    archive.write_bytes(b"")
    done = run("hash_inputs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {archive}: is empty (0 bytes)\n"


def test_archives_of_the_users_shelf_are_used_where_they_lie(
    workspace: Path, tmp_path: Path
) -> None:
    """L2S_ARCHIVES: the same description from another folder, nothing copied, no network."""
    case = LAYOUTS["sop"]
    texts = []
    (tmp_path / "one").mkdir()
    write_sop(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for shelf in (tmp_path / "one", tmp_path / "two"):
        use(workspace, case.source, None)
        succeed(workspace, "inputs", "prepare", archives=shelf)
        texts.append((workspace / "data/emblems/source/source.json").read_text())
    assert texts[0] == texts[1]
    assert [file["name"] for file in json.loads(texts[0])["files"]] == [
        "Stanford_Online_Products.zip"
    ]
    assert described(workspace, "pack.json")["subset"] is True
    assert not any(name.endswith(".zip") for name in files_of(workspace))


def test_an_archive_that_was_exchanged_between_the_stages_is_refused(
    workspace: Path, tmp_path: Path
) -> None:
    use(workspace, LAYOUTS["sop"].source, None)
    archive = write_sop(tmp_path)
    succeed(workspace, "inputs", archives=tmp_path)
    archive.write_bytes(made.write_zip(tmp_path / "x", made.sop_members(4, 4)).read_bytes())
    message = fail(workspace, "prepare", archives=tmp_path)
    assert "not those that the stage inputs saw" in message
    assert "dvc repro --force --single-item inputs@emblems" in message
    assert not (workspace / "data/emblems/pack.arrow").exists()


@pytest.mark.parametrize(("table", "kind"), [(None, "folder"), ("images.csv", "csv")])
def test_the_users_own_images(
    workspace: Path, tmp_path: Path, table: str | None, kind: str
) -> None:
    folder = tmp_path / "images"
    if table is None:
        made.write_folder(folder)
    else:
        folder.mkdir()
        made.write_csv(folder, CSV_ROWS)
    source = {"kind": kind, "skip_unreadable": False} | ({"table": table} if table else {})
    use(workspace, source, folder)
    succeed(workspace, "inputs", "hash_inputs", "prepare")
    pack = open_pack(workspace / "data/emblems/pack.arrow")
    assert len(pack.rows("train")) == len(pack.rows("test")) == len(pack) // 2 > 0
    assert not pack.is_subset
    assert described(workspace, "pack.json")["kind"] == kind


def test_a_changed_image_changes_the_manifest_and_a_stranger_does_not(
    workspace: Path, tmp_path: Path
) -> None:
    folder = made.write_folder(tmp_path / "images")
    use(workspace, {"kind": "folder", "skip_unreadable": False}, folder)
    succeed(workspace, "inputs", "hash_inputs")
    noted = (workspace / "data/emblems/source/input.json").read_bytes()
    (folder / "class10" / ".DS_Store").write_bytes(b"x")
    succeed(workspace, "hash_inputs", "prepare")
    assert (workspace / "data/emblems/source/input.json").read_bytes() == noted
    (folder / "class10" / "image0.jpg").write_bytes(made.encode_picture(999))
    message = fail(workspace, "prepare")
    assert "class10/image0.jpg: has changed while the stages ran" in message
    succeed(workspace, "hash_inputs", "prepare")
    assert (workspace / "data/emblems/source/input.json").read_bytes() != noted
    (folder / "class10" / "image0.jpg").unlink()
    assert "the images have changed while the stages ran" in fail(workspace, "prepare")


def test_broken_images_are_refused_by_name_or_left_out_and_counted(
    workspace: Path, tmp_path: Path
) -> None:
    folder = made.write_folder(tmp_path / "images", images_per_class=3)
    (folder / "class10" / "image0.jpg").write_bytes(b"")
    whole = (folder / "class15" / "image9.jpg").read_bytes()
    (folder / "class15" / "image9.jpg").write_bytes(whole[: len(whole) // 2])
    use(workspace, {"kind": "folder", "skip_unreadable": False}, folder)
    succeed(workspace, "inputs", "hash_inputs")
    message = fail(workspace, "prepare")
    assert "2 unreadable images" in message
    assert "class10/image0.jpg: is empty" in message
    assert "class15/image9.jpg" in message
    assert not (workspace / "data/emblems/pack.arrow").exists()
    use(workspace, {"kind": "folder", "skip_unreadable": True}, folder)
    succeed(workspace, "inputs", "hash_inputs", "prepare")
    summary = described(workspace, "pack.json")
    assert set(summary["skipped_unreadable"]) == {"class10/image0.jpg", "class15/image9.jpg"}
    assert summary["images"] == 10


def one_wrong_byte(folder: Path) -> None:
    path = write_cub(folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :])


def truncated(folder: Path) -> None:
    path = write_cub(folder)
    path.write_bytes(path.read_bytes()[:-200])


def without_a_class(folder: Path) -> None:
    made.write_cars_whole(folder)
    (folder / "car_ims.tgz").unlink()


def outside(folder: Path) -> None:
    made.write_csv(folder, [*CSV_ROWS[:2], ("../escaped.jpg", "b"), ("b/2.jpg", "b")])


STRICT = {"accept_subset": False}
FOLDER = {"kind": "folder", "skip_unreadable": False}
TABLE = {"kind": "csv", "table": "images.csv", "skip_unreadable": False}
# The source, what lies there, which stage refuses it, and in which words.
BAD: dict[str, tuple[dict[str, Any], Callable[[Path], object], str, str]] = {
    "a part that is not accepted": (
        LAYOUTS["cub"].source | STRICT,
        write_cub,
        "hash_inputs",
        "is not the published CUB_200_2011.tgz",
    ),
    "another archive": (
        LAYOUTS["cub"].source | STRICT,
        lambda folder: (folder / "CUB_200_2011.tgz").write_bytes(b"x"),
        "hash_inputs",
        "a part of the data set needs accept_subset",
    ),
    "no archive there": (
        LAYOUTS["cub"].source,
        lambda _: None,
        "hash_inputs",
        "there is no such file",
    ),
    "an empty archive": (
        LAYOUTS["sop"].source,
        lambda folder: (folder / "Stanford_Online_Products.zip").touch(),
        "hash_inputs",
        "is empty",
    ),
    "a damaged archive": (LAYOUTS["cub"].source, one_wrong_byte, "prepare", "CUB_200_2011.tgz"),
    "a truncated archive": (LAYOUTS["cub"].source, truncated, "prepare", "is truncated"),
    "one of two files": (
        LAYOUTS["cars_whole"].source,
        without_a_class,
        "hash_inputs",
        "car_ims.tgz",
    ),
    "no parquet": (
        LAYOUTS["cars_parquet"].source,
        lambda _: None,
        "hash_inputs",
        "misses train-* and",
    ),
    "published parquet missing": (
        LAYOUTS["sop_parquet"].source | STRICT,
        made.write_sop_parquet,
        "hash_inputs",
        "misses test-00000-of-00004.parquet",
    ),
    "no class folder": (FOLDER, lambda _: None, "hash_inputs", "holds no class"),
    "an empty class": (FOLDER, lambda f: (f / "a").mkdir(), "hash_inputs", "class without images"),
    "one class": (FOLDER, lambda f: made.write_folder(f / "x", 1), "hash_inputs", "holds folders"),
    "no table": (TABLE, lambda _: None, "hash_inputs", "images.csv: is not a file"),
    "a table of other columns": (
        TABLE,
        lambda f: made.write_csv(f, [("a.jpg", "a")], ("file", "label")),
        "hash_inputs",
        "the first line must name path, class",
    ),
    "images outside of the folder": (TABLE, outside, "hash_inputs", "names files outside of"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_sources_end_in_one_message_and_no_output(
    workspace: Path, tmp_path: Path, fault: str
) -> None:
    source, make, where, message = BAD[fault]
    given = tmp_path / "given"
    given.mkdir()
    make(given)
    use(workspace, source, given)
    succeed(workspace, "inputs")
    if where == "prepare":
        succeed(workspace, "hash_inputs")
    before = files_of(workspace)
    assert message in fail(workspace, where)
    assert files_of(workspace) == before


def test_a_download_without_an_address_names_the_pages(workspace: Path) -> None:
    use(workspace, LAYOUTS["cars_whole"].source, None)
    message = fail(workspace, "inputs")
    assert "car_ims.tgz: could not be had: no address is known" in message
    assert "https://huggingface.co/datasets/tanganke/stanford_cars" in message
    assert not (workspace / "data").exists()
    use(workspace, LAYOUTS["cars_parquet"].source, None)
    assert "name their folder as an input" in fail(workspace, "inputs")


def test_an_input_that_is_gone_is_told_before_anything_runs(workspace: Path) -> None:
    use(workspace, FOLDER, workspace / "gone")
    message = fail(workspace, "inputs")
    assert "inputs.emblems = " in message
    assert "there is no such file or folder" in message
