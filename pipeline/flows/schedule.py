"""`l2s schedule`: a server where none is configured, the serving program, and their end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.files import write_json
from pipeline.flows.ledger import running_study
from pipeline.flows.server import HOME, START_PATIENCE_S, ServerError, answers, set_up_prefect
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.flows.terminal import Announcer
from pipeline.flows.timetable import (
    RECORD,
    ScheduleRecord,
    Timetable,
    local_text,
    running_schedule,
)
from pipeline.processes import end_group, end_leftovers, is_dead, own_name, start_mark

LOCK = RECORD.with_name("schedule.lock")
RUN = RECORD.with_name("run.json")
SCHEDULED = "L2S_SCHEDULED"  # set for the flows that a schedule starts
LOOK_EVERY_S = 3.0
RUN_PATIENCE_S = 45
END_PATIENCE_S = 15
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Orders:
    """What is served. `parameters` are those of the flow."""

    timetable: Timetable
    study: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    port: int = 4200

    @property
    def flow(self) -> str:
        return "scheduled-study" if self.study else "retrain"

    @property
    def name(self) -> str:
        """The deployment's: the folder of the workspace, so that several can share a server."""
        return Path.cwd().name


def run_schedule(orders: Orders) -> int | None:
    """Serve until a signal comes; its number. Ends all that it started.

    Raises ValueError for a cron expression that is none or a schedule that runs here already, and
    ServerError for a server that does not answer or start.
    """
    set_up_prefect()
    from pipeline.flows.serving import prefect_schedule

    prefect_schedule(orders.timetable)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = running_schedule()
        who = f": process {other.owner['pid']} on {other.owner['host']}" if other else ""
        raise ValueError(f"a schedule runs here already{who}") from None
    stop, tell = Stop(), Announcer()
    processes: list[Process] = []
    try:
        with heeding_signals(stop):
            url = _server(orders, stop, tell, processes)
            if url:
                _serve(orders, url, stop, tell, processes)
    finally:
        _end(processes, tell)
        RECORD.unlink(missing_ok=True)
        lock.release()
    return stop.number


def note_scheduled_run() -> None:
    """Leave the name of this process where the schedule that started it finds it."""
    if os.environ.get(SCHEDULED):
        write_json(RUN, own_name())


def _server(orders: Orders, stop: Stop, tell: Announcer, processes: list[Process]) -> str | None:
    """The address of the configured server, or of one that is started here."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if not answers(given, patience_s=10):
            raise ServerError(f"PREFECT_API_URL = {given!r}: no Prefect server answers there")
        return given
    url = f"http://127.0.0.1:{orders.port}/api"
    if answers(url):
        raise ServerError(
            f"a Prefect server answers at {url} already: set PREFECT_API_URL to use it, "
            "or choose another --port"
        )
    tell.note("starting a Prefect server on this machine ...")
    package = find_spec("prefect")
    assert package is not None
    assert package.origin is not None
    command = ["uvicorn", "--app-dir", str(Path(package.origin).parent), "--factory"]
    command += ["prefect.server.api.server:create_app", "--lifespan", "on"]
    command += ["--host", "127.0.0.1", "--port", str(orders.port), "--log-level", "error"]
    log = HOME / "schedule-server.log"
    process = _start(command, log, {"PREFECT_UI_API_URL": url, "PREFECT_API_URL": url})
    processes.append(process)
    until_s = time.monotonic() + START_PATIENCE_S
    while not answers(url):
        if stop.event.is_set():
            return None
        if process.poll() is not None or time.monotonic() > until_s:
            raise ServerError(f"Prefect's server did not start at port {orders.port}: see {log}")
        time.sleep(0.3)
    return url


def _start(module: list[str], log: Path | None, environment: dict[str, str]) -> Process:
    """Start a module of this Python in a session of its own."""
    HOME.mkdir(exist_ok=True)
    with (log or Path(os.devnull)).open("wb") as file:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=file if log else None,
            stderr=file if log else None,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def _serve(orders: Orders, url: str, stop: Stop, tell: Announcer, processes: list[Process]) -> None:
    command = ["pipeline.flows.serving", json.dumps({**asdict(orders), "name": orders.name})]
    serving = _start(command, None, {"PREFECT_API_URL": url, SCHEDULED: "1"})
    processes.append(serving)
    since = datetime.now().astimezone().isoformat("T", "seconds")
    record = ScheduleRecord(orders.flow, str(orders.timetable), url, since)
    record.write()
    tell.note(f"serving {orders.flow} {orders.timetable}; pages: {url.removesuffix('/api')}")
    told: set[str] = set()
    while not stop.event.wait(LOOK_EVERY_S):
        if serving.poll() is not None:
            raise ServerError("the serving program has ended: see its lines above")
        runs = _runs(url, orders)
        coming = tuple(run["expected_start_time"] for run in _of(runs, "SCHEDULED"))
        if coming != record.coming:
            record = replace(record, coming=coming)
            record.write()
            if coming and not _of(runs, "RUNNING"):  # the times that pass meanwhile are no news
                tell.note(f"next runs: {', '.join(map(local_text, coming[:3]))}")
        for run in _of(runs, "COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            if run["id"] not in told and (run["end_time"] or "") >= _as_utc(since):
                tell.note(f"run {run['name']}: {run['state']['name']}")
                told.add(run["id"])
    tell.note(f"ending the schedule ({stop.reason}) ...")


def _runs(url: str, orders: Orders) -> list[dict[str, Any]]:
    """The runs of this schedule, past and to come; none where the server does not answer."""
    question = {
        "deployments": {"name": {"any_": [orders.name]}},
        "flows": {"name": {"any_": [orders.flow]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    asked = urllib.request.Request(  # noqa: S310
        f"{url}/flow_runs/filter",
        data=json.dumps(question).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
            return list(json.load(answer))
    except (OSError, ValueError):
        return []


def _of(runs: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["state_type"] in types]


def _as_utc(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat().replace("+00:00", "Z")


def _end(processes: list[Process], tell: Announcer) -> None:
    """End what was started, the last one first: the serving program, its flow, then the server."""
    for process in reversed(processes):
        process.terminate()  # which Prefect takes for the end; a SIGINT it answers with tracebacks
        try:
            process.wait(timeout=END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            tell.note("it takes long to end")
        end_group(process.pid)
        process.wait()
        _end_run(tell)
    if running_study() is None:
        end_leftovers(keep=("prefect-server",))


def _end_run(tell: Announcer) -> None:
    """End the flow's own process: it ends its stages in order, if it is given the time."""
    try:
        name = json.loads(RUN.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return
    pid = int(name["pid"])
    until_s = time.monotonic() + RUN_PATIENCE_S
    while not is_dead(name) and start_mark(pid):
        late = time.monotonic() > until_s
        try:
            os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        except ProcessLookupError:
            break
        if late:
            tell.note(f"the run of process {pid} did not end in time: killed")
            break
        # One word is enough; a second would tell it to hurry.
        while not is_dead(name) and time.monotonic() < until_s:
            time.sleep(0.1)
    RUN.unlink(missing_ok=True)
