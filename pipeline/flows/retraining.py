"""Retraining one data set: new images noticed, students retrained, champions defended.

The teacher and the labelled baselines stay as they are, also where the pack has changed under
them: their stages are left out, so that dvc.lock goes on naming the pack they were trained on, and
`l2s status` and `dvc status` call them stale. That is the honest state, and `l2s study` or
`--with-teacher` brings them up to date.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.sources import CsvSource, FolderSource
from pipeline.files import write_json
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.stage_runs import Outcome
from pipeline.paths import WORK, DatasetPaths, teacher_origin

KEPT = ("train_teacher", "train_baseline")  # stages that a retraining of students leaves alone
NOTICING = ("check", "download", "survey")


@dataclass(frozen=True)
class Request:
    """What was asked for. `tolerance_points` are points of map; `across_backbones`: a student may
    replace a champion of another backbone.
    """

    dataset: str | None = None
    with_teacher: bool = False
    tolerance_points: float = 0.5
    force: bool = False
    across_backbones: bool = False


@dataclass(frozen=True)
class ImageChanges:
    """How many images are new, have another content or place, or are gone."""

    added: int
    changed: int
    removed: int

    def __str__(self) -> str:
        return f"{self.added} new images, {self.changed} changed, {self.removed} gone"


@dataclass
class Retraining:
    """What a retraining of one data set came to. `word` says why stages ran, or did not."""

    dataset: str
    word: str
    changes: ImageChanges | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        return not self.not_run and all(one.is_success for one in self.outcomes.values())


# Runs the out-of-date stages of a graph; how they ended, and what did not start.
RunStages = Callable[[StageGraph], tuple[dict[str, Outcome], list[str]]]


def chosen_datasets(params: Params, request: Request) -> list[str]:
    """The data set asked for, or all that are read from the user's own images."""
    if request.dataset is not None:
        if request.dataset not in params.datasets:
            known = ", ".join(params.datasets)
            raise ValueError(f"--dataset {request.dataset!r}: no such data set; known: {known}")
        return [request.dataset]
    own = [
        name
        for name, dataset in params.datasets.items()
        if isinstance(dataset.source, FolderSource | CsvSource)
    ]
    if own or len(params.datasets) == 1:
        return own or list(params.datasets)
    raise ValueError(
        "no data set of params.yaml is read from your own images (kind folder or csv): "
        f"name one by --dataset; known: {', '.join(params.datasets)}"
    )


def retrain_stages(
    params: Params, name: str, request: Request, run_stages: RunStages
) -> Retraining:
    """Bring the students of a data set up to date with its images.

    Raises ValueError where there is no teacher to learn from yet.
    """
    graph = read_graph()
    students = {key for key, one in params.students.items() if one.dataset == name}
    own = retraining_graph(graph, name, students, with_teacher=request.with_teacher)
    known = _Manifest(name)
    noticing = {stage for stage in own.names if stage.partition("@")[0] in NOTICING}
    outcomes, not_run = run_stages(only(own, noticing))
    done = Retraining(name, "looked for new images", known.changes(), outcomes, not_run)
    if not done.is_success:
        return done
    own = retraining_graph(read_graph(), name, students, with_teacher=request.with_teacher)
    done.word = _why(own, name, request, done.changes)
    if done.word.startswith("no "):
        return done
    outcomes, done.not_run = run_stages(own)
    done.outcomes |= outcomes
    if done.is_success:
        known.settle()
    return done


def _why(own: StageGraph, name: str, request: Request, changes: ImageChanges | None) -> str:
    """Why to retrain; a text that begins with "no" tells why not."""
    if has_new_images(own, name):
        return str(changes) if changes else "the images have changed"
    if request.force:
        return "the images are the same, but it was asked for (--force)"
    return "no image is new or changed"


def retraining_graph(
    graph: StageGraph, name: str, students: set[str], *, with_teacher: bool
) -> StageGraph:
    """The stages of a data set that a retraining may run; teacher and baselines only if asked.

    A baseline that was never trained is not left out: the evaluation needs it.
    """
    if not with_teacher and f"train_teacher@{name}" not in graph.locked:
        raise ValueError(f"{name}: has no teacher yet: run `l2s study` first, or --with-teacher")
    kept = set()
    for stage in graph.names:
        group, _, key = stage.partition("@")
        stays = group in KEPT and stage in graph.locked and not with_teacher
        if key in ("", name, *students) and not stays:
            kept.add(stage)
    return only(graph, kept)


def only(graph: StageGraph, names: set[str]) -> StageGraph:
    """A graph without the stages that are not named; nothing waits for those."""
    return StageGraph(
        {
            stage: tuple(other for other in others if other in names)
            for stage, others in graph.upstreams.items()
            if stage in names
        },
        {stage: why for stage, why in graph.changes.items() if stage in names},
        graph.locked & names,
    )


def has_new_images(graph: StageGraph, name: str) -> bool:
    """Whether the pack, or a student, is behind the images; also after a retraining broke off."""
    paths = DatasetPaths(name)
    signs = (str(paths.source.parent), str(paths.pack))
    return any(
        reason.startswith(signs)
        for stage, reasons in graph.changes.items()
        if stage.partition("@")[0] in ("prepare", "distill")
        for reason in reasons
    )


class _Manifest:
    """The images that the students know, kept until a retraining is through."""

    def __init__(self, name: str) -> None:
        self._given = DatasetPaths(name).given
        self._kept = WORK / "retrain" / f"{name}.json"
        if not self._kept.exists() and self._given.exists():
            write_json(self._kept, _read(self._given))

    def changes(self) -> ImageChanges | None:
        """What is new since; None for a data set that is not read from the user's own images."""
        if not (self._kept.exists() and self._given.exists()):
            return None
        before, after = _read(self._kept), _read(self._given)
        if "images" not in before or "images" not in after:
            return None
        return image_changes(before["images"], after["images"])

    def settle(self) -> None:
        self._kept.unlink(missing_ok=True)


def image_changes(before: list[Mapping[str, Any]], after: list[Mapping[str, Any]]) -> ImageChanges:
    """Two manifests compared, image by image."""
    old = {entry["name"]: entry for entry in before}
    new = {entry["name"]: entry for entry in after}
    return ImageChanges(
        added=len(new.keys() - old.keys()),
        changed=sum(old[name] != new[name] for name in old.keys() & new.keys()),
        removed=len(old.keys() - new.keys()),
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def kept_teacher_line(name: str) -> str | None:
    """What to know of a data set whose teacher is older than its images, or None."""
    origin = teacher_origin(name)
    if origin["teacher_of_this_pack"] == "yes" or not origin["teacher_pack_md5"]:
        return None
    return (
        f"{name}: `l2s retrain` kept the teacher, which learned from an older pack; it and what "
        "hangs on it stay stale until `l2s study` or `l2s retrain --with-teacher`"
    )
