"""What --cron and --every mean, and what a running schedule tells others."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from filelock import FileLock

from pipeline.files import write_json
from pipeline.flows.schedule import (
    LOCK,
    RECORD,
    Timetable,
    deployment_name,
    every_seconds,
    forget_passed,
    local_zone,
    next_run_line,
    read_timetable,
    run_schedule,
    running_schedule,
)
from pipeline.processes import own_name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30m", 1800), ("6h", 21600), ("7d", 604800), ("1h30m", 5400)],
)
def test_spans_are_read_and_written(text: str, seconds: int) -> None:
    assert every_seconds(text) == seconds
    assert str(read_timetable(None, text)) == f"every {text}"


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-6h", "6h!", "1.5h", "six", "1s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--every .*: must be"):
        every_seconds(text)


def test_one_of_cron_and_every_is_needed() -> None:
    for cron, every in ((None, None), ("0 3 * * 1", "6h")):
        with pytest.raises(ValueError, match="give one of them"):
            read_timetable(cron, every)
    with pytest.raises(ValueError, match="must be five fields"):
        read_timetable("0 3 * *", None)
    assert str(read_timetable(None, "6h")) == "every 6h"
    assert str(read_timetable("0 3 * * 1", None)).startswith("by cron '0 3 * * 1' in ")


@pytest.mark.parametrize(
    ("given", "zone"),
    [
        ("Europe/Prague", "Europe/Prague"),
        (":Europe/Prague", "Europe/Prague"),
        ("/usr/share/zoneinfo/Europe/Prague", "Europe/Prague"),
        ("EST5EDT", "EST5EDT"),
        ("/usr/share/zoneinfo/posix/Europe/Prague", "Europe/Prague"),
        ("/usr/share/zoneinfo/right/Europe/Prague", "Europe/Prague"),
        ("", "UTC"),
    ],
)
def test_the_zone_is_that_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, given: str, zone: str
) -> None:
    monkeypatch.setenv("TZ", given)
    assert local_zone() == zone


@pytest.mark.parametrize("sign", ["", ":"])
def test_a_link_to_a_zone_is_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sign: str
) -> None:
    """`TZ=:/etc/localtime` is what images of containers set."""
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Prague")
    monkeypatch.setenv("TZ", f"{sign}{tmp_path}/localtime")
    assert local_zone() == "Europe/Prague"


@pytest.mark.parametrize(
    "given", ["CET-1CEST", "<+03>-3", "/some/file", "../zone", "Some/Town", "posixrules"]
)
def test_a_zone_without_a_name_is_refused_where_it_matters(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("TZ", given)
    with pytest.raises(ValueError, match=r"is no name of the time zone database.*--every"):
        read_timetable("0 3 * * 1", None)
    assert read_timetable(None, "6h").zone == "UTC"


def test_what_is_no_cron_and_what_never_fires_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_HOME", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(ValueError, match=r"--cron '0 3 31 2 [*]': no date ever meets it"):
        run_schedule(Timetable("0 3 31 2 *"))
    with pytest.raises(ValueError, match=r"--cron '0 25 [*] [*] [*]': "):
        run_schedule(Timetable("0 25 * * *"))
    for span in ("4000000d", "99999999999999d"):
        with pytest.raises(ValueError, match=f"--every '{span}': no date ever meets it"):
            run_schedule(Timetable(None, span))
    assert not RECORD.parent.exists()


def test_workspaces_of_one_name_share_no_schedule_on_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for place, host in (("a", "one"), ("a", "one"), ("b", "one"), ("a", "two")):
        folder = tmp_path / place / "large-to-small"
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        names.append(deployment_name())
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(name.startswith("large-to-small-") for name in names)


def test_the_name_of_a_schedule_is_one_that_prefect_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.types.names import BANNED_CHARACTERS

    folder = tmp_path / "50% & <more>"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert deployment_name().startswith("50- - -more--")
    assert set(BANNED_CHARACTERS).isdisjoint(deployment_name())


def test_the_coming_times_are_those_of_the_clock_on_the_wall() -> None:
    now = datetime.now().astimezone()
    first, _, third = asyncio.run(Timetable("0 3 * * *", zone="Europe/Prague").coming())
    wall = [
        datetime.fromisoformat(one).astimezone(ZoneInfo("Europe/Prague")) for one in (first, third)
    ]
    assert [(one.hour, one.minute) for one in wall] == [(3, 0), (3, 0)]
    assert now < datetime.fromisoformat(first) < now + timedelta(days=1, hours=2)
    times = asyncio.run(Timetable(None, "1h", since=now.isoformat()).coming())
    steps = [(datetime.fromisoformat(one) - now).total_seconds() for one in times]
    assert steps == [3600, 7200, 10800]


def test_others_read_when_a_schedule_fires_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert running_schedule() is None
    assert "no schedule runs here" in next_run_line()
    now = datetime.now().astimezone()
    times = tuple((now + timedelta(hours=hour)).isoformat() for hour in (-1, 2, 5))
    record = {"what": "retrain", "when": "every 3h", "coming": times, "owner": own_name()}
    write_json(RECORD, record)
    assert running_schedule() == {**record, "coming": list(times)}
    expected = (now + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M:%S")
    assert next_run_line() == f"schedule: retrain every 3h, next at {expected}"
    dead = {**own_name(), "process_start": "another boot 1"}
    write_json(RECORD, {**record, "owner": dead})
    assert running_schedule() is None
    elsewhere = {**record, "owner": {**own_name(), "host": "elsewhere"}}
    write_json(RECORD, elsewhere)
    with FileLock(LOCK):
        assert running_schedule() == {**elsewhere, "coming": list(times)}
    assert running_schedule() is None  # it was killed there


class MadeClient:
    """Of a Prefect server: runs by the kind of their state, and the ids of those deleted."""

    def __init__(self, runs: dict[str, list[SimpleNamespace]]) -> None:
        self.runs, self.deleted = runs, set[str]()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read_flow_runs(self, *, flow_run_filter: Any, **_: Any) -> list[SimpleNamespace]:
        assert flow_run_filter.deployment_id.any_ == [UUID(int=1)]
        (kind,) = flow_run_filter.state.type.any_
        return self.runs.get(kind.value, [])

    async def delete_flow_run(self, run: str) -> None:
        self.deleted.add(run)


def test_times_that_passed_are_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now().astimezone()

    def run(name: str, hours: float, *, by_timetable: bool = True) -> SimpleNamespace:
        at = now + timedelta(hours=hours)
        return SimpleNamespace(id=name, auto_scheduled=by_timetable, expected_start_time=at)

    by_hand = run("by hand", -1, by_timetable=False)
    waiting = [run("late", -50), by_hand, run("passed", -0.01), run("next", 0.01)]
    for running, beside_a_run, deleted in (
        ([], False, {"late", "passed"}),
        ([], True, set()),
        ([run("long", -1)], True, {"late", "passed"}),
    ):
        client = MadeClient({"SCHEDULED": waiting, "RUNNING": running})
        monkeypatch.setattr("prefect.client.orchestration.get_client", lambda made=client: made)
        asyncio.run(forget_passed(UUID(int=1), beside_a_run=beside_a_run))
        assert client.deleted == deleted
