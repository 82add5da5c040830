"""Studies move between their places and the shelf, with every value and every comment."""

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import ConfigurationError, load_params, parse_params
from pipeline.config.studies import select_studies
from pipeline.models.requirements import network_faults
from tests.made_params import PARAMS

SHELVED = ("cub200_sample", "cub200", "cars196", "sop")


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(PARAMS, tmp_path / "params.yaml"))


def comments(text: str) -> Counter[str]:
    return Counter(re.findall(r"(?:^|\s)(#.*)$", text, re.MULTILINE))


def values(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def everything(path: Path) -> dict[str, Any]:
    """Each data set and each student by its name, wherever it stands."""
    raw = values(path)
    shelf = raw["shelf"] or {}
    students = [raw["students"], *(entry["students"] for entry in shelf.values())]
    return {
        "datasets": raw["datasets"] | {name: entry["dataset"] for name, entry in shelf.items()},
        "students": {key: one for group in students for key, one in group.items()},
        "inputs": raw["inputs"]
        | {name: entry["input"] for name, entry in shelf.items() if "input" in entry},
        **{name: raw[name] for name in ("seed", "threads", "recipes", "evaluation")},
    }


@pytest.mark.parametrize("name", SHELVED)
def test_one_command_selects_a_study_and_loses_nothing(params: Path, name: str) -> None:
    before, text = everything(params), params.read_text(encoding="utf-8")
    assert select_studies(params, [name]) == ([name], ["emblems"])
    read = load_params(params)
    assert list(read.datasets) == [name]
    assert {student.dataset for student in read.students.values()} == {name}
    assert everything(params) == before
    assert comments(params.read_text(encoding="utf-8")) == comments(text)
    assert select_studies(params, ["emblems"]) == (["emblems"], [name])
    assert everything(params) == before
    assert comments(params.read_text(encoding="utf-8")) == comments(text)


def test_there_and_back_gives_the_same_bytes(params: Path) -> None:
    before = params.read_bytes()
    first = load_params(params).shelf
    select_studies(params, [next(iter(first))])
    assert params.read_bytes() != before
    select_studies(params, ["emblems"])
    assert params.read_bytes() == before


def test_what_is_active_already_changes_nothing(params: Path) -> None:
    before = params.stat()
    assert select_studies(params, ["emblems"]) == ([], [])
    after = params.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_several_studies_side_by_side(params: Path) -> None:
    before = everything(params)
    assert select_studies(params, ["cub200", "emblems", "cub200"]) == (["cub200"], [])
    read = load_params(params)
    assert set(read.datasets) == {"emblems", "cub200"}
    assert "cub200" not in read.shelf
    assert select_studies(params, ["sop", "cars196"]) == (["sop", "cars196"], ["emblems", "cub200"])
    assert set(load_params(params).datasets) == {"sop", "cars196"}
    assert everything(params) == before


def test_an_empty_shelf_is_filled_again(params: Path) -> None:
    names = ["emblems", *SHELVED]
    before = everything(params)
    select_studies(params, ["folder"], "images")
    select_studies(params, [*names, "folder"])
    assert values(params)["shelf"] == {}
    select_studies(params, names)
    assert set(values(params)["shelf"]) == {"folder"}
    assert everything(params) == before | {"inputs": before["inputs"] | {"folder": "images"}}


def test_a_place_that_the_file_does_not_have_is_made(params: Path) -> None:
    text = params.read_text(encoding="utf-8")
    params.write_text(text[: text.index("\nshelf:")] + "\n", encoding="utf-8")
    select_studies(params, ["emblems"])
    with pytest.raises(ValueError, match=r"known: emblems$"):
        select_studies(params, ["cub200"])


PATHS = ("images", "/data/my images", "C: odd #1", 'quo"ted', "~", "42", "ünï/code", "- x", "a: b")


@pytest.mark.parametrize("given", PATHS)
def test_the_users_folder_gets_its_path(params: Path, given: str) -> None:
    select_studies(params, ["folder"], given)
    assert load_params(params).inputs == {"folder": given}
    select_studies(params, ["folder"], "elsewhere")
    assert load_params(params).inputs == {"folder": "elsewhere"}
    select_studies(params, ["emblems"])
    assert load_params(params).inputs == {}
    assert load_params(params).shelf["folder"].input == "elsewhere"
    select_studies(params, ["folder"])
    assert load_params(params).inputs == {"folder": "elsewhere"}


# The names, the path given, and what the message says.
REFUSED: dict[str, tuple[list[str], str | None, str]] = {
    "unknown": (["cub"], None, r"^no such study: 'cub'; known: emblems, cub200_sample, cub200, "),
    "one unknown of two": (["cub200", "x"], None, r"^no such study: 'x'; known: "),
    "none": ([], None, "^no such study: none was named"),
    "a path for two": (["folder", "sop"], "x", "one study at a time"),
    "a folder without a path": (["folder"], None, r"inputs\.folder: is missing: must be the fol"),
    "a path for emblems": (["emblems"], "x", r"inputs\.emblems: emblems are rendered"),
    "a path for a download": (["sop"], "x", r"inputs\.sop: is not read with datasets\.sop\.source"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_selected_leaves_the_file_alone(params: Path, fault: str) -> None:
    names, given, message = REFUSED[fault]
    before = params.read_bytes()
    with pytest.raises(ValueError, match=message):
        select_studies(params, names, given)
    assert params.read_bytes() == before
    assert list(params.parent.iterdir()) == [params]


def rewritten(path: Path, changes: Iterable[tuple[str, str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("section", [None, "shelf", "students", "datasets"])
def test_entries_in_braces_are_refused_in_words(params: Path, section: str | None) -> None:
    """A section in braces, or the whole file: lines do not belong to one entry there."""
    raw = json.loads(json.dumps(values(params)))  # without shared parts, which would be anchors
    flow, block = YAML(typ="safe"), YAML(typ="safe")
    flow.default_flow_style, block.default_flow_style = True, False
    with params.open("w", encoding="utf-8") as file:
        if section is None:
            flow.dump(raw, file)
        else:
            block.dump({key: value for key, value in raw.items() if key != section}, file)
            flow.dump({section: raw[section]}, braced := io.StringIO())
            file.write(braced.getvalue().strip()[1:-1])
    load_params(params)
    before = params.read_bytes()
    with pytest.raises(ValueError, match="must be a block, one key a line"):
        select_studies(params, ["cub200"])
    assert params.read_bytes() == before


def test_an_anchor_that_would_come_below_its_use_is_refused(params: Path) -> None:
    text = params.read_text(encoding="utf-8")
    text = text.replace("    validation_share: 0.1 ", "    validation_share: &share 0.1 ", 1)
    text = text.replace("  confidence: 0.95", "  confidence: *share", 1)
    parse_params(text)
    params.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml"):
        select_studies(params, ["cub200"])
    assert params.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("text", ["seed: [", "just words", "datasets: 3\nstudents: {}\n"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        select_studies(path, ["emblems"])
    assert path.read_text(encoding="utf-8") == text


def test_comments_in_odd_places_go_where_their_entry_goes(params: Path) -> None:
    rewritten(
        params,
        [
            ("students:  ", "# of the students\n\n# about students\nstudents:  "),
            ("  emblems-48: ", "  # about 48\n  emblems-48: "),
            ("  emblems:  ", "  # about emblems\n  emblems:  "),
            ("\nevaluation:", "  # at the end of the students\n\n# about evaluation\nevaluation:"),
        ],
    )
    before = comments(params.read_text(encoding="utf-8"))
    select_studies(params, ["cub200_sample"])
    text = params.read_text(encoding="utf-8")
    assert comments(text) == before
    for line, following in (
        ("# about students", "students:"),
        ("      # about 48", "      emblems-48:"),
        ("  # about emblems", "  emblems:"),
        ("# about evaluation", "evaluation:"),
    ):
        assert f"\n{line}\n{following}" in text


def test_every_study_of_the_shelf_has_networks_that_can_run(params: Path) -> None:
    """Backbones and sizes; files of weights are on some machines only."""
    checked = 0
    for name in load_params(params).shelf:
        select_studies(params, [name], "images" if name == "folder" else None)
        faults = [f for f in network_faults(load_params(params)) if ".weights = '../" not in f]
        assert faults == []
        checked += 1
    assert checked == 5
