"""`l2s schedule`: a flow that Prefect serves at set times, until a signal comes."""

import asyncio
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import available_timezones

from filelock import FileLock, Timeout

from pipeline.files import write_json
from pipeline.flows.run_state import has_let_go, running_study
from pipeline.flows.server import ServerError, prefect_server, set_up_prefect
from pipeline.flows.stage_runs import Stop, now_text, signals_stop
from pipeline.flows.terminal import Terminal
from pipeline.paths import WORK
from pipeline.processes import end_leftovers, own_name

if TYPE_CHECKING:
    from prefect.schedules import Schedule

RECORD = WORK / "schedule" / "schedule.json"
LOCK = RECORD.with_name("schedule.lock")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_S = 10
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Timetable:
    """One of the two: a cron expression with its time zone, or a span such as 6h, from now on."""

    cron: str | None
    every: str = ""
    zone: str = "UTC"
    since: str = field(default_factory=now_text)

    def __str__(self) -> str:
        return f"by cron {self.cron!r} in {self.zone}" if self.cron else f"every {self.every}"

    def prefect_schedule(self) -> "Schedule":
        """As Prefect takes it."""
        from prefect.schedules import Cron, Interval

        if self.cron is not None:
            return Cron(self.cron, timezone=self.zone)
        span = timedelta(seconds=every_seconds(self.every))
        return Interval(span, anchor_date=datetime.fromisoformat(self.since))

    async def coming(self) -> list[str]:
        """The next three times, ISO 8601. Raises ValueError where there is none."""
        from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

        try:
            one = self.prefect_schedule()
            if one.interval:
                interval = IntervalSchedule(interval=one.interval, anchor_date=one.anchor_date)
                times = await interval.get_dates(3)
            else:
                times = await CronSchedule(cron=one.cron, timezone=one.timezone).get_dates(3)
            return [time.isoformat() for time in times]
        except (ValueError, OverflowError) as error:
            given = f"--cron {self.cron!r}" if self.cron else f"--every {self.every!r}"
            raise ValueError(f"{given}: no date ever meets it ({error})") from None


def read_timetable(cron: str | None, every: str | None) -> Timetable:
    """The timetable that --cron or --every asks for. Raises ValueError unless it is one of them."""
    if (cron is None) == (every is None):
        raise ValueError('--cron, --every: give one of them: --cron "0 3 * * 1" or --every 6h')
    if every is not None:
        every_seconds(every)
        return Timetable(None, every)
    if cron is None or len(cron.split()) != 5:
        raise ValueError(f"--cron {cron!r}: must be five fields: minute hour day month weekday")
    return Timetable(cron, zone=local_zone())


def every_seconds(text: str) -> int:
    """Seconds of a span such as 90s, 30m, 6h, 7d or 1h30m."""
    parts = re.findall(r"(\d+)([smhd])", text)
    seconds = sum(int(number) * UNITS[unit] for number, unit in parts)
    if seconds < SHORTEST_S or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(
            f"--every {text!r}: must be numbers with s, m, h or d, such as 6h or 1h30m, and "
            f"{SHORTEST_S} s at least"
        )
    return seconds


def local_zone() -> str:
    """The name of this machine's time zone in the time zone database.

    From TZ, or from where /etc/localtime links to. Raises ValueError for a TZ of another form, such
    as the rules CET-1CEST, and where the name is not known: a cron expression needs one.
    """
    given = os.environ.get("TZ")
    place = "/etc/localtime" if given is None else given.removeprefix(":")
    if place.startswith("/"):
        place = str(Path(place).resolve())
    name = place.rpartition("zoneinfo/")[2] or "UTC"
    for kind in ("posix/", "right/"):  # the same zones in a folder of their own
        name = name.removeprefix(kind)
    if given is None and not Path(place).exists():
        name = "UTC"  # as the system takes it
    if name in available_timezones():
        return name
    raise ValueError(
        f"TZ = {given!r}: the time zone {name!r} of this machine is no name of the time zone "
        "database, which --cron needs: set one, such as TZ=Europe/Prague, or use --every"
    )


def running_schedule() -> dict[str, Any] | None:
    """What the schedule that runs in this workspace has noted; None where none does.

    `what` runs, `when` in words, `coming`: the next times, ISO 8601, and the process, `owner`.
    Starts nothing, asks no server.
    """
    try:
        record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return None if has_let_go(record["owner"], LOCK) else record


def next_run_line() -> str:
    """For `l2s status`: what is scheduled and when it fires next."""
    record = running_schedule()
    if record is None:
        return "no schedule runs here: l2s schedule starts one"
    now = datetime.now().astimezone()
    soonest = [text for text in record["coming"] if datetime.fromisoformat(text) > now]
    fires = f"next at {_local_text(soonest[0])}" if soonest else "the next time is not known yet"
    return f"schedule: {record['what']} {record['when']}, {fires}"


