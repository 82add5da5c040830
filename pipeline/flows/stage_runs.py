"""One stage as a DVC process in a session of its own, and how it is asked to end."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO, Literal

from pipeline.processes import end_group, record_group
from pipeline.quick_start import quick_command

Result = Literal["ran", "restored", "unchanged", "failed", "stopped"]
SUCCESSES = ("ran", "restored", "unchanged")
REFUSED = re.compile(r"exited with 2\b")  # DVC's words where a stage refused what it was given
LOCK_TROUBLE = ("is busy, it is being blocked by", "Unable to acquire lock")
ATTEMPTS = 5
RETRY_AFTER_S = 1.0  # the first time; each time longer by as much
TAIL_LINES = 15
# DVC's words on what is meant to be empty: the file of a baseline where nothing learns from labels,
# and the folder of further seeds where there is one.
MEANT_EMPTY = re.compile(r"WARNING: '\S+(/baselines/\S+|\.seeds)' is empty\.")
# The exit code of a command that such a signal ends: 128 and its number.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a study is to end, why, and whether at once. Any thread may ask or look."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason = ""
        self.number: int | None = None
        self.asked: list[str] = []

    def ask(self, reason: str, number: int | None = None) -> None:
        """Asked twice for one reason, processes are no longer given time to end in order.

        (A Ctrl-C reaches all processes of a terminal, and Prefect tells its flow by a SIGTERM, too:
        two signals of different kinds are one stop.)
        """
        self.asked.append(reason)
        if not self.event.is_set():
            self.reason, self.number = reason, number
            self.event.set()

    @property
    def is_patient(self) -> bool:
        return len(set(self.asked)) == len(self.asked)


@contextmanager
def signals_stop(stop: Stop) -> Iterator[None]:
    """Signals ask for the stop instead of breaking in anywhere; the third Ctrl-C does break in.

    A signal that this process was started to ignore stays without effect on it. It gets a handler
    all the same: processes started from here would inherit that they ignore it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        stop.ask(signal.Signals(number).name, number)
        if number == signal.SIGINT and len(stop.asked) > 2:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, _ignore if handler in (signal.SIG_IGN, _ignore) else ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, _: FrameType | None) -> None:
    pass


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. `tail` holds its last lines where it failed."""

    stage: str
    result: Result
    seconds: float
    ended: str
    tail: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        return self.result in SUCCESSES


def exit_code_of(outcomes: Iterable[Outcome]) -> int:
    """What a command whose stages ended like this ends with: 0, 2 for refusals alone, else 1."""
    tails = [" ".join(outcome.tail) for outcome in outcomes if outcome.result == "failed"]
    if tails and all(REFUSED.search(tail) for tail in tails):
        return 2
    return int(bool(tails))


def outcome_now(stage: str, result: Result, since_s: float, tail: tuple[str, ...] = ()) -> Outcome:
    """An outcome of this moment; `since_s` is the monotonic time of the start."""
    return Outcome(stage, result, round(time.monotonic() - since_s, 2), now_text(), tail)


def now_text() -> str:
    """This moment in local time, by ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat("T", "seconds")


def reproduce_stage(
    stage: str,
    environment: Mapping[str, str],
    stop: Stop,
    on_line: Callable[[str], None],
    options: Iterable[str] = (),
) -> Outcome:
    """Run one stage by DVC; again only where DVC could not have a lock.

    options: of `dvc repro`, such as --force.
    """
    since_s = time.monotonic()
    command = [*quick_command("dvc"), "--wait-for-lock", "repro", "-s", *options, stage]
    for attempt in range(ATTEMPTS):
        if stop.event.is_set():
            break
        code, lines = run_group(stage, command, environment, stop, on_line)
        if code == 0:
            return outcome_now(stage, _result_of(lines), since_s)
        is_lock_trouble = any(words in line for line in lines for words in LOCK_TROUBLE)
        if not is_lock_trouble or stop.event.wait(RETRY_AFTER_S * (1 + attempt)):
            break
    if stop.event.is_set():
        return outcome_now(stage, "stopped", since_s)
    ending = f"dvc was ended by signal {-code}" if code < 0 else f"dvc ended with exit code {code}"
    tail = [line for line in lines if line.strip()][-TAIL_LINES:]
    return outcome_now(stage, "failed", since_s, (*tail, ending))


def _result_of(lines: Iterable[str]) -> Result:
    """What DVC's lines say of a run that ended well."""
    for line in lines:
        if line.startswith("Stage '"):
            if "didn't change, skipping" in line:
                return "unchanged"
            if "is cached - skipping run" in line:
                return "restored"
    return "ran"


def run_group(
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    stop: Stop,
    on_line: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Run a command in a session of its own until it and all it started have ended.

    Returns its exit code and its lines, each of which `on_line` has got as it came, without those
    on what is meant to be empty.

    The command waits for a line of ours, which comes after its group is on disk: a study that is
    killed in between leaves no process that nobody knows of.
    """
    process = subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", 'read -r line && exec "$@"', "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    record = record_group(name, process.pid)
    lines: list[str] = []
    reading = (process.stdout, lines, on_line)
    reader = threading.Thread(target=_read_lines, args=reading, daemon=True)
    reader.start()
    with suppress(BrokenPipeError):  # it was ended already; its exit code tells
        process.stdin.write(b"go\n")
        process.stdin.close()
    while process.poll() is None:
        if stop.event.wait(0.05):
            end_group(process.pid, lambda: stop.is_patient)
    end_group(process.pid, lambda: stop.is_patient)  # what a killed dvc has left
    reader.join(timeout=5.0)
    record.unlink(missing_ok=True)
    return process.returncode, lines


def _read_lines(stream: IO[bytes], lines: list[str], on_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if not MEANT_EMPTY.fullmatch(text):
                lines.append(text)
                on_line(text)


def stage_environment(threads: int, gpu: str | None = None) -> dict[str, str]:
    """The environment of a stage: this Python's first on the path, its share of cores, its GPU."""
    own = Path(sys.executable).parent
    shares = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **os.environ,
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # as their lines are read
        **dict.fromkeys(shares, str(threads)),
        **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
    }
