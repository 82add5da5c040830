"""`l2s retrain`: new images noticed, students retrained, champions defended.

The teacher, the labelled baselines and what searches found stay as they are, also where the pack
has changed under them: their stages are left out, so that dvc.lock goes on naming the pack they
were made from, and `l2s status` and `dvc status` call them stale. That is the honest state, and
`l2s study` or `--with-teacher` brings them up to date.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params, load_params
from pipeline.config.sources import OwnSource
from pipeline.files import read_json, write_text
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.run_state import RunState, workspace
from pipeline.flows.stage_runs import Outcome, Stop
from pipeline.flows.study import Study, current_graph
from pipeline.flows.terminal import Terminal, summary
from pipeline.paths import WORK, DatasetPaths, teacher_origin
from pipeline.tracking.audit import record_lines

if TYPE_CHECKING:
    from pipeline.search.promotion import Verdict

KEPT = ("train_teacher", "train_baseline", "tune")  # which a retraining of students leaves alone
NOTICING = ("inputs", "hash_inputs")
READING_IMAGES = ("prepare", "distill")  # by whose changes new images are seen

# Runs the out-of-date stages of the first graph, a part of the second, which is all of dvc.yaml;
# whether all went well.
RunStages = Callable[[StageGraph, StageGraph], bool]


@dataclass(frozen=True)
class Request:
    """What was asked for, by the names of `retrain_flow`. tolerance: points of map.
    across_backbones: a student may replace a champion of another backbone. without_interval: too
    few test classes may decide.
    """

    dataset: str | None = None
    with_teacher: bool = False
    tolerance: float = 0.5
    force: bool = False
    across_backbones: bool = False
    without_interval: bool = False

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:  # NaN neither
            raise ValueError(f"--tolerance {self.tolerance}: must be 0 or more points of map")


@dataclass
class RetrainResult:
    """What a retraining came to: its stages, the verdicts on each data set, and lines to read."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)
    verdicts: "dict[str, list[Verdict]]" = field(default_factory=dict)
    stop_reason: str = ""
    stop_number: int | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        ended = all(outcome.is_success for outcome in self.outcomes.values())
        return ended and not (self.not_run or self.stop_reason)


def retrain(
    request: Request,
    advance: Callable[[Study], object] = Study.advance,
    stop: Stop | None = None,
    begin: Callable[[RunState], None] = lambda state: None,
) -> RetrainResult:
    """Notice, retrain, compare, decide; holds the workspace, and ends in order on a signal.

    advance: runs the stages of a planned study until none can start.
    begin: called when the workspace is held, such as to tell Prefect of a run that was killed.
    Raises ValueError and OSError for what a user can cause, before anything runs.
    """
    # Heavy, and the flow of a study, which stands in one file with ours, does without them.
    from pipeline.datasets.own_checks import check_own_images
    from pipeline.datasets.remote import bring_up_to_date
    from pipeline.models.requirements import check_networks
    from pipeline.search.promotion import Terms, judge_dataset, name_first_champions
    from pipeline.tracking.store import require_store

    params = load_params()
    check_networks(params)
    names = chosen_datasets(params, request)
    require_store()
    stop, terminal, began_s = stop or Stop(), Terminal(), time.monotonic()
    result = RetrainResult()
    allowed = request.across_backbones, request.without_interval
    terms = Terms(request.tolerance, request.force, *allowed)

    def note(line: str) -> None:
        result.lines.append(line)
        terminal.note(line)

    with workspace(stop, terminal.note) as state:
        begin(state)
        bring_up_to_date(params.inputs.values())
        check_own_images(params)

        def run_stages(graph: StageGraph, whole: StageGraph) -> bool:
            study = Study(graph, whole, state, stop, terminal)
            if study.dirty:
                advance(study)
                study.settle()
            result.outcomes |= study.outcomes
            result.not_run = study.not_run
            return result.is_success

        current_graph(stop)
        for name in names:
            for verdict in name_first_champions(params, name):
                terminal.note(verdict.line())
            terminal.note(f"{name}: looking for new images")
            note(f"{name}: {retrain_stages(params, name, request, run_stages)}")
            if stop.event.is_set() or not result.is_success:
                spent_s = time.monotonic() - began_s
                for line in summary(result.outcomes, result.not_run, stop.reason, spent_s):
                    note(line)
                if rest := names[names.index(name) + 1 :]:
                    note(f"not looked at: {', '.join(rest)}")
                break
            for verdict in judge_dataset(params, name, terms):
                result.verdicts.setdefault(name, []).append(verdict)
                note(verdict.line())
            if teacher_origin(name)["teacher_of_this_pack"] == "no":
                note(f"{name}: the teacher learned from an older pack and stays")
        for line in record_lines():
            note(line)
        result.stop_reason, result.stop_number = stop.reason, stop.number
    return result


