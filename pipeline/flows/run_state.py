"""What runs leave on disk: who holds the workspace, how far he is, how stages ended."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.files import write_json
from pipeline.flows.graph import StageGraph
from pipeline.flows.lockfile import heal_locks
from pipeline.flows.stage_runs import SUCCESSES, Outcome, Stop, now_text, signals_stop
from pipeline.paths import WORK
from pipeline.processes import end_leftovers, is_dead, own_name

LOCK = WORK / "study.lock"
STATE = WORK / "study.json"
RUNS = WORK / "runs"
ABSENT = (" deleted", " not in cache")  # as DVC's reasons end where a file is not there


class RunState:
    """The state of what holds the workspace, for others to read."""

    def __init__(self, previous: Mapping[str, Any] | None) -> None:
        self.previous = previous  # of a run that was killed
        named = previous is not None and "flow_run_id" in previous
        self._guard = threading.Lock()
        self._facts: dict[str, Any] = {
            **own_name(),
            "since": now_text(),
            "ended": None,
            "stages": {},
            "unclosed": previous if named else None,  # for whoever comes next, until it is closed
        }

    def note(self, **facts: Any) -> None:
        """Add facts of the run, such as its number in Prefect."""
        with self._guard:
            self._facts |= facts
            write_json(STATE, self._facts)

    def note_stage(self, name: str, state: str) -> None:
        with self._guard:
            self._facts["stages"][name] = {"state": state, "since": now_text()}
            write_json(STATE, self._facts)


@contextmanager
def workspace(stop: Stop, note: Callable[[str], None]) -> Iterator[RunState]:
    """The workspace for what runs stages: held, mended after a kill, and left in order.

    Meanwhile signals ask for the stop. Raises ValueError where a study runs here, and for a
    dvc.lock that nobody can mend but its owner.
    """
    with signals_stop(stop), hold_workspace() as state:
        for name in end_leftovers(own=False):
            note(f"ended what a killed study left running: {name}")
        for line in heal_locks():
            note(line)
        try:
            yield state
        finally:
            stop.event.set()  # for threads that still run a stage
            end_leftovers(keep=("prefect-server",))  # who started a server, stops it


@contextmanager
def hold_workspace() -> Iterator[RunState]:
    """One study a workspace. Raises ValueError that says who holds it.

    The lock ends with its process, however that ends. An error is an end, too: only what was
    killed leaves a state that has not ended.
    """
    WORK.mkdir(exist_ok=True)
    try:
        lock = FileLock(LOCK).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"a study runs here already: {holder(read_state())}") from None
    with lock:
        found = read_state()
        state = RunState(_killed(found))
        state.note()
        try:
            yield state
        finally:
            state.note(ended=now_text())


def read_state() -> dict[str, Any] | None:
    """The state of what holds or last held the workspace."""
    return json.loads(STATE.read_text(encoding="utf-8")) if STATE.exists() else None


def _killed(state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The state of a killed run, by what was found; one whose run in Prefect is not closed yet may
    have been handed on by holders that close none, such as `l2s gc`.
    """
    if state is None:
        return None
    return state.get("unclosed") or (None if state["ended"] else state)


def running_study() -> dict[str, Any] | None:
    """The state of the study that runs in this workspace now, if one does."""
    state = read_state()
    return None if state is None or state["ended"] or has_let_go(state, LOCK) else state


def has_let_go(owner: Mapping[str, Any], lock: Path) -> bool:
    """Whether the owner of a lock has ended.

    One on a machine of another name, also a container or a laptop that was renamed, is told by the
    lock; where that cannot be had he counts as running.
    """
    if owner["host"] == socket.gethostname():
        return is_dead(owner)
    try:
        with FileLock(lock).acquire(timeout=0):
            return True
    except (OSError, NotImplementedError):  # a Timeout too; or a disk that has no locks
        return False


def at_work() -> str | None:
    """Who runs a study or retraining in this workspace now, in words; None where nobody does."""
    study = running_study()
    return None if study is None else f"a study or retraining runs here ({holder(study)})"


def holder(state: Mapping[str, Any] | None) -> str:
    """Who holds the workspace, by his state."""
    if state is None:
        return "by a process that has not said its name yet"
    return f"process {state['pid']} on {state['host']}, since {state['since']}"


def note_outcome(outcome: Outcome) -> None:
    """Keep how a stage ended; a run that changed nothing does not replace the record of work."""
    if outcome.result != "unchanged":
        write_json(RUNS / f"{outcome.stage}.json", asdict(outcome))


def last_outcomes() -> dict[str, Outcome]:
    """How each stage last ended."""
    rows = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    return {row["stage"]: Outcome(**{**row, "tail": tuple(row["tail"])}) for row in rows}


def stage_states(graph: StageGraph, runs: Mapping[str, Outcome]) -> dict[str, tuple[str, str]]:
    """For each stage its state and the reason of it, when nothing runs."""
    dirty = set(graph.dirty())
    rows = {}
    for name, upstreams in graph.upstreams.items():
        reasons = graph.changes.get(name, ())
        why = "; ".join(reasons)
        if name not in dirty:
            rows[name] = ("fresh", "")
        elif name in runs and runs[name].result == "failed":
            tail = runs[name].tail
            messages = [line for line in tail if line.startswith("error: ")]
            rows[name] = ("failed", [why, *tail, *messages][-1])
        elif name not in graph.locked:
            rows[name] = ("not yet run", "")
        elif reasons and all(reason.endswith(ABSENT) for reason in reasons):
            rows[name] = ("not here", "its files are gone, or were made elsewhere")
        else:
            after = ", ".join(other for other in upstreams if other in dirty)
            rows[name] = ("stale", why or f"after {after}")
    return rows


def states_of_running(state: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """For each stage its state by the notes of the study that runs: DVC cannot tell meanwhile."""
    rows = {name: (before, why) for name, before, why in state.get("before", ())}
    for name in state.get("plan", ()):
        rows[name] = ("waiting", "")
    for name, stage in state["stages"].items():
        shown = "fresh" if stage["state"] in SUCCESSES else stage["state"]
        rows[name] = (shown, f"since {stage['since']}" if shown == "running" else "")
    return rows
