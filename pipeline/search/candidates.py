"""The students of a data set that may challenge its champions, and whether they can be judged."""

from pathlib import Path

import pandas as pd

from pipeline.config.params import Params
from pipeline.evaluation.accuracy import VALIDATION
from pipeline.files import file_md5
from pipeline.models.weights import read_card
from pipeline.paths import DatasetPaths, history_path, locked_dependencies, locked_outputs


def query_sizes(params: Params, name: str) -> list[int]:
    """The query resolutions of a data set, the largest first."""
    sizes = {one.query_px for one in params.students.values() if one.dataset == name}
    return sorted(sizes, reverse=True)


def trained_students(params: Params, name: str, query_px: int | None = None) -> list[str]:
    """The students of a data set, or of one size of it, whose networks are there."""
    return [
        key
        for key, one in params.students.items()
        if one.dataset == name
        and query_px in (None, one.query_px)
        and DatasetPaths(name).student(key).exists()
    ]


def find_fault(params: Params, name: str) -> str:
    """Why the students that are there cannot be judged on the files that are there.

    Empty where they can: each file is what dvc.lock records, and students and database are of this
    teacher.
    """
    paths = DatasetPaths(name)
    students = {f"distill@{key}": paths.student(key) for key in trained_students(params, name)}
    embedding = f"embed_database@{name}"
    files = {f"prepare@{name}": paths.pack, f"train_teacher@{name}": paths.teacher}
    locked, seen = locked_outputs(), locked_dependencies()
    md5 = {}
    for stage, path in (files | {embedding: paths.database} | students).items():
        md5[path] = locked.get(stage, {}).get(str(path))
        if not path.exists() or file_md5(path) != md5[path]:
            return f"{path}: is not the file that dvc.lock records for {stage}"
    needs = [(stage, paths.teacher) for stage in (embedding, *students)]
    for stage, path in [*needs, (embedding, paths.pack)]:
        if seen.get(stage, {}).get(str(path)) != md5[path]:
            return f"{path}: is newer than the result of {stage}"
    return ""


def choose_candidate(
    params: Params, name: str, query_px: int, backbone: str | None, *, across_backbones: bool
) -> tuple[str | None, tuple[str, ...]]:
    """The student that stands for a query resolution: the best by validation map, or overlap, of
    its last epoch, never by a test query; without validation the first of params.yaml.

    backbone: the champion's, whose kind alone competes unless `across_backbones`; None where there
    is no champion: the kind of the first student of params.yaml. The others are the second value.
    """
    paths = DatasetPaths(name)
    students = trained_students(params, name, query_px)
    backbones = {key: read_card(paths.student(key)).backbone for key in students}
    if backbone is None:
        backbone = next(iter(backbones.values()), None)
    scores = {
        key: _validation_score(history_path(paths.student(key)))
        for key, own in backbones.items()
        if across_backbones or own == backbone
    }
    others = tuple(key for key in backbones if key not in scores)
    return max(scores, key=scores.__getitem__, default=None), others


def _validation_score(history: Path) -> float:
    table = pd.read_csv(history) if history.exists() else pd.DataFrame()
    scores = table.get(VALIDATION, pd.Series([-1.0]))
    return float(scores.fillna(-1.0).iloc[-1])
