"""Runs in the record: each parameter that dvc.yaml names for a stage shapes their fingerprint."""

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from copy import deepcopy
from functools import reduce
from operator import getitem
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline.config.params import Params
from pipeline.evaluation import recording
from pipeline.evaluation.setups import Cell
from pipeline.tracking.audit import RECORDED
from pipeline.training import trainings, tuning
from pipeline.training.job import TrainingJob
from tests.contract.dvc_yaml import STAGES
from tests.made_params import PARAMS

NAME, KEY = "emblems", "made-48"
RAW: dict[str, Any] = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
RAW["students"] = {KEY: {"dataset": NAME, "query_px": 48}}
MAIN: Any = SimpleNamespace(group=SimpleNamespace(is_main=True))
# What a text can be in place of what it is.
CHOICES = {
    "backbone": ["timm/other"],
    "batch_norm": ["live", "frozen"],
    "mixup_partner": ["batch", "dataset"],
    "negative_pool": ["batch", "dataset"],
    "pooling": ["gem", "native"],
    "precision": ["bfloat16"],
    "offset": ["learned", "fitted"],
    "projection": ["random", "fitted"],
    "view_pairs": ["independent", "coupled"],
    "weights": ["pretrained", "random"],
}


def trains(role: Any, key: str) -> Callable[[Params], None]:
    def begin(params: Params) -> None:
        job = TrainingJob(params, role, key, params.seeds[0])
        trainings.run_training(job, MAIN, MAIN)

    return begin


def evaluates(student: str | None) -> Callable[[Params], None]:
    def begin(params: Params) -> None:
        cell = Cell(params, NAME, student, MAIN, MAIN)
        measured: list[Any] = [SimpleNamespace(facts={}) for _ in cell.seeds]
        recording.record_rows(cell, student or NAME, {}, measured)

    return begin


# The stages that record runs, each as it begins one.
RUNS: dict[str, Callable[[Params], None]] = {
    "train_teacher": trains("teacher", NAME),
    "tune": lambda params: tuning.tune_student(params, KEY),
    "distill": trains("student", KEY),
    "train_baseline": trains("baseline", KEY),
    "evaluate_teacher": evaluates(None),
    "evaluate": evaluates(KEY),
}


class AskedError(Exception):
    """The question for a fingerprint: the values that it is made of."""


def ask(values: Any, _: object) -> None:
    raise AskedError(json.dumps(values, sort_keys=True, default=str))


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (trainings, tuning, recording):
        monkeypatch.setattr(module, "fingerprint", ask)
    monkeypatch.setattr(trainings, "begun_network", lambda *_: (MAIN, MAIN))
    monkeypatch.setattr(tuning, "training_data", lambda _: nullcontext(MAIN))


def shape(stage: str, raw: dict[str, Any]) -> str:
    with pytest.raises(AskedError) as asked:
        RUNS[stage](Params.model_validate(raw))
    return str(asked.value)


def declared(stage: str) -> list[list[str]]:
    texts = [str(one).replace("${item.dataset}", NAME) for one in STAGES[stage]["params"]]
    own = NAME if stage in ("train_teacher", "evaluate_teacher") else KEY
    return [text.replace("${key}", own).split(".") for text in texts]


def value_of(place: list[str], raw: dict[str, Any] = RAW) -> Any:
    return reduce(getitem, place, raw)


def leaves(place: list[str]) -> list[list[str]]:
    """The values below a key; what another kind or data set has other values beside is none."""
    value = value_of(place)
    if not isinstance(value, dict):
        return [place]
    inner = [key for key in value if key not in ("kind", "dataset")]
    return [leaf for key in inner for leaf in leaves([*place, key])]


def others(name: str, value: Any) -> list[Any]:
    """What a value could be in place of what it is; some of it may not be allowed."""
    match value:
        case bool():
            return [not value]
        case None:
            return [64, [0.5, 0.5, 0.5]]
        case list():
            return [[one, *value[1:]] for one in others(name, value[0])]
        case str():
            return CHOICES[name]
    return [value * 2, value / 2, value + 1, 0.5]


def changed(leaf: list[str]) -> dict[str, Any]:
    """The file with another value of a leaf, one that is allowed."""
    *parents, name = leaf
    for other in others(name, value_of(leaf)):
        raw = deepcopy(RAW)
        value_of(parents, raw)[name] = other
        with suppress(ValidationError):
            if Params.model_validate(raw) != Params.model_validate(RAW):
                return raw
    raise AssertionError(f"{leaf}: no other value is allowed")


def test_the_stages_asked_here_are_those_whose_results_are_of_runs() -> None:
    assert RUNS.keys() == {
        stage
        for stage, definition in STAGES.items()
        if any(RECORDED.fullmatch(str(out)) for out in definition["outs"])
    }


@pytest.mark.parametrize("stage", RUNS)
def test_another_value_is_another_run(stage: str) -> None:
    before = shape(stage, RAW)
    found = [leaf for place in declared(stage) for leaf in leaves(place)]
    same = [".".join(leaf) for leaf in found if shape(stage, changed(leaf)) == before]
    assert same == []
    assert len(found) >= 6