def chosen_datasets(params: Params, request: Request) -> list[str]:
    """The data set asked for, or all that are read from the user's own images."""
    if request.dataset is not None:
        if request.dataset not in params.datasets:
            known = ", ".join(params.datasets)
            raise ValueError(f"--dataset {request.dataset!r}: no such data set; known: {known}")
        return [request.dataset]
    own = [name for name, one in params.datasets.items() if isinstance(one.source, OwnSource)]
    if own or len(params.datasets) == 1:
        return own or list(params.datasets)
    raise ValueError(
        "no data set of params.yaml is read from your own images (kind folder or csv): "
        f"name one by --dataset; known: {', '.join(params.datasets)}"
    )


def retrain_stages(params: Params, name: str, request: Request, run_stages: RunStages) -> str:
    """Bring the students of a data set up to date with its images; for which cause, or why not.

    Raises ValueError where there is no teacher to learn from yet.
    """
    students = {key for key, one in params.students.items() if one.dataset == name}

    def plan() -> tuple[StageGraph, StageGraph]:
        whole = read_graph()
        return retraining_graph(whole, name, students, with_teacher=request.with_teacher), whole

    own, whole = plan()
    # The images that the students know; where a retraining broke off, those from before it.
    given, known = DatasetPaths(name).given, WORK / "retrain" / f"{name}.json"
    if given.exists() and not has_new_images(own, name):
        write_text(known, given.read_text(encoding="utf-8"))
    noticing = [stage for stage in own.names if stage.partition("@")[0] in NOTICING]
    if not run_stages(own.only(noticing), whole):
        return "whether images are new could not be found out"
    own, whole = plan()
    if has_new_images(own, name):
        cause = image_changes(known, given)
    elif has_new_images(own, name, KEPT):
        cause = "teacher or baselines learned from an older pack"
    elif request.force:
        cause = "the images are the same, but it was asked for (--force)"
    else:
        return "no image is new or changed"
    if run_stages(own, whole):
        known.unlink(missing_ok=True)
    return cause


def retraining_graph(
    graph: StageGraph, name: str, students: set[str], *, with_teacher: bool
) -> StageGraph:
    """The stages of a data set that a retraining may run; teacher, baselines and searches only if
    asked.

    A baseline or search that never ran is not left out: the evaluation needs it.
    """
    if not with_teacher and f"train_teacher@{name}" not in graph.locked:
        raise ValueError(f"{name}: has no teacher yet: run `l2s study` first, or --with-teacher")
    kept = set()
    for stage in graph.names:
        group, _, key = stage.partition("@")
        stays = group in KEPT and stage in graph.locked and not with_teacher
        if key in ("", name, *students) and not stays:
            kept.add(stage)
    return graph.only(kept)


def has_new_images(graph: StageGraph, name: str, readers: Sequence[str] = READING_IMAGES) -> bool:
    """Whether the pack, or a student, is behind the images; also after a retraining broke off.

    A stage that never ran, as of a student that params.yaml has just got, tells nothing of images,
    unless no teacher was trained yet either.
    """
    paths = DatasetPaths(name)
    signs = (str(paths.source.parent), str(paths.pack))
    never_ran = graph.upstreams.keys() - graph.locked
    silent = set() if f"train_teacher@{name}" in never_ran else never_ran
    return any(
        reason.startswith(signs)
        for stage, reasons in graph.changes.items()
        if stage.partition("@")[0] in readers and stage not in silent
        for reason in reasons
    )


def image_changes(known: Path, given: Path) -> str:
    """How many images are new, have another content or place, or are gone, by the two manifests."""
    before, after = (
        read_json(path).get("images") if path.exists() else None for path in (known, given)
    )
    if before is None or after is None:  # not read from the user's own images
        return "the images have changed"
    old = {entry["name"]: entry for entry in before}
    new = {entry["name"]: entry for entry in after}
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    gone = len(old.keys() - new.keys())
    return f"{len(new.keys() - old.keys())} new images, {changed} changed, {gone} gone"
