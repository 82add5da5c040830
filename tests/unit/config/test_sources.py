"""Where images come from: each kind of source with its own keys, and the inputs that go with it."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import ConfigurationError, Params, load_params
from pipeline.datasets.sources import SOURCES
from tests.made_params import ABSENT, PARAMS, edited_params

KEY = "datasets.emblems.source"
CUB: dict[str, Any] = {
    "kind": "cub200",
    "layout": "cub",
    "archives": "downloaded",
    "accept_subset": False,
    "skip_unreadable": False,
}
CARS = CUB | {"kind": "cars196", "layout": "cars_halves"}
SOP = CUB | {"kind": "sop", "layout": "sop_parquet"}
FOLDER = {"kind": "folder", "skip_unreadable": True}
CSV = {"kind": "csv", "table": "images.csv", "skip_unreadable": False}
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
    ],
)
def test_every_kind_is_read_into_its_own_model(
    tmp_path: Path, source: dict[str, Any], more: dict[str, Any]
) -> None:
    read = params_with(tmp_path, source, more).datasets["emblems"].source
    assert read.model_dump() == source


def test_every_layout_of_the_library_can_be_asked_for(tmp_path: Path) -> None:
    asked = 0
    for kind in ("cub200", "cars196", "sop"):
        for form in SOURCES[kind].forms:
            params_with(tmp_path, CUB | {"kind": kind, "layout": form.layout})
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
            "accept_subset, skip_unreadable"
        ],
    ),
    "another kind's key": (
        FOLDER | {"layout": "cub"},
        INPUT,
        [f"{KEY}.layout: unknown key; allowed here: kind, skip_unreadable"],
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


def test_the_shelf_is_held_to_the_same_rules(tmp_path: Path) -> None:
    changes = {
        "shelf.cub200.dataset.source.layout": "sop",
        "shelf.sop.dataset.teacher_size": 448,
        "shelf.cars196.students.cars196-64.query_px": 500,
        "shelf.folder.students.folder-64.dataset": "sop",
    }
    with pytest.raises(ConfigurationError) as caught:
        load_params(edited_params(tmp_path, changes))
    told = caught.value.faults
    for start in (
        "shelf.cub200.dataset.source.layout = 'sop': input should be 'cub'",
        "shelf.sop.dataset.teacher_size: unknown key; allowed here: source, teacher_px, ",
        "shelf.cars196.students.cars196-64.query_px = 500: must be at most",
        "shelf.folder.students.folder-64.dataset = 'sop': no such data set; known: folder",
    ):
        assert sum(fault.startswith(start) for fault in told) == 1, start


def test_a_name_is_in_one_place_only(tmp_path: Path) -> None:
    own = load_params(PARAMS)
    entry = {
        "dataset": own.datasets["emblems"].model_dump(mode="json"),
        "students": {key: one.model_dump(mode="json") for key, one in own.students.items()},
    }
    with pytest.raises(ConfigurationError) as caught:
        load_params(edited_params(tmp_path, {"shelf.emblems": entry}))
    assert caught.value.faults == [
        "shelf.emblems: this data set is active too; it can be in one place only",
        *(f"shelf.emblems.students.{key}: another student has this name" for key in own.students),
    ]


NETWORK = "datasets.emblems.network"
FULL = {"dataset": "emblems", "query_px": 96}


def test_another_backbone_does_not_inherit_what_is_of_the_first(tmp_path: Path) -> None:
    changes = {
        f"{NETWORK}.mean": [0.5, 0.5, 0.5],
        f"{NETWORK}.std": [0.25, 0.25, 0.25],
        "students": {
            "same": FULL,
            "other": FULL | {"network": {"backbone": "timm/resnet18"}},
            "own": FULL | {"network": {"backbone": "timm/resnet18", "mean": [0.1, 0.2, 0.3]}},
        },
    }
    params = load_params(edited_params(tmp_path, changes))
    assert params.student_network("same").mean == (0.5, 0.5, 0.5)
    assert params.student_network("other").mean is params.student_network("other").std is None
    assert params.student_network("own").mean == (0.1, 0.2, 0.3)


def test_a_file_of_weights_is_not_inherited_by_another_backbone(tmp_path: Path) -> None:
    changes = {
        f"{NETWORK}.weights": "weights/some.safetensors",
        "students": {
            "same": FULL,
            "other": FULL | {"network": {"backbone": "timm/resnet18"}},
            "own": FULL | {"network": {"backbone": "timm/resnet18", "weights": "random"}},
        },
    }
    with pytest.raises(ConfigurationError) as caught:
        load_params(edited_params(tmp_path, changes))
    (fault,) = caught.value.faults
    assert fault.startswith("students.other.network.weights: is missing: the file of weights")
