"""What lies outside of the workspace is watched: DVC notices a change, and nothing else does."""

from pathlib import Path

import pytest

from tests import made_archives as made
from tests.integration.workspace import dvc, make_workspace, set_params

GOALS = ("prepare@emblems",)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A workspace whose only data set is a folder of images, packed; and the folder."""
    home = tmp_path_factory.mktemp("inputs")
    images = made.write_folder(home / "images")
    folder = make_workspace(home / "workspace")
    source = {"kind": "folder", "skip_unreadable": False}
    set_params(folder, {"datasets.emblems.source": source, "inputs": {"emblems": "../images"}})
    dvc(folder, "repro", *GOALS)
    return folder, images


def ran(folder: Path) -> list[str]:
    """The stages that `dvc repro` runs now."""
    told = dvc(folder, "repro", *GOALS).stdout
    return [line.split("'")[1] for line in told.splitlines() if line.startswith("Running stage")]


def test_nothing_is_done_twice(study: tuple[Path, Path]) -> None:
    assert ran(study[0]) == []


def test_a_changed_image_is_packed_again(study: tuple[Path, Path]) -> None:
    folder, images = study
    pack = folder / "data/emblems/pack.arrow"
    before = pack.read_bytes()
    (images / "class10" / "image0.jpg").write_bytes(made.encode_picture(77))
    assert ran(folder) == ["hash_inputs@emblems", "prepare@emblems"]
    assert pack.read_bytes() != before
    (images / "class10" / ".hidden").write_text("no image")
    assert ran(folder) == ["hash_inputs@emblems"]
    assert ran(folder) == []


def test_a_moved_folder_is_the_same_data_set(study: tuple[Path, Path]) -> None:
    folder, images = study
    images.rename(images.with_name("moved"))
    set_params(folder, {"inputs": {"emblems": "../moved"}})
    assert ran(folder) == ["inputs@emblems", "hash_inputs@emblems"]
