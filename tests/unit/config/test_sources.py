"""Where images come from: each kind of source with its own keys, and the inputs that go with it."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import ConfigurationError, Params, load_params, parse_params
from pipeline.config.recipes import Network
from pipeline.datasets.sources import DATASETS
from tests.made_params import ABSENT, edited_params

KEY = "datasets.emblems.source"
CUB: dict[str, Any] = {
    "kind": "cub200",
    "layout": "cub",
    "archives": "downloaded",
    "accept_subset": False,
    "skip_unreadable": False,
    "largest_side_px": None,
    "near_duplicates": "keep",
}
CARS = CUB | {"kind": "cars196", "layout": "cars_halves"}
SOP = CUB | {"kind": "sop", "layout": "sop_parquet"}
FOLDER = {
    "kind": "folder",
    "skip_unreadable": True,
    "largest_side_px": 640,
    "near_duplicates": "leave_out",
}
CSV = {
    "kind": "csv",
    "table": "images.csv",
    "skip_unreadable": False,
    "largest_side_px": None,
    "near_duplicates": "leave_out",
}
IMAGES = FOLDER | {"kind": "images"}
FROZEN = {
    "datasets.emblems.teacher": {"kind": "frozen", "whitening": None, "whitening_images": 9},
    "datasets.emblems.distillation.offset": "learned",
}
INPUT = {"inputs": {"emblems": "somewhere"}}


def params_with(folder: Path, source: Any, more: dict[str, Any] | None = None) -> Params:
    return load_params(edited_params(folder, {KEY: source} | (more or {})))


def faults_of(folder: Path, source: Any, more: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        params_with(folder, source, more)
    return caught.value.faults


@pytest.mark.parametrize(
    ("source", "more"),
    [
        (CUB, {}),
        (CARS, {}),
        (SOP, {}),
        (CUB | {"archives": "given"}, INPUT),
        (FOLDER, INPUT),
        (CSV, INPUT),
        (IMAGES, INPUT | FROZEN),
    ],
)
def test_every_kind_is_read_into_its_own_model(
    tmp_path: Path, source: dict[str, Any], more: dict[str, Any]
) -> None:
    read = params_with(tmp_path, source, more).datasets["emblems"].source
    assert read.model_dump() == source


def test_every_layout_of_the_library_can_be_asked_for(tmp_path: Path) -> None:
    asked = 0
    for kind, dataset in DATASETS.items():
        for layout in dataset.archives:
            params_with(tmp_path, CUB | {"kind": kind, "layout": layout})
            asked += 1
    assert asked == 6


# What the source is, what else is changed, and the faults: all of them, in their words.
FAULTS: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "an unknown kind": (
        {"kind": "cub"},
        {},
        [f"{KEY}.kind = 'cub': must be one of emblems, cub200, cars196, sop, folder, csv"],
    ),
    "no kind": ({"layout": "cub"}, {}, [f"{KEY}.kind: is missing"]),
    "a misspelt key": (
        CUB | {"acept_subset": True},
        {},
        [
            f"{KEY}.acept_subset: unknown key; allowed here: kind, layout, archives, "
            "accept_subset, skip_unreadable, largest_side_px, near_duplicates"
        ],
    ),
    "another kind's key": (
        FOLDER | {"layout": "cub"},
        INPUT,
        [
            f"{KEY}.layout: unknown key; allowed here: kind, skip_unreadable, largest_side_px, "
            "near_duplicates"
        ],
    ),
    "another kind's layout": (
        CARS | {"layout": "cub"},
        {},
        [
            f"{KEY}.layout = 'cub': input should be 'cars_whole', 'cars_halves' or 'cars_parquet'",
        ],
    ),
    "a word for a flag, and a missing key": (
        {key: value for key, value in (CUB | {"accept_subset": "no"}).items() if key != "archives"},
        {},
        [
            f"{KEY}.archives: is missing",
            f"{KEY}.accept_subset = 'no': input should be a valid boolean",
        ],
    ),
    "no table": (CSV | {"table": ""}, INPUT, [f"{KEY}.table = '': string should have at least"]),
    "no folder": (
        FOLDER,
        {},
        [
            "inputs.emblems: is missing: must be the folder of the images "
            "(`l2s select emblems --path FOLDER` writes it)"
        ],
    ),
    "labels of images without classes": (
        IMAGES,
        INPUT,
        ["datasets.emblems.teacher.kind = 'trained': must be frozen, onnx or vectors, since"],
    ),
    "no archive": (
        CUB | {"archives": "given"},
        {},
        [f"inputs.emblems: is missing with {KEY}.archives = 'given': must be the archive"],
    ),
    "an archive that is not read": (
        CUB,
        INPUT,
        [f"inputs.emblems: is not read with {KEY}.archives = 'downloaded': must be given"],
    ),
    "an input of nobody": (CUB, {"inputs": {"x": "y"}}, ["inputs.x: no such data set; known: emb"]),
    "an input that is no path": (
        FOLDER,
        {"inputs": {"emblems": 3}},
        ["inputs.emblems = 3: input should be a valid string"],
    ),
    "no inputs at all": (CUB, {"inputs": ABSENT}, ["inputs: is missing"]),
    "no mapping": ("cub200", {}, [f"{KEY} = 'cub200': input should be"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_key_value_and_what_is_allowed(tmp_path: Path, fault: str) -> None:
    source, more, starts = FAULTS[fault]
    faults = faults_of(tmp_path, source, more)
    assert len(faults) == len(starts), faults
    for told, start in zip(faults, starts, strict=True):
        assert told.startswith(start)


def test_emblems_read_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"inputs\.emblems: emblems are rendered"):
        load_params(edited_params(tmp_path, INPUT))


NETWORK = "datasets.emblems.network"
FULL = {"dataset": "emblems", "query_px": 96}


def test_a_student_lays_its_values_over_those_of_its_data_set(tmp_path: Path) -> None:
    """Another backbone replaces the network whole: mean, weights and the like are of the first."""
    whole = {"backbone": "timm/resnet18", "weights": "random", "batch_norm": "live", "dim": 128}
    changes = {
        f"{NETWORK}.mean": [0.5, 0.5, 0.5],
        "students": {
            "same": FULL | {"network": {"mean": [0.1, 0.2, 0.3], "std": None}},
            "other": FULL | {"network": whole},
            "short": FULL | {"distillation": {"optimisation": {"epochs": 2}, "views": 1}},
        },
    }
    params = load_params(edited_params(tmp_path, changes))
    assert params.student_network("short").mean == (0.5, 0.5, 0.5)
    assert params.student_network("same").mean == (0.1, 0.2, 0.3)
    assert params.student_network("same").backbone == "timm/test_resnet"
    assert params.student_network("other") == Network.model_validate(whole)
    recipe, common = params.student_distillation("short"), params.datasets["emblems"].distillation
    assert (recipe.views, recipe.optimisation.epochs) == (1, 2)
    assert recipe.optimisation.learning_rate == common.optimisation.learning_rate
    assert params.student_distillation("same") == common


def test_faults_of_a_students_own_values_are_told_at_their_place(tmp_path: Path) -> None:
    changes = {
        "students": {
            "other": FULL | {"network": {"backbone": "timm/resnet18", "weights": "random"}},
            "wrong": FULL | {"distillation": {"lambda": 1, "views": 0}},
            "crop": FULL | {"distillation": {"augmentation": {"crop_scale": [0.9, 0.1]}}},
        },
    }
    with pytest.raises(ConfigurationError) as caught:
        load_params(edited_params(tmp_path, changes))
    told = sorted(caught.value.faults)
    for fault, start in zip(
        told,
        (
            "students.crop.distillation.augmentation.crop_scale = [0.9, 0.1]: must be 0 < smallest",
            "students.other.network.batch_norm: is missing",
            "students.other.network.dim: is missing",
            "students.wrong.distillation.lambda: unknown key; allowed here: loss, images_per_batch",
            "students.wrong.distillation.views = 0: input should be greater than 0",
        ),
        strict=True,
    ):
        assert fault.startswith(start), fault


def test_aliases_and_endless_files_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"line 2: \*x: write the values out"):
        parse_params("a: &x [1]\nb: *x\n")
    with pytest.raises(ConfigurationError, match="is longer than 1048576 characters"):
        parse_params(f"a: {'x' * (1 << 20)}\n")
