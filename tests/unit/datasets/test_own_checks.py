"""What is told of the user's own folder before a study of it begins."""

from pathlib import Path

import pytest

from pipeline.config.params import ConfigurationError, Params, load_params
from pipeline.config.studies import select_studies
from pipeline.datasets.own_checks import check_own_images
from tests.integration.workspace import ROOT, set_params


def params_of(folder: Path, classes: dict[str, int], **changes: object) -> Params:
    """params.yaml with a data set of the images `classes` counts; they are never decoded."""
    images = folder / "images"
    for name, count in classes.items():
        (images / name).mkdir(parents=True)
        for number in range(count):
            (images / name / f"{number}.jpg").write_bytes(b"")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    select_studies(folder / "params.yaml", ["folder"], {"inputs.folder": str(images)})
    set_params(folder, {f"datasets.folder.{key}": value for key, value in changes.items()})
    return load_params(folder / "params.yaml")


def classes(count: int, images: int = 4) -> dict[str, int]:
    return {f"class{number}": images for number in range(count)}


def refusal(params: Params) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_own_images(params)
    return str(caught.value)


def test_a_folder_that_will_do_passes_without_a_word(tmp_path: Path) -> None:
    check_own_images(params_of(tmp_path, {**classes(20), "aaa": 1, "zzz": 1}))


@pytest.mark.parametrize(
    ("found", "share", "told"),
    [
        (
            classes(12),
            0.2,
            "1 of 6 training classes would validate, and both sides need two (0 turns",
        ),
        (classes(6), 0.2, "both sides need two (0 turns validation off)"),
        (classes(2), 0.0, "1 classes are left to train on, of which 1 have two images or more"),
        (classes(1), 0.0, "no class is left for test: two classes are the least"),
        ({"a": 5, "b": 5, "c": 1, "d": 5}, 0.0, "2 classes are left to train on, of which 1 have"),
        ({"a": 1, "b": 1, "c": 5, "d": 5}, 0.0, "none of the 2 test classes has a second image"),
        ({}, 0.0, "is not a folder"),
        ({"empty": 0}, 0.0, "is a class without images"),
    ],
)
def test_what_no_study_can_be_made_of_is_refused(
    tmp_path: Path, found: dict[str, int], share: float, told: str
) -> None:
    message = refusal(params_of(tmp_path, found, validation_share=share))
    assert told in message
    assert "folder" in message


def test_images_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    params = params_of(tmp_path, {})
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"")
    assert "each class is a sub-folder with its images; 3 files lie beside" in refusal(params)


def test_a_table_without_classes_teaches_no_teacher(tmp_path: Path) -> None:
    params_of(tmp_path, classes(1, 40), validation_share=0.0)
    rows = "".join(f"{number},class0/{number}.jpg\n" for number in range(40))
    (tmp_path / "images" / "t.csv").write_text(f"id,path\n{rows}", encoding="utf-8")
    source = {"kind": "table", "table": "t.csv", "skip_unreadable": False}
    set_params(tmp_path, {"datasets.folder.source": source})
    assert "datasets.folder.teacher.kind = 'trained': must be frozen, onnx or vectors" in refusal(
        load_params(tmp_path / "params.yaml")
    )
