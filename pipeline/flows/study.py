"""A study: the stages of dvc.yaml that are out of date, planned, run side by side, and settled."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from pipeline.config.yaml_text import read_yaml
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.lockfile import normalise_lock
from pipeline.flows.run_state import RunState, last_outcomes, note_outcome, stage_states, workspace
from pipeline.flows.scheduler import Gpus, Scheduler, share_cores, study_shares, visible_gpus
from pipeline.flows.stage_runs import Outcome, Stop, outcome_now, reproduce_stage, stage_environment
from pipeline.flows.terminal import Terminal, summary
from pipeline.paths import locked_outputs
from pipeline.processes import own_cores
from pipeline.training.work_folders import delete_spent_work

CODE_STAGE = "code"


class Study:
    """One study on its way: what its Prefect flow and its head start have in common."""

    def __init__(
        self,
        graph: StageGraph,
        whole: StageGraph,
        state: RunState,
        stop: Stop,
        terminal: Terminal,
        *,
        jobs: int | None = None,
        fresh: bool = False,
    ) -> None:
        """graph: the stages that may run; whole: all of dvc.yaml. fresh: run also what is not out
        of date. jobs: stages side by side; None for as many as the cores allow.
        """
        self.graph, self.whole, self.fresh = graph, whole, fresh
        self.state, self.stop, self.terminal = state, stop, terminal
        self.targets: list[str] = []
        self._threads, processes = study_shares()
        self.jobs, self.why_fewer = share_cores(jobs, self._threads * processes, own_cores())
        self.dirty = graph.dirty(force=fresh)
        runs = last_outcomes()
        seconds = {name: outcome.seconds for name, outcome in runs.items()}
        self.scheduler = Scheduler({name: graph.upstreams[name] for name in self.dirty}, seconds)
        self.faults: list[str] = []
        self.is_finished = False
        self.began_s = time.monotonic()
        self._gpus = Gpus(visible_gpus(), processes)
        self._ended: SimpleQueue[Outcome] = SimpleQueue()
        self._outputs = locked_outputs()
        self._runs: dict[str, SimpleQueue[str | Outcome]] = {}
        self.before = stage_states(whole, runs)
        before = [(name, *state) for name, state in self.before.items()]
        state.note(jobs=self.jobs, plan=self.dirty, before=before)
        terminal.width = max(map(len, self.dirty), default=0)

    def run(self, stage: str) -> SimpleQueue[str | Outcome]:
        """The lines of a stage, for one reader, and then its outcome.

        It starts here unless it has started before.
        """
        if stage not in self._runs:
            self.terminal.started(stage)
            self.state.note_stage(stage, "running")
            self._runs[stage] = SimpleQueue()
            threading.Thread(target=self._reproduce, args=(stage,), daemon=True).start()
        return self._runs[stage]

    def _reproduce(self, stage: str) -> None:
        """Run a stage and tell everyone how it ended; a fault of ours is its failure, too."""
        since_s = time.monotonic()
        try:
            outcome = self._outcome_of(stage, since_s)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            outcome = outcome_now(stage, "failed", since_s, (fault,))
        try:
            note_outcome(outcome)
            self.state.note_stage(stage, outcome.result)
            self.terminal.ended(outcome)
        finally:
            self._runs[stage].put(outcome)
            self._ended.put(outcome)

    def _outcome_of(self, stage: str, since_s: float) -> Outcome:
        def take(line: str) -> None:
            self._runs[stage].put(line)
            self.terminal.line(stage, line)

        if self._has_same_inputs(stage):
            return outcome_now(stage, "unchanged", since_s)
        with self._gpus.some() as gpus:
            environment = stage_environment(self._threads, gpus)
            options = ["--force"] if self.fresh else []
            return reproduce_stage(stage, environment, self.stop, take, options)

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
        start: Callable[[str], object] | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Run what can run, each stage begun by `start` or else by `run`; whether all is over."""
        start, draining = start or self.run, self.stop.event.is_set
        return self.scheduler.advance(self.jobs, start, self._ended, draining=draining, until=until)

    def settle(self) -> None:
        """Leave dvc.lock as a serial `dvc repro` would, and no work folder of what is done."""
        normalise_lock(self.whole.names)
        delete_spent_work()

    def finish(self) -> None:
        """Settle, require that nothing is left to run, and show how the study ended; once."""
        if self.is_finished:
            return
        self.settle()
        if self.is_success:
            graph = read_graph()
            for name in graph.restricted(self.targets).dirty():
                why = "; ".join(graph.changes.get(name, ())) or "after another stage"
                self.faults.append(f"{name} is out of date again ({why}): was it edited meanwhile?")
        self.is_finished = True
        for line in self.lines():
            self.terminal.note(line)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return self.scheduler.outcomes

    @property
    def not_run(self) -> list[str]:
        return self.scheduler.not_started

    @property
    def is_success(self) -> bool:
        ended = all(outcome.is_success for outcome in self.outcomes.values())
        return ended and not (self.not_run or self.faults or self.stop.reason)

    def lines(self) -> list[str]:
        """How the study ended, for a reader."""
        spent_s = time.monotonic() - self.began_s
        ending = summary(self.outcomes, self.not_run, self.stop.reason, spent_s)
        return [*ending, *self.faults]


def current_graph(stop: Stop) -> StageGraph:
    """The graph of dvc.yaml after the stage that digests the code: only what it left stale is."""
    graph = read_graph()
    if CODE_STAGE not in graph.dirty():
        return graph
    reproduce_stage(CODE_STAGE, stage_environment(1), stop, lambda line: None)
    return read_graph()  # if it failed it is stale still: it runs again, and is seen to fail


@contextmanager
def planned_study(
    *, jobs: int | None = None, targets: Sequence[str] = (), fresh: bool = False
) -> Iterator[Study]:
    """The study of what is out of date: all, or the targets and what they need.

    Holds the workspace, and leaves nothing running; inputs in object storage are compared with it
    first. fresh: run also what is up to date.
    Raises ValueError for unknown targets, a held workspace, or a graph that DVC refuses.
    """
    from pipeline.datasets.remote import bring_up_to_date  # heavy, and few studies have such

    stop, terminal = Stop(), Terminal()
    with workspace(stop, terminal.note) as state:
        inputs = read_yaml(Path("params.yaml").read_text(encoding="utf-8")).get("inputs") or {}
        bring_up_to_date(inputs.values())
        whole = current_graph(stop)
        graph = whole.restricted(targets)
        study = Study(graph, whole, state, stop, terminal, jobs=jobs, fresh=fresh)
        study.targets = list(targets)
        if not study.dirty:
            study.settle()
            terminal.note("study: everything is up to date")
        else:
            if study.why_fewer:
                terminal.note(study.why_fewer)
            terminal.note(
                f"study: {len(graph.names)} stages, {len(study.dirty)} to run, "
                f"{study.jobs} at a time: {', '.join(study.dirty)}"
            )
        yield study
