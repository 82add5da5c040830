"""`l2s retrain`: the flow of a retraining, with Prefect's report where Prefect answers."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.params import load_params
from pipeline.datasets.own_checks import check_own_images
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.ledger import (
    StudyRecord,
    WorkspaceHeldError,
    hold_workspace,
    last_runs,
    running_study,
    states,
)
from pipeline.flows.lockfile import heal_locks, keep_copy, normalise_lock
from pipeline.flows.resources import Shares, available_cores, share_cores, study_shares
from pipeline.flows.retraining import (
    Request,
    Retraining,
    chosen_datasets,
    retrain_stages,
)
from pipeline.flows.server import OwnServer, ServerError, answers, set_up_prefect
from pipeline.flows.stage_runs import Outcome
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.flows.study import Study
from pipeline.flows.terminal import Announcer, summary
from pipeline.models.requirements import check_networks
from pipeline.paths import teacher_origin
from pipeline.processes import end_leftovers
from pipeline.tracking.audit import record_lines
from pipeline.search.promotion import Terms, Verdict, judge_dataset, name_first_champions
from pipeline.tracking.store import require_store
from pipeline.training.work_folders import delete_spent_work

# Runs the stages of a planned study until none can start.
Advance = Callable[["Study"], object]


@dataclass
class RetrainResult:
    """What a retraining came to, data set by data set."""

    retrainings: list[Retraining] = field(default_factory=list)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    stop_reason: str = ""
    stop_number: int | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        return not self.stop_reason and all(one.is_success for one in self.retrainings)


def run_retrain(request: Request) -> RetrainResult:
    """Retrain under Prefect's eyes; without them where its server does not start."""
    set_up_prefect()
    given = os.environ.get("PREFECT_API_URL")
    if given and not answers(given, patience_s=10):
        raise ServerError(f"PREFECT_API_URL = {given!r}: no Prefect server answers there")
    if (other := running_study()) is not None:
        raise WorkspaceHeldError(f"a study runs here already: process {other['pid']}")
    end_leftovers()
    server = None if given else OwnServer()
    try:
        while server is not None and not server.is_up():
            time.sleep(0.2)
    except ServerError as error:
        Announcer().note(f"{error}; the retraining goes on without Prefect's record")
        return retrain(request)
    try:
        from pipeline.flows.retrain_flow import retrain_reported

        return retrain_reported(request, given or (server and server.url) or "")
    finally:
        if server is not None:
            server.stop()


def retrain(
    request: Request,
    advance: Advance = lambda study: study.advance(study.run),
    stop: Stop | None = None,
    close_lost: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> RetrainResult:
    """Notice, retrain, compare, decide; holds the workspace, heeds signals.

    close_lost: tells Prefect of the run of a study or retraining that was killed here.
    Raises ValueError and OSError for what a user can cause, before anything runs.
    """
    params = load_params()
    check_networks(params)
    oddities = check_own_images(params)
    names = chosen_datasets(params, request)
    require_store()
    stop, tell = stop or Stop(), Announcer()
    for line in oddities:
        tell.note(line)
    result = RetrainResult()
    with heeding_signals(stop), hold_workspace() as record:
        if record.previous and record.previous.get("flow_run_id"):
            close_lost(record.previous)
        # What a killed study or retraining left. A server that is in use is no leftover of theirs.
        end_leftovers(keep=("prefect-server",))
        for line in heal_locks():
            tell.note(line)
        keep_copy()
        workshop = _Workshop(record, stop, tell, study_shares(), advance)
        try:
            for name in names:
                for verdict in name_first_champions(params, name):
                    tell.note(verdict.line())
                tell.note(f"{name}: looking for new images")
                done = retrain_stages(params, name, request, workshop.run_stages)
                result.retrainings.append(done)
                _note(result, tell, f"{name}: {done.word}")
                if stop.event.is_set() or not done.is_success:
                    lines = summary(done.outcomes, done.not_run, stop.reason, workshop.seconds)
                    for line in lines:
                        _note(result, tell, line)
                    break
                terms = Terms(request.tolerance_points, request.force, request.across_backbones)
                for verdict in judge_dataset(params, name, terms):
                    result.verdicts.setdefault(name, []).append(verdict)
                    _note(result, tell, verdict.line())
                if teacher_origin(name)["teacher_of_this_pack"] == "no":
                    _note(result, tell, f"{name}: the teacher learned from an older pack and stays")
            for line in record_lines():
                _note(result, tell, line)
        finally:
            result.stop_reason, result.stop_number = stop.reason, stop.number
            stop.ask("the retraining has ended")
            end_leftovers(keep=("prefect-server",))
    return result


def _note(result: RetrainResult, tell: Announcer, line: str) -> None:
    result.lines.append(line)
    tell.note(line)


@dataclass
class _Workshop:
    """How the stages of a retraining are run: as those of a study are, in dvc.yaml's order."""

    record: StudyRecord
    stop: Stop
    tell: Announcer
    shares: Shares
    advance: Advance

    def __post_init__(self) -> None:
        self._began_s = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def run_stages(self, graph: StageGraph) -> tuple[dict[str, Outcome], list[str]]:
        jobs, _ = share_cores(None, self.shares.cores, available_cores())
        everything = read_graph()
        study = Study(
            graph,
            everything.names,
            jobs,
            self.shares,
            targets=[],
            fresh=False,
            record=self.record,
            stop=self.stop,
            tell=self.tell,
        )
        before = states(everything, last_runs())
        self.record.note(
            jobs=jobs,
            plan=study.dirty,
            before=[[name, *state] for name, state in before.items()],
        )
        if study.dirty:
            self.tell.width = max(map(len, study.dirty))
            self.advance(study)
            normalise_lock(everything.names)
            delete_spent_work()
        return dict(study.agenda.outcomes), study.agenda.not_started
