"""The graph in dvc.yaml: its code, its paths and its parameters are those of the stages."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.code_digests import code_digests
from pipeline.paths import (
    DatasetPaths,
    code_file,
    further_seeds,
    history_path,
    vectors_digest,
    weights_digest,
)
from tests.contract.dvc_yaml import DVC, ROOT, STAGES, stage_module

D, K = DatasetPaths("made"), "made-32"
TRAINED = {
    "train_teacher": D.teacher,
    "distill": D.student(K),
    "train_baseline": D.baseline(K),
}
# Of the first seed, and those of further ones.
TEACHERS, DATABASES, STUDENTS, BASELINES = (
    (path, further_seeds(path)) for path in (D.teacher, D.database, D.student(K), D.baseline(K))
)
TABLES = (history_path(D.student(K)), history_path(D.baseline(K)))
OUTPUTS = ("data/", "models/", "embeddings/", "results/", "report/")
# What each stage writes, by the library's own paths.
OUTS = {
    "code": [code_file("x").parent, weights_digest("code")],
    "hash_weights": [weights_digest("made")],
    "hash_vectors": [vectors_digest("made")],
    "inputs": [D.source, D.initial("x").parent],
    "hash_inputs": [D.given],
    "prepare": [D.pack, D.pack_summary],
    **{stage: [path, history_path(path), further_seeds(path)] for stage, path in TRAINED.items()},
    "embed_database": [D.database, D.index, further_seeds(D.database)],
    "tune": [D.tuning(K), D.tuning(K).with_suffix(".csv")],
    "evaluate_teacher": [D.cell("teacher"), D.per_query("teacher"), D.report_part("teacher")],
    "evaluate": [D.cell(K), D.calibration(K), D.per_query(K), D.report_part(K)],
    "report": [D.page, D.metrics, D.page.with_name("accuracy.csv")],
}
# What each stage reads of other stages' outputs.
DATA = {
    "code": [],
    "hash_weights": [],
    "hash_vectors": [],
    "inputs": [weights_digest("x").parent],
    "hash_inputs": [D.source],
    "prepare": [D.source.parent],
    "train_teacher": [D.pack, D.initial("teacher")],
    "embed_database": [D.pack, *TEACHERS, D.initial("database")],
    "tune": [D.pack, D.teacher, D.initial(K)],
    "distill": [D.pack, *TEACHERS, D.initial(K), D.tuning(K)],
    "train_baseline": [D.pack, D.initial(K), D.tuning(K)],
    "evaluate_teacher": [D.pack, D.pack_summary, *TEACHERS, history_path(D.teacher), *DATABASES],
    "evaluate": [D.pack, *TEACHERS, *DATABASES, *STUDENTS, *BASELINES, *TABLES, D.tuning(K)],
    "report": [D.report_part("x").parent, D.cell("x").parent],
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
    code = ("data/code/", "data/weights/code")
    return [dep for dep in deps if dep.startswith(OUTPUTS) and not dep.startswith(code)]


def test_the_stages_are_those_described_here() -> None:
    assert STAGES.keys() == OUTS.keys() == DATA.keys()
    assert len(STAGES) >= 10


def test_each_stage_depends_on_the_digest_of_its_code_and_on_no_code_besides() -> None:
    for stage in STAGES.keys() - {"code"}:
        script = stage_module(stage).partition(".")[2]
        others = [
            dep for dep in STAGES[stage]["deps"] if not resolved(dep, stage).startswith(OUTPUTS)
        ]
        code = weights_digest("code") if script == "hash_weights" else code_file(script)
        assert code.as_posix() in STAGES[stage]["deps"]
        assert others == (["${item}"] if script.startswith("hash_") else [])
    assert STAGES["code"]["deps"] == ["pipeline", "stages"]


def test_the_graph_fits_on_a_few_screens() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 200


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
            is_within = not made.isdisjoint(map(str, Path(dep).parents))
            assert is_within or dep in made | parents, f"{stage}: no stage writes {dep}"
            checked += 1
    assert checked >= 15


def test_nothing_is_written_twice() -> None:
    made = [path for stage in STAGES for path in written(stage)]
    assert len(made) == len(set(made)) > 20


def test_an_edit_of_a_loss_reruns_the_stages_that_use_it_and_no_others() -> None:
    code = {stage: code_digests(stage_module(stage)) for stage in STAGES}
    readers = {
        name: {stage for stage in STAGES if name in code[stage]}
        for name in (
            "pipeline/training/losses.py",
            "pipeline/training/triplet.py",
            "pipeline/evaluation/cost.py",
            "pipeline/evaluation/examples.py",
            "pipeline/report/figure.py",
            "pipeline/search/page/service.py",
            "pipeline/cli/__main__.py",
            "pipeline/tracking/runs.py",
            "pipeline/flows/study.py",
            "pipeline/progress.py",
            "pipeline/config/recipes.py",
        )
    }
    evaluations = {"evaluate_teacher", "evaluate"}
    nobody: set[str] = set()
    assert list(readers.values()) == [
        {"distill", "tune"},
        {"train_teacher", "train_baseline", "tune"},
        *(evaluations, evaluations),
        {"report"},
        *[nobody] * 6,
    ]
    assert all((ROOT / name).exists() for name in readers)


def test_every_stage_module_is_in_the_graph_and_runs_one_stage() -> None:
    modules = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    used = {stage_module(stage).partition(".")[2] for stage in STAGES}
    assert used == modules
    for name in modules:
        text = (ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8")
        assert len(re.findall(r"run_stage\((\w+)\)", text)) == 1
