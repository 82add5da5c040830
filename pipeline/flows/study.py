"""The study: the stages of dvc.yaml that are out of date, side by side, under Prefect's eyes."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from queue import SimpleQueue

from pipeline.flows.agenda import Agenda
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.ledger import StudyRecord, hold_workspace, last_runs, note_run, states
from pipeline.flows.lockfile import heal_locks, keep_copy, lost_names, normalise_lock, prune_lock
from pipeline.flows.resources import (
    Gpus,
    Shares,
    available_cores,
    share_cores,
    study_shares,
    visible_gpus,
)
from pipeline.flows.server import OwnServer, ServerError, answers, set_up_prefect
from pipeline.flows.stage_runs import (
    Outcome,
    StageRun,
    outcome_now,
    reproduce_stage,
    stage_environment,
)
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.flows.terminal import Announcer, summary
from pipeline.paths import locked_outputs
from pipeline.processes import end_leftovers
from pipeline.training.work_folders import delete_spent_work

RECORD_PATIENCE_S = 30  # after the last stage, for a server that is to take the record only


@dataclass(frozen=True)
class StudyResult:
    """How a study ended. `stop_number` is the signal that ended it, if one did."""

    outcomes: dict[str, Outcome]
    not_run: list[str]
    faults: list[str]
    stop_reason: str
    stop_number: int | None

    @property
    def is_success(self) -> bool:
        ended = all(outcome.is_success for outcome in self.outcomes.values())
        return ended and not (self.not_run or self.faults or self.stop_reason)


@dataclass
class Study:
    """One study on its way: what its Prefect flow and its head start have in common."""

    graph: StageGraph
    order: list[str]  # of all stages of dvc.yaml
    jobs: int
    shares: Shares
    targets: list[str]
    fresh: bool
    record: StudyRecord
    stop: Stop
    tell: Announcer
    began_s: float = field(default_factory=time.monotonic)
    ended: "SimpleQueue[Outcome]" = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self.dirty = self.graph.dirty(force=self.fresh)
        seconds = {name: outcome.seconds for name, outcome in last_runs().items()}
        self.agenda = Agenda({name: self.graph.upstreams[name] for name in self.dirty}, seconds)
        self.gpus = Gpus(visible_gpus(), self.shares.processes)
        self.faults: list[str] = []
        self.is_finished = False
        self._outputs = locked_outputs()
        self._runs: dict[str, StageRun] = {}

    def run(self, stage: str) -> StageRun:
        """The run of a stage, which starts here unless it has started before."""
        if stage not in self._runs:
            self.tell.started(stage)
            self.record.note_stage(stage, "running")
            self._runs[stage] = StageRun(lambda on_line: self._reproduce(stage, on_line))
        return self._runs[stage]

    def _reproduce(self, stage: str, on_line: Callable[[str], None]) -> Outcome:
        """Run a stage and tell everyone how it ended; a fault of ours is its failure, too."""
        since_s = time.monotonic()
        try:
            outcome = self._outcome_of(stage, on_line, since_s)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            outcome = outcome_now(stage, "failed", since_s, (fault,))
        try:
            note_run(outcome)
            self.record.note_stage(stage, outcome.result)
            self.tell.ended(outcome)
        finally:
            self.ended.put(outcome)
        return outcome

    def _outcome_of(self, stage: str, on_line: Callable[[str], None], since_s: float) -> Outcome:
        def take(line: str) -> None:
            on_line(line)
            self.tell.line(stage, line)

        if self._has_same_inputs(stage):
            return outcome_now(stage, "unchanged", since_s)
        with self.gpus.some() as gpus:
            return reproduce_stage(
                stage,
                force=self.fresh,
                environment=stage_environment(self.shares.threads, gpus),
                stop=self.stop,
                on_line=take,
            )

    def _has_same_inputs(self, stage: str) -> bool:
        """Whether a stage was to run only because of upstreams, which came out as they were.

        Then DVC, too, would skip it; asking DVC costs a second and a half.
        """
        if self.fresh or stage in self.graph.changes:
            return False
        try:
            outputs = locked_outputs()
        except ValueError:  # another stage's DVC is writing the file
            return False
        changed = [name for name in self.graph.upstreams[stage] if name in self._runs]
        return all(outputs.get(name) == self._outputs.get(name, {}) for name in changed)

    def advance(
        self,
        start: Callable[[str], object],
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Run what can run; whether all is over."""
        return self.agenda.advance(
            self.jobs, start, self.ended, draining=self.stop.event.is_set, until=until
        )

    def finish(self) -> None:
        """Leave dvc.lock as a serial `dvc repro` would, require that nothing is left, tell all."""
        if self.is_finished:
            return
        self._settle()
        self.is_finished = True
        for line in self.lines():
            self.tell.note(line)

    def _settle(self) -> None:
        normalise_lock(self.order)
        delete_spent_work()
        if self.stop.event.is_set() or not self.all_succeeded:
            return
        graph = read_graph()
        for name in graph.restricted(self.targets).dirty():
            why = "; ".join(graph.changes.get(name, ())) or "after another stage"
            self.faults.append(f"{name} is out of date again ({why}): was it edited meanwhile?")

    @property
    def all_succeeded(self) -> bool:
        ended = self.agenda.outcomes.values()
        return not self.agenda.not_started and all(outcome.is_success for outcome in ended)

    def lines(self) -> list[str]:
        spent_s = time.monotonic() - self.began_s
        told = summary(self.agenda.outcomes, self.agenda.not_started, self.stop.reason, spent_s)
        return [*told, *self.faults]

    def result(self) -> StudyResult:
        return StudyResult(
            dict(self.agenda.outcomes),
            self.agenda.not_started,
            self.faults,
            self.stop.reason,
            self.stop.number,
        )


