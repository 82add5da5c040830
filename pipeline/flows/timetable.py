"""When a schedule fires: what the user wrote, checked, and the coming times. No prefect here."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.files import write_json
from pipeline.paths import WORK
from pipeline.processes import is_dead, own_name

RECORD = WORK / "schedule" / "schedule.json"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_S = 10


@dataclass(frozen=True)
class Timetable:
    """One of the two: a cron expression in the zone of this machine, or an interval."""

    cron: str | None
    every_s: int | None
    zone: str

    def __str__(self) -> str:
        if self.cron is not None:
            return f"by cron {self.cron!r} in {self.zone}"
        return f"every {every_text(self.every_s or 0)}"


def read_timetable(cron: str | None, every: str | None) -> Timetable:
    """The timetable that --cron or --every asks for. Raises ValueError unless it is one of them."""
    if (cron is None) == (every is None):
        raise ValueError('--cron, --every: give one of them: --cron "0 3 * * 1" or --every 6h')
    if cron is not None and len(cron.split()) != 5:
        raise ValueError(f"--cron {cron!r}: must be five fields: minute hour day month weekday")
    return Timetable(cron, None if every is None else every_seconds(every), local_zone())


def every_seconds(text: str) -> int:
    """Seconds of a span such as 90s, 30m, 6h, 7d or 1h30m."""
    parts = re.findall(r"(\d+)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(
            f"--every {text!r}: must be numbers with s, m, h or d, such as 6h or 1h30m"
        )
    seconds = sum(int(number) * UNITS[unit] for number, unit in parts)
    if seconds < SHORTEST_S:
        raise ValueError(f"--every {text!r}: must be {SHORTEST_S} s at least")
    return seconds


def every_text(seconds: int) -> str:
    """Seconds as the user writes them."""
    told = ""
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, UNITS[unit])
        told += f"{count}{unit}" if count else ""
    return told or "0s"


def local_zone() -> str:
    """The name of this machine's time zone; UTC where it has no name."""
    named = os.environ.get("TZ", "").lstrip(":")
    target = str(Path("/etc/localtime").resolve())
    found = named or (target.partition("zoneinfo/")[2])
    return (
        found if re.fullmatch(r"[A-Za-z0-9_+/-]+", found) and not found.startswith("/") else "UTC"
    )


@dataclass(frozen=True)
class ScheduleRecord:
    """What a running schedule tells others. `coming` are the next times it fires, ISO 8601."""

    what: str
    when: str
    url: str
    since: str
    coming: tuple[str, ...] = ()
    owner: Mapping[str, str] = field(default_factory=own_name)

    def write(self) -> None:
        write_json(RECORD, asdict(self))


def running_schedule() -> ScheduleRecord | None:
    """The schedule that runs in this workspace, if one does. Starts nothing, asks no server."""
    try:
        values: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    record = ScheduleRecord(**{**values, "coming": tuple(values["coming"])})
    return None if is_dead(dict(record.owner)) else record


def next_run_line() -> str:
    """For `l2s status`: what is scheduled and when it fires next."""
    record = running_schedule()
    if record is None:
        return "no schedule runs here: l2s schedule starts one"
    soonest = [text for text in record.coming if datetime.fromisoformat(text) > _now()]
    fires = f"next at {local_text(soonest[0])}" if soonest else "the next time is not known yet"
    return f"schedule: {record.what} {record.when}, {fires}"


def local_text(moment: str) -> str:
    """An ISO 8601 time in the words of this machine's clock."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def interval(timetable: Timetable) -> timedelta:
    return timedelta(seconds=timetable.every_s or 0)


def _now() -> datetime:
    return datetime.now().astimezone()
