"""The graph in dvc.yaml: its code, its paths and its parameters are those of the stages."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.paths import DatasetPaths, history_path
from tests.contract.stage_code import (
    CODE,
    DATA_SUFFIXES,
    ROOT,
    code_of,
    imported_modules,
    stage_definitions,
    stage_module,
)

DVC: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = stage_definitions(DVC)
D, K = DatasetPaths("made"), "made-32"
TRAINED = {
    "train_teacher": D.teacher,
    "distill": D.student(K),
    "train_baseline": D.baseline(K),
}
# What each stage writes, by the library's own paths.
OUTS = {
    "inputs": [D.source],
    "hash_inputs": [D.given],
    "prepare": [D.pack, D.pack_summary],
    **{stage: [path, history_path(path)] for stage, path in TRAINED.items()},
    "embed_database": [D.database, D.index],
    "evaluate_teacher": [D.cell("teacher"), D.per_query("teacher"), D.report_part("teacher")],
    "evaluate": [D.cell(K), D.per_query(K), D.report_part(K)],
    "report": [Path("report", name) for name in ("index.html", "metrics.json", "accuracy.csv")],
}
# What each stage reads of other stages' outputs.
DATA = {
    "inputs": [],
    "hash_inputs": [D.source],
    "prepare": [D.source.parent],
    "train_teacher": [D.pack],
    "embed_database": [D.pack, D.teacher],
    "distill": [D.pack, D.teacher],
    "train_baseline": [D.pack],
    "evaluate_teacher": [D.pack, D.pack_summary, D.teacher, D.database],
    "evaluate": [D.pack, D.teacher, D.student(K), D.baseline(K), D.database],
    "report": [D.report_part("x").parents[1]],
}


def resolved(entry: str | dict[str, Any], stage: str) -> str:
    """A path of dvc.yaml for the data set `made` and its student `made-32`."""
    path = entry if isinstance(entry, str) else next(iter(entry))
    each_student = DVC["stages"][stage].get("foreach") == "${students}"
    path = path.replace("${item.dataset}", "made")
    return path.replace("${key}", K if each_student else "made")


def written(stage: str) -> list[str]:
    entries = [e for kind in ("outs", "metrics", "plots") for e in STAGES[stage].get(kind, [])]
    return [resolved(entry, stage) for entry in entries]


def data_deps(stage: str) -> list[str]:
    deps = [resolved(dep, stage) for dep in STAGES[stage]["deps"]]
    return [dep for dep in deps if not dep.startswith(CODE) and "${" not in dep]


def test_the_stages_are_those_described_here() -> None:
    assert STAGES.keys() == OUTS.keys() == DATA.keys()
    assert len(STAGES) >= 10


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_the_stage_can_import(stage: str) -> None:
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE)]
    assert len(deps) == len(set(deps))
    expected = code_of(stage_module(STAGES[stage]))
    assert set(deps) == expected, "run `make deps`"
    assert f"stages/{stage_module(STAGES[stage]).partition('.')[2]}.py" in expected
    assert all((ROOT / dep).is_file() for dep in deps)


@pytest.mark.parametrize("stage", STAGES)
def test_paths_are_those_of_the_library(stage: str) -> None:
    assert sorted(written(stage)) == sorted(path.as_posix() for path in OUTS[stage])
    assert sorted(data_deps(stage)) == sorted(path.as_posix() for path in DATA[stage])


def test_every_dependency_on_data_is_written_by_a_stage() -> None:
    made = {path for stage in STAGES for path in written(stage)}
    parents = {parent.as_posix() for path in made for parent in Path(path).parents}
    checked = 0
    for stage in STAGES:
        for dep in data_deps(stage):
            assert dep in made | parents, f"{stage} reads {dep}, which no stage writes"
            checked += 1
    assert checked >= 15


def test_nothing_is_written_twice() -> None:
    made = [path for stage in STAGES for path in written(stage)]
    assert len(made) == len(set(made)) > 20


def test_an_edit_of_a_loss_reruns_the_stages_that_use_it_and_no_others() -> None:
    readers = {
        name: {stage for stage in STAGES if name in STAGES[stage]["deps"]}
        for name in (
            "pipeline/training/losses.py",
            "pipeline/training/triplet.py",
            "pipeline/evaluation/cost.py",
            "pipeline/evaluation/examples.py",
            "pipeline/report/figure.py",
        )
    }
    assert readers == {
        "pipeline/training/losses.py": {"distill"},
        "pipeline/training/triplet.py": {"train_teacher", "train_baseline"},
        "pipeline/evaluation/cost.py": {"evaluate_teacher", "evaluate"},
        "pipeline/evaluation/examples.py": {"evaluate_teacher", "evaluate"},
        "pipeline/report/figure.py": {"report"},
    }


def test_no_stage_hangs_on_the_orchestration() -> None:
    for stage in STAGES:
        assert not any(dep.startswith("pipeline/flows") for dep in STAGES[stage]["deps"])


def test_the_walk_follows_imports_inside_functions_and_of_packages() -> None:
    assert "pipeline/search/index.py" in code_of("stages.embed_database")
    assert "pipeline/models/__init__.py" in code_of("stages.distill")
    assert "pipeline/training/losses.py" not in code_of("stages.train_teacher")
    assert "pipeline.config.params" in imported_modules(Path("pipeline/cli/__main__.py"))


def test_templates_and_what_they_name_are_code_too() -> None:
    names = ("report.html.j2", "report.css", "report.js", "figure.j2", "figure.css")
    page = {f"pipeline/report/{name}" for name in (*names, "tradeoff.svg.j2")}
    assert page <= code_of("stages.report")
    assert page <= set(STAGES["report"]["deps"])
    assert not page & code_of("stages.evaluate")
    beside = [path for path in (ROOT / "pipeline/report").iterdir() if path.suffix in DATA_SUFFIXES]
    assert {path.relative_to(ROOT).as_posix() for path in beside} == page


def test_every_stage_module_is_in_the_graph_and_runs_one_stage() -> None:
    modules = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    used = {stage_module(definition).partition(".")[2] for definition in STAGES.values()}
    assert used == modules
    for name in modules:
        text = (ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8")
        assert len(re.findall(r"run_stage\((\w+)\)", text)) == 1
