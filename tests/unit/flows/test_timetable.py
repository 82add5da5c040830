"""What --cron and --every mean, and what a running schedule tells others."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.flows.timetable import (
    RECORD,
    ScheduleRecord,
    every_seconds,
    every_text,
    local_zone,
    next_run_line,
    read_timetable,
    running_schedule,
)
from pipeline.processes import own_name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30m", 1800), ("6h", 21600), ("7d", 604800), ("1h30m", 5400)],
)
def test_spans_are_read_and_written(text: str, seconds: int) -> None:
    assert every_seconds(text) == seconds
    assert every_text(seconds) == text


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


def test_the_zone_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Prague")
    assert local_zone() == "Europe/Prague"
    monkeypatch.setenv("TZ", "/some/file")
    assert local_zone() == "UTC"


def test_others_read_when_a_schedule_fires_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert running_schedule() is None
    assert "no schedule runs here" in next_run_line()
    now = datetime.now().astimezone()
    times = tuple((now + timedelta(hours=hour)).isoformat() for hour in (-1, 2, 5))
    record = ScheduleRecord("retrain", "every 3h", "http://127.0.0.1:1/api", now.isoformat(), times)
    record.write()
    assert running_schedule() == record
    expected = (now + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M:%S")
    assert next_run_line() == f"schedule: retrain every 3h, next at {expected}"
    dead = {**own_name(), "process_start": "another boot 1"}
    ScheduleRecord("retrain", "every 3h", "", now.isoformat(), times, dead).write()
    assert running_schedule() is None
    RECORD.write_text("{")
    assert running_schedule() is None