def run_study(
    *, jobs: int | None = None, targets: Sequence[str] = (), fresh: bool = False
) -> StudyResult:
    """Run what is out of date: all, or the targets and what they need; by force what is not, too.

    Raises ValueError for unknown targets, a held workspace, or a graph that DVC refuses.
    """
    stop, tell = Stop(), Announcer()
    with heeding_signals(stop), hold_workspace() as record:
        try:
            study = _plan(jobs, list(targets), fresh, record, stop, tell)
            if study.dirty:
                _run(study)
            else:
                tell.note("study: everything is up to date")
            return study.result()
        finally:
            stop.ask("the study has ended")
            end_leftovers(keep=("prefect-server",))  # who started a server, stops it


def _plan(
    jobs: int | None,
    targets: list[str],
    fresh: bool,
    record: StudyRecord,
    stop: Stop,
    tell: Announcer,
) -> Study:
    """Clear up after a study that was killed, and see what is to do."""
    for name in end_leftovers(own=False):
        tell.note(f"ended what a killed study left running: {name}")
    for line in heal_locks():
        tell.note(line)
    keep_copy()
    graph = read_graph()
    if lost_names(graph.names):
        pruned = prune_lock(graph.names)
        tell.note(f"no longer in dvc.yaml: {', '.join(pruned.stages)}")
        for verb, paths in (("deleted", pruned.deleted), ("kept, as changed", pruned.kept)):
            if paths:
                tell.note(f"  {verb}: {', '.join(map(str, paths))}")
        graph = read_graph()
    everything, graph = graph, graph.restricted(targets)
    shares = study_shares()
    jobs, word = share_cores(jobs, shares.cores, available_cores())
    study = Study(graph, everything.names, jobs, shares, targets, fresh, record, stop, tell)
    record.note(
        jobs=jobs,
        plan=study.dirty,
        before=[[name, *state] for name, state in states(everything, last_runs()).items()],
    )
    if study.dirty:
        if word:
            tell.note(word)
        tell.width = max(map(len, study.dirty))
        tell.note(
            f"study: {len(graph.names)} stages, {len(study.dirty)} to run, "
            f"{study.jobs} at a time: {', '.join(study.dirty)}"
        )
    else:
        normalise_lock(everything.names)
        delete_spent_work()
    return study


def _run(study: Study) -> None:
    """Run the stages. What can run before Prefect is ready does so: that hides its start."""
    if study.stop.event.is_set():
        study.finish()
        return
    set_up_prefect()
    given = os.environ.get("PREFECT_API_URL")
    if given and not answers(given, patience_s=10):
        raise ServerError(f"PREFECT_API_URL = {given!r}: no Prefect server answers there")
    server = None if given else OwnServer()
    name = "pipeline.flows.reporting"  # which imports prefect: two seconds, spent in a thread
    library = threading.Thread(target=import_module, args=(name,), daemon=True)
    library.start()

    def is_ready() -> bool:
        return (server is None or server.is_up()) and not library.is_alive()

    try:
        if _start_without(study, is_ready):
            import_module(name).run_reported(study, given or (server and server.url))
        else:
            study.advance(study.run)
            study.finish()
    finally:
        if server is not None:
            server.stop()


def _start_without(study: Study, is_ready: Callable[[], bool]) -> bool:
    """Run stages until Prefect is ready; whether it is, in the end."""
    try:
        if study.advance(study.run, until=is_ready):
            study.finish()
        until_s = time.monotonic() + RECORD_PATIENCE_S
        while not study.stop.event.is_set():
            if is_ready():
                return True
            if time.monotonic() > until_s:
                raise ServerError("Prefect's server is not up yet, and all stages have ended")
            time.sleep(0.1)
    except ServerError as error:
        study.tell.note(f"{error}: no record of this study in Prefect")
    return False
