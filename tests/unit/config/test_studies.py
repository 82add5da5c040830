"""Studies are selected from presets; edits come back, and one value changes one line."""

import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from pipeline.config.params import ConfigurationError, load_params, parse_params
from pipeline.config.studies import (
    preset_names,
    preset_text,
    select_studies,
    set_values,
    with_inactive,
)
from pipeline.models.requirements import network_faults
from tests.made_params import PARAMS

NAMES = ["cars196", "cub200", "cub200_sample", "emblems", "folder", "images"]
NAMES += ["resolution_or_architecture", "sop", "tournament"]
GIVEN = {
    "folder": {"inputs.folder": "images"},
    "images": {"inputs.images": "images"},
    "cub200_sample": {"inputs.cub200_sample": "a.tgz"},
    "resolution_or_architecture": {
        "inputs.resolution_or_architecture": "a.tgz",
        "weights.mobilenet_v2-256": "a.safetensors",
    },
}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(preset_text("emblems"), encoding="utf-8")
    return path


def saved(params: Path) -> list[str]:
    return sorted(path.name for path in (params.parent / "studies").glob("*"))


def changed_lines(before: str, after: str) -> list[str]:
    found = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in found if line[0] in "+-"]


def test_the_presets_are_these_and_the_default_is_the_projects() -> None:
    assert preset_names() == NAMES
    assert PARAMS.read_text(encoding="utf-8") == preset_text("emblems")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_whole_study_without_anchors_or_paths_outside(name: str) -> None:
    text = set_values(preset_text(name), GIVEN.get(name, {}))
    read = parse_params(text)
    assert list(read.datasets) == [name]
    assert {student.dataset for student in read.students.values()} == {name}
    assert not re.search(r"[&*]\w|\.\./|: /", re.sub(r"#.*", "", text))
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_dvcs_writer_leaves_a_preset_as_it_is(name: str) -> None:
    yaml = YAML()
    yaml.default_flow_style = False  # as dvc.utils.serialize does
    yaml.dump(yaml.load(preset_text(name)), stream := io.StringIO())
    assert stream.getvalue() == preset_text(name)


