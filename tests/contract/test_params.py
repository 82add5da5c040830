"""params.yaml and the graph: every value is declared, explained, and read by some stage."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import Params, load_params
from tests.contract.dvc_yaml import DVC, STAGES
from tests.made_params import PARAMS

TEXT = PARAMS.read_text(encoding="utf-8")
RAW: dict[str, Any] = YAML(typ="safe").load(TEXT)
# `inputs` and `report` read the whole file, so they prove nothing.
READ_ALL = ("inputs", "report")
# Paths of `inputs` are dependencies, and `tracking` and `licences` change no result.
NOT_READ = ("inputs", "tracking", "licences")


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, (*path, str(key)))
    else:
        yield path


def declared(stage: str, definition: dict[str, Any]) -> set[tuple[str, ...]]:
    """The parameters of all instances of a stage, as paths."""
    entry = DVC["stages"][stage]
    source = str(entry.get("foreach", "")).strip("${}")
    instances: dict[str, Any] = RAW[source] if source else {"": None}
    found = set()
    for key, item in instances.items():
        for parameter in definition.get("params", []):
            text = str(parameter).replace("${key}", str(key))
            if "${item.dataset}" in text:
                text = text.replace("${item.dataset}", item["dataset"])
            assert "${" not in text
            found.add(tuple(text.split(".")))
    return found


READ = {
    stage: declared(stage, definition)
    for stage, definition in STAGES.items()
    if stage not in READ_ALL
}


def covers(parameter: tuple[str, ...], leaf: tuple[str, ...]) -> bool:
    return leaf[: len(parameter)] == parameter


def test_every_value_is_read_by_a_stage() -> None:
    every = {parameter for parameters in READ.values() for parameter in parameters}
    found = [leaf for leaf in leaves(RAW) if not {leaf[0], *leaf[2:3]} & {*NOT_READ}]
    assert len(found) > 50
    unread = [leaf for leaf in found if not any(covers(p, leaf) for p in every)]
    assert unread == []


def test_every_declared_parameter_exists() -> None:
    known, checked = list(leaves(RAW)), 0
    for parameters in READ.values():
        for parameter in parameters:
            assert any(covers(parameter, leaf) for leaf in known), parameter
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("leaf", "stages"),
    [
        ("students.emblems-64.query_px", {"tune", "distill", "train_baseline"}),
        ("datasets.emblems.distillation.loss.student_temperature", {"tune", "distill"}),
        ("tuning.trials", {"tune"}),
        ("datasets.emblems.teacher.loss.margin", {"train_teacher", "tune", "train_baseline"}),
        ("evaluation.bootstrap_samples", {"evaluate", "evaluate_teacher"}),
        ("datasets.emblems.recall_at", {"evaluate", "evaluate_teacher"}),
    ],
)
def test_a_change_reaches_the_stages_that_read_it_and_no_others(
    leaf: str, stages: set[str]
) -> None:
    path = tuple(leaf.split("."))
    assert path in set(leaves(RAW))
    readers = {
        stage for stage, parameters in READ.items() if any(covers(p, path) for p in parameters)
    }
    assert readers == stages


def test_every_value_is_declared_in_the_models() -> None:
    """What the models hold is what the file holds: no default fills in for an absent value."""
    params = load_params(PARAMS)
    assert isinstance(params, Params)
    held = params.model_dump(mode="json", exclude_unset=True)
    assert set(leaves(held)) == set(leaves(RAW))
    required = {name for name, field in Params.model_fields.items() if field.is_required()}
    assert required <= RAW.keys()


def valued_lines() -> Iterator[tuple[str, str, bool]]:
    """Each line that gives a value: its section at the top, its text, and whether it is explained.

    An entry written in one line, as of `students`, is explained once, at its section.
    """
    top, section_is_explained = "", False
    for line in TEXT.splitlines():
        code, _, comment = line.partition("#")
        match = re.fullmatch(r"(\s*)([\w-]+):(.*)", code.rstrip())
        if match is None:
            continue
        indent, key, value = match.group(1), match.group(2), match.group(3).strip()
        top = top if indent else key
        if not value:
            section_is_explained = bool(comment.strip())
        else:
            entry = value.startswith("{") and len(value) > 2
            explained = bool(comment.strip()) or (entry and section_is_explained)
            yield top, code.strip(), explained


def test_every_value_has_a_comment() -> None:
    lines = list(valued_lines())
    assert len(lines) > 50
    assert [code for _, code, explained in lines if not explained] == []