def _local_text(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def run_schedule(
    timetable: Timetable, parameters: Mapping[str, Any] | None = None, port: int = 4200
) -> int | None:
    """Serve until a signal comes; its number. Ends all that it started.

    parameters: of a retraining; None for the whole study. port: of an own Prefect server.

    Raises ValueError for a cron expression that is none or never met, or a schedule that runs here
    already, and ServerError for a server that does not answer or start, or is lost.
    """
    set_up_prefect()
    asyncio.run(timetable.coming())
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(LOCK).acquire(timeout=0)
    except Timeout:
        other = running_schedule()
        who = f": process {other['owner']['pid']} on {other['owner']['host']}" if other else ""
        raise ValueError(f"a schedule runs here already{who}") from None
    stop, note = Stop(), Terminal().note
    with lock:
        try:
            with signals_stop(stop), prefect_server(port) as server:
                note("waiting for the Prefect server ...")
                if server.wait(stop.event.is_set):
                    # Signals come to this thread; Prefect's loop would set handlers of its own.
                    with ThreadPoolExecutor(1) as pool:
                        serving = _serve(timetable, parameters, server.url, stop, note)
                        pool.submit(asyncio.run, serving).result()
        finally:
            end_leftovers(own=False)
            RECORD.unlink(missing_ok=True)
    return stop.number


def deployment_name() -> str:
    """The name of this workspace's schedule on a server that others may share: its folder's, with a
    mark of machine and place, as each would run the schedules of its namesakes; "-" stands for what
    Prefect refuses in a name.
    """
    here = Path.cwd()
    mark = hashlib.sha256(f"{socket.gethostname()}:{here}".encode()).hexdigest()[:8]
    return f"{re.sub('[/%&<>]', '-', here.name)}-{mark}"


async def forget_passed(deployment: UUID, *, beside_a_run: bool = False) -> None:
    """Delete what the timetable of a deployment has scheduled for times that have passed: Prefect
    would run all of it, one after the other. beside_a_run: only while one of its runs is running.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    def own(kind: StateType) -> filters.FlowRunFilter:
        return filters.FlowRunFilter(
            deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
            state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[kind])),
        )

    now, earliest_first = datetime.now().astimezone(), FlowRunSort.EXPECTED_START_TIME_ASC
    async with get_client() as client:
        if beside_a_run and not await client.read_flow_runs(flow_run_filter=own(StateType.RUNNING)):
            return
        waiting = await client.read_flow_runs(
            flow_run_filter=own(StateType.SCHEDULED), sort=earliest_first
        )
        for run in waiting:
            if run.auto_scheduled and run.expected_start_time and run.expected_start_time < now:
                await client.delete_flow_run(run.id)


async def _serve(
    timetable: Timetable,
    parameters: Mapping[str, Any] | None,
    url: str,
    stop: Stop,
    note: Callable[[str], None],
) -> None:
    """Serve until the stop: then Prefect pauses the schedule and ends the run on its way."""
    from httpx import HTTPError
    from prefect.exceptions import ObjectNotFound
    from prefect.runner import Runner
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipeline.flows.prefect_flows import retrain_flow, scheduled_study

    flow: Any = scheduled_study if parameters is None else retrain_flow
    name = deployment_name()
    record = {"what": flow.name, "when": str(timetable), "owner": own_name(), "coming": []}
    with temporary_settings({PREFECT_API_URL: url}):
        runner = Runner(name=name, limit=1)
        schedule, given = timetable.prefect_schedule(), dict(parameters or {})
        own = await runner.aadd_flow(flow, name=name, schedule=schedule, parameters=given)
        await forget_passed(own)  # while nothing served, also of another timetable
        serving = asyncio.create_task(runner.start())
        note(f"serving {flow.name} {timetable}; pages: {url.removesuffix('/api')}")
        while not serving.done() and not (stop.event.is_set() and runner.started):
            coming = await timetable.coming()
            if coming != record["coming"]:
                record["coming"] = coming
                write_json(RECORD, record)
                if running_study() is None:
                    note(f"next runs: {', '.join(map(_local_text, coming))}")
                else:  # the times that pass meanwhile are no news, and need not be made up for
                    with suppress(HTTPError, ObjectNotFound):  # of a server that is busy or lost
                        await forget_passed(own, beside_a_run=True)
            await asyncio.sleep(LOOK_EVERY_S)
        if serving.done():
            raise ServerError(f"Prefect has stopped to serve: {serving.exception()!r}")
        note(f"ending the schedule ({stop.reason}) ...")
        await runner.astop()
        await asyncio.wait({serving})
        if error := serving.exception():
            note(f"Prefect has not heard of the end: {error!r}")