def keys_of(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            yield from keys_of(entry, f"{above}{key}.")
        elif key != "inputs":
            yield f"{above}{key}", entry


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 + 1
        case list():
            return [other(entry) for entry in value]
        case None:
            return 7
        case _:
            return f"{value}x"


@pytest.mark.parametrize("name", NAMES)
def test_dvc_sets_every_key_of_a_preset_and_only_its_own_lines_differ(
    params: Path, name: str
) -> None:
    """By the code of `dvc exp run -S`, which replaces every list of the file by a plain one."""
    text = preset_text(name)
    settings = {key: other(value) for key, value in keys_of(YAML(typ="safe").load(text))}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    for key, override in zip(settings, overrides, strict=True):
        params.write_text(text, encoding="utf-8")
        apply_overrides(str(params), [override])
        after = params.read_text(encoding="utf-8")
        changed = changed_lines(text, after)
        if isinstance(settings[key], list):
            assert all(re.match(r"[+-] +- \d", line) for line in changed), key
        else:
            assert len(changed) == 2, key
        place = YAML(typ="safe").load(after)
        for step in key.split("."):
            place = place[step]
        assert place == settings[key]
    assert len(settings) > 40
    params.write_text(text, encoding="utf-8")
    apply_overrides(str(params), overrides)
    assert set_values(text, settings) == params.read_text(encoding="utf-8")


def test_null_takes_a_list_and_a_list_null(params: Path) -> None:
    key, lines = "datasets.emblems.network.mean", params.read_text(encoding="utf-8")
    apply_overrides(str(params), [f"{key}=[0.5,0.4,0.3]"])
    added = changed_lines(lines, params.read_text(encoding="utf-8"))
    assert added == [f"+       - {value}" for value in (0.5, 0.4, 0.3)]
    apply_overrides(str(params), [f"{key}=null"])
    assert params.read_text(encoding="utf-8") == lines


@pytest.mark.parametrize("name", [name for name in NAMES if name != "emblems"])
def test_there_and_back_gives_the_same_bytes(params: Path, name: str) -> None:
    assert select_studies(params, [name], GIVEN.get(name)) == ([name], ["emblems"])
    assert list(load_params(params).datasets) == [name]
    assert select_studies(params, ["emblems"]) == (["emblems"], [name])
    assert params.read_text(encoding="utf-8") == preset_text("emblems")
    assert saved(params) == ([f"{name}.yaml"] if name in GIVEN else [])


def test_an_edited_study_comes_back_with_its_comments(params: Path) -> None:
    edited = preset_text("emblems").replace(
        "  emblems-40: {",
        "  # about 40\n  emblems-32: {dataset: emblems, query_px: 32}\n  emblems-40: {",
    )
    params.write_text(edited, encoding="utf-8")
    select_studies(params, ["cub200"])
    assert saved(params) == ["emblems.yaml"]
    select_studies(params, ["emblems"])
    assert params.read_text(encoding="utf-8") == edited
    select_studies(params, ["emblems"], original=True)
    assert params.read_text(encoding="utf-8") == preset_text("emblems")


def test_the_original_in_place_of_an_edited_study_keeps_the_edits(params: Path) -> None:
    edited = preset_text("emblems").replace("\n- 0\n", "\n- 1\n", 1)
    params.write_text(edited, encoding="utf-8")
    assert select_studies(params, ["emblems"], original=True) == ([], [])
    assert params.read_text(encoding="utf-8") == preset_text("emblems")
    assert (params.parent / "studies/emblems.yaml").read_text(encoding="utf-8") == edited


def test_what_is_active_already_changes_nothing(params: Path) -> None:
    before = params.stat()
    assert select_studies(params, ["emblems"]) == ([], [])
    after = params.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_several_studies_side_by_side(params: Path) -> None:
    assert select_studies(params, ["cub200", "emblems", "cub200"]) == (["cub200"], [])
    read = load_params(params)
    assert list(read.datasets) == ["cub200", "emblems"]
    assert {one.dataset for one in read.students.values()} == {"cub200", "emblems"}
    assert select_studies(params, ["sop"]) == (["sop"], ["cub200", "emblems"])
    assert saved(params) == []
    select_studies(params, ["emblems"])
    assert params.read_text(encoding="utf-8") == preset_text("emblems")


def test_a_study_of_ones_own_is_known_while_it_is_away(params: Path) -> None:
    own = preset_text("emblems").replace("emblems:", "mine:").replace("emblems-", "mine-")
    params.write_text(own.replace("dataset: emblems", "dataset: mine"), encoding="utf-8")
    select_studies(params, ["emblems"])
    with pytest.raises(ValueError, match=r"known: emblems, mine, cars196"):
        select_studies(params, ["other"])
    assert select_studies(params, ["mine"]) == (["mine"], ["emblems"])


@pytest.mark.parametrize(
    ("name", "trained"), [("folder", ["teacher", "distillation"]), ("images", ["distillation"])]
)
def test_epochs_are_those_of_the_networks_that_are_trained(
    params: Path, name: str, trained: list[str]
) -> None:
    select_studies(params, [name], GIVEN[name], epochs=7)
    dataset = load_params(params).datasets[name].model_dump()
    own = ("teacher", "distillation")
    assert [key for key in own if "optimisation" in dataset[key]] == trained
    assert {dataset[key]["optimisation"]["epochs"] for key in trained} == {7}


PATHS = ("images", "/data/my images", "C: odd #1", 'quo"ted', "~", "42", "ünï/code", "- x", "a: b")


@pytest.mark.parametrize("given", PATHS)
def test_the_users_folder_gets_its_path(params: Path, given: str) -> None:
    select_studies(params, ["folder"], {"inputs.folder": given})
    assert load_params(params).inputs == {"folder": given}
    select_studies(params, ["folder"], {"inputs.folder": "elsewhere"})
    assert load_params(params).inputs == {"folder": "elsewhere"}
    select_studies(params, ["emblems"])
    assert load_params(params).inputs == {}
    select_studies(params, ["folder"])
    assert load_params(params).inputs == {"folder": "elsewhere"}


# The names, the settings, and what the message says.
REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "unknown": (["cub"], {}, r"^no such study: 'cub'; known: emblems, cars196, cub200, "),
    "one unknown of two": (["cub200", "x"], {}, r"^no such study: 'x'; known: "),
    "none": ([], {}, "^no such study: none was named"),
    "a folder without a path": (["folder"], {}, r"inputs\.folder: is missing: must be the fol"),
    "a path for emblems": (["emblems"], {"inputs.emblems": "x"}, "emblems are rendered"),
    "a path for a download": (["sop"], {"inputs.sop": "x"}, r"inputs\.sop: is not read with"),
    "a key that is not there": (["sop"], {"seed": 1}, "^seed: there is no such key"),
    "a key below a value": (["sop"], {"seeds.x": 1}, r"^seeds\.x: there is no such key"),
    "a wrong value": (["sop"], {"seeds": [-1]}, r"seeds\.0 = -1: input should be"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_selected_leaves_the_file_alone(params: Path, fault: str) -> None:
    names, settings, message = REFUSED[fault]
    before = params.read_bytes()
    with pytest.raises(ValueError, match=message):
        select_studies(params, names, settings)
    assert params.read_bytes() == before
    assert list(params.parent.iterdir()) == [params]


@pytest.mark.parametrize("section", ["students", "datasets"])
def test_entries_in_braces_are_refused_in_words(params: Path, section: str) -> None:
    raw = YAML(typ="safe").load(params.read_text(encoding="utf-8"))
    flow, block = YAML(typ="safe"), YAML(typ="safe")
    flow.default_flow_style, block.default_flow_style = True, False
    with params.open("w", encoding="utf-8") as file:
        block.dump({key: value for key, value in raw.items() if key != section}, file)
        flow.dump({section: raw[section]}, braced := io.StringIO())
        file.write(braced.getvalue().strip()[1:-1])
    load_params(params)
    before = params.read_bytes()
    with pytest.raises(ValueError, match="must be a block, one key a line"):
        select_studies(params, ["emblems", "cub200"])
    assert params.read_bytes() == before


@pytest.mark.parametrize("text", ["seed: [", "just words", "datasets: 3\nstudents: {}\n"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        select_studies(path, ["emblems"])
    assert path.read_text(encoding="utf-8") == text


def test_comments_in_odd_places_go_where_their_entry_goes(params: Path) -> None:
    edited = preset_text("emblems")
    for old, new in (
        ("students:  ", "# of the students\n\n# about students\nstudents:  "),
        ("  emblems-48: ", "  # about 48\n  emblems-48: "),
        ("\nevaluation:", "\n# about evaluation\nevaluation:"),
    ):
        assert edited.count(old) == 1
        edited = edited.replace(old, new)
    params.write_text(edited, encoding="utf-8")
    select_studies(params, ["emblems", "sop"])
    text = params.read_text(encoding="utf-8")
    for line, following in (
        ("# about students", "students:"),
        ("  # about 48", "  emblems-48:"),
        ("# about evaluation", "evaluation:"),
    ):
        assert f"\n{line}\n{following}" in text
    select_studies(params, ["emblems"])
    assert params.read_text(encoding="utf-8") == edited


@pytest.mark.parametrize("first", ["---\n", "%YAML 1.2\n---\n", "     # far in\n", "\ufeff"])
def test_what_stands_before_the_first_key_and_after_the_last_one_stays(
    params: Path, first: str
) -> None:
    edited = f"{first}{preset_text('emblems')}# tried: 0.3\n"
    params.write_text(edited, encoding="utf-8")
    select_studies(params, ["cub200"])
    select_studies(params, ["emblems"])
    assert params.read_text(encoding="utf-8") == edited


@pytest.mark.parametrize("names", [["cub200", "emblems"], ["emblems", "cub200"]])
def test_what_is_no_studys_stays_where_a_study_comes_beside_an_active_one(
    params: Path, names: list[str]
) -> None:
    select_studies(params, ["emblems"], {"seeds": [7, 8], "evaluation.confidence": 0.9})
    select_studies(params, names)
    read = load_params(params)
    assert list(read.datasets) == names
    assert (read.seeds, read.evaluation.confidence) == ((7, 8), 0.9)
    select_studies(params, names[::-1], original=True)
    assert load_params(params).seeds == (0,)


@pytest.mark.parametrize(
    ("section", "entry", "told"),
    [
        ("students", "odd:", "students.odd: of no data set there"),
        ("students", "odd: {datset: emblems, query_px: 32}", "students.odd: of no data set there"),
        ("students", "odd: 7", "students.odd: must hold keys and values"),
        ("inputs", "odd: images", "inputs.odd: of no data set there"),
    ],
)
def test_an_entry_that_no_study_would_take_along_is_not_lost(
    params: Path, section: str, entry: str, told: str
) -> None:
    text = re.sub(
        rf"^({section}:)( {{}})?", rf"\1\n  {entry}\n", preset_text("emblems"), flags=re.M
    )
    params.write_text(text, encoding="utf-8")
    for names in (["cub200"], ["emblems", "cub200"]):
        with pytest.raises(ValueError, match=re.escape(told)):
            select_studies(params, names)
    assert params.read_text(encoding="utf-8") == text
    assert saved(params) == []


def test_epochs_of_a_faulty_file_are_refused_in_words(params: Path) -> None:
    text = preset_text("emblems").replace("    distillation:", "    distilation:")
    params.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"emblems\.distillation: is missing"):
        select_studies(params, ["emblems"], epochs=2)


@pytest.mark.parametrize("text", ["datasets: [\n", "px: -1"])
def test_a_fault_of_a_saved_study_names_its_file(params: Path, text: str) -> None:
    kept = params.parent / "studies" / "cub200.yaml"
    kept.parent.mkdir()
    wrong = preset_text("cub200").replace("teacher_px: 448", "teacher_px: -1")
    kept.write_text(wrong if text == "px: -1" else text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"studies/cub200\.yaml: 1 fault"):
        select_studies(params, ["cub200"])
    assert params.read_text(encoding="utf-8") == preset_text("emblems")
    assert select_studies(params, ["cub200"], original=True) == (["cub200"], ["emblems"])


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_has_networks_that_can_run(params: Path, name: str) -> None:
    select_studies(params, [name], GIVEN.get(name))
    faults = network_faults(load_params(params))
    given = [key for key in GIVEN.get(name, {}) if key.startswith("weights.")]
    assert len(faults) == len(given)
    assert all("a.safetensors: there is no such file" in fault for fault in faults)


def test_inactive_studies_are_known_as_long_as_their_networks_are_there(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(params.parent)
    active = load_params(params)
    assert with_inactive(active) == active
    for name in ("sop", "emblems", "nobodys"):
        Path("models", name).mkdir(parents=True)
        Path("models", name, "teacher.safetensors").touch()
    known = with_inactive(active)
    assert list(known.datasets) == ["emblems", "sop"]
    assert known.cells_of("emblems") == active.cells_of("emblems")
    assert known.cells_of("sop") == parse_params(preset_text("sop")).cells_of("sop")
    assert known.seeds == active.seeds
    Path("studies").mkdir()
    Path("studies/sop.yaml").write_text(preset_text("sop").replace("teacher_px: ", "teacher_pix: "))
    with pytest.raises(ConfigurationError, match=r"studies/sop\.yaml: 2 faults"):
        with_inactive(active)
    Path("studies/sop.yaml").write_text(preset_text("cub200"))
    with pytest.raises(ValueError, match=r"studies/sop\.yaml: holds no data set sop"):
        with_inactive(active)
