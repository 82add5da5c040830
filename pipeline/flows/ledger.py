"""What studies leave on disk: who holds the workspace, how far he is, how stages ended."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.files import write_json
from pipeline.flows.graph import StageGraph
from pipeline.flows.stage_runs import Outcome
from pipeline.paths import WORK
from pipeline.processes import start_mark

LOCK = WORK / "study.lock"
RECORD = WORK / "study.json"
RUNS = WORK / "runs"


class WorkspaceHeldError(ValueError):
    """Another study runs in this workspace."""


class StudyRecord:
    """The state of the study that holds the workspace, for others to read."""

    def __init__(self, previous: Mapping[str, Any] | None) -> None:
        self.previous = previous  # of a study that was killed
        self._guard = threading.Lock()
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "started": start_mark(os.getpid()),
            "host": socket.gethostname(),
            "since": _now(),
            "ended": None,
            "stages": {},
        }

    def note(self, **facts: Any) -> None:
        """Add facts of the study, such as its run in Prefect."""
        with self._guard:
            self._facts |= facts
            write_json(RECORD, self._facts)

    def note_stage(self, name: str, state: str) -> None:
        with self._guard:
            self._facts["stages"][name] = {"state": state, "since": _now()}
            write_json(RECORD, self._facts)


@contextmanager
def hold_workspace() -> Iterator[StudyRecord]:
    """One study a workspace. Raises WorkspaceHeldError that says who holds it.

    The lock ends with its process, however that ends.
    """
    WORK.mkdir(exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkspaceHeldError(f"a study runs here already: {_who(read_record())}") from None
    try:
        found = read_record()
        record = StudyRecord(found if found and not found["ended"] else None)
        record.note()
        yield record
        record.note(ended=_now())
    finally:
        lock.release()


def read_record() -> dict[str, Any] | None:
    """The record of the study that holds or last held the workspace."""
    try:
        return json.loads(RECORD.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def running_study() -> dict[str, Any] | None:
    """The record of the study that runs in this workspace now, if one does.

    That of another machine, which shares the folder, counts as running until it says otherwise.
    """
    record = read_record()
    if record is None or record["ended"]:
        return None
    if record["host"] == socket.gethostname() and start_mark(record["pid"]) != record["started"]:
        return None
    return record


def at_work() -> str | None:
    """Who runs a study or retraining in this workspace now, in words; None where nobody does."""
    study = running_study()
    if study is None:
        return None
    return f"a study or retraining runs here (process {study['pid']}, since {study['since']})"


def _who(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "by a process that has not said its name yet"
    return f"process {record['pid']} on {record['host']}, since {record['since']}"


def note_run(outcome: Outcome) -> None:
    """Keep how a stage ended; a run that changed nothing does not replace the record of work."""
    if outcome.result != "unchanged":
        write_json(_run_path(outcome.stage), asdict(outcome))


def last_runs() -> dict[str, Outcome]:
    """How each stage last ended."""
    rows = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    return {row["stage"]: Outcome(**{**row, "tail": tuple(row["tail"])}) for row in rows}


def states(graph: StageGraph, runs: Mapping[str, Outcome]) -> dict[str, tuple[str, str]]:
    """For each stage its state and the reason of it, when nothing runs."""
    dirty = set(graph.dirty())
    rows = {}
    for name, upstreams in graph.upstreams.items():
        why = "; ".join(graph.changes.get(name, ()))
        if name not in dirty:
            rows[name] = ("fresh", "")
        elif name in runs and runs[name].result == "failed":
            rows[name] = ("failed", told_reason(runs[name].tail) or why)
        elif name not in graph.locked:
            rows[name] = ("not yet run", "")
        else:
            after = ", ".join(other for other in upstreams if other in dirty)
            rows[name] = ("stale", why or f"after {after}")
    return rows


def told_reason(tail: Sequence[str]) -> str:
    """The line that says why a stage failed: its own message, or the last line of all."""
    messages = [line for line in tail if line.startswith("error: ")]
    return messages[-1] if messages else (tail[-1] if tail else "")


def _run_path(stage: str) -> Path:
    return RUNS / f"{stage}.json"


def _now() -> str:
    return datetime.now().astimezone().isoformat("T", "seconds")
