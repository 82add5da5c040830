"""Progress: sparse lines in a log, a bar on a terminal."""

import io
import sys

import pytest

from pipeline import progress
from pipeline.progress import LINE_INTERVAL_S, Progress, count_text, rate_text, track


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_line_each_interval_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=100, unit="batch") as shown:
        for _ in range(100):
            clock.now_s += 0.25  # 4 a second, 25 s in all
            shown.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 40/100 batch, 4.0 batch/s, 10 s, 15 s left",
        "training: 80/100 batch, 4.0 batch/s, 20 s, 5 s left",
        "training: 100/100 batch, 4.0 batch/s, 25 s",
    ]
    assert LINE_INTERVAL_S == 10


def test_work_of_an_earlier_process_counts_as_done_but_not_as_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", total=100, done=60) as shown:
        clock.now_s += 10
        shown.advance(20)
        clock.now_s += 10
        shown.advance(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 80/100 it, 2.0 it/s, 10 s, 10 s left"
    assert lines[-1] == "training: 100/100 it, 2.0 it/s, 20 s"


def test_long_times_are_in_minutes_and_hours(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("embedding", total=10_000_000, unit="image") as shown:
        clock.now_s += 600
        shown.advance(60_000)
    (line, _) = capsys.readouterr().err.splitlines()
    assert line == "embedding: 60000/10000000 image, 100.0 image/s, 10 min, 27.6 h left"


def test_counts_have_their_number() -> None:
    counts = [count_text(number, "image") for number in range(3)]
    assert counts == ["0 images", "1 image", "2 images"]


def test_notes_are_shown(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", total=1) as shown:
        shown.note({"epoch": 3, "loss": 0.123456})
        clock.now_s += 1
        shown.advance()
    assert capsys.readouterr().err.endswith("1 s, epoch 3, loss 0.1235\n")


def test_an_error_writes_no_last_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def items():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(track(items(), "training", total=5))
    assert capsys.readouterr().err == ""


def test_nothing_to_do(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", total=0):
        pass
    assert capsys.readouterr().err == "training: 0/0 it, 0.0 it/s, 0 s\n"


def test_track_yields_everything_and_counts_it(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def items():
        for number in range(6):
            clock.now_s += 4
            yield number

    assert list(track(items(), "rendering", 6, "image")) == list(range(6))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "rendering: 6/6 image, 4.0 s/image, 24 s"
    assert len(lines) == 3


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("training", total=4, unit="batch") as shown:
        shown.note({"loss": 0.5})
        shown.advance(4)
    text = terminal.getvalue()
    assert "training: 100%" in text
    assert "4/4" in text
    assert "loss 0.5" in text
    assert shown.bar is not None
    assert shown.bar.disable  # closed


def test_a_slow_step_tells_seconds_a_unit() -> None:
    assert rate_text(4.04, "batch") == "4.0 batch/s"
    assert rate_text(0.04, "batch") == "25.0 s/batch"
    assert rate_text(0.0, "batch") == "0.0 batch/s"
