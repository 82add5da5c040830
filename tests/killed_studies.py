"""Rounds of killing a study at a random moment and running it to its end again."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.sleepy_study import forget_results, processes_in, start_study

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
VICTIMS = ("flow", "dvc", "trainer")
END_PATIENCE_S = 600  # the machine may be busy; who waits longer hangs
# Beside the moment, everything takes its turn.
TURNS = tuple((victim, number) for number in SIGNALS for victim in VICTIMS)


@dataclass(frozen=True)
class Subject:
    """The kind of study that is killed: how it starts, what makes it start from nothing again."""

    start: Callable[..., "subprocess.Popen[str]"]  # of the folder, and environment variables
    forget: Callable[[Path], None]
    trainer: str  # what the command of a stage's process contains


SLEEPY = Subject(start_study, forget_results, "python step.py")


@dataclass(frozen=True)
class Round:
    """What was done to whom, when, and what the study's exit codes then were."""

    victim: str
    signal: str
    after_s: float
    hit: bool
    code: int
    left: dict[int, str]
    next_code: int
    next_s: float
    output: str  # of both starts


def victims(folder: Path, flow_pid: int, kind: str, trainer: str) -> list[int]:
    """The processes of a kind, those of the flow itself aside."""
    if kind == "flow":
        return [flow_pid]
    marks = {"dvc": " dvc --wait-for-lock", "trainer": trainer}
    return [pid for pid, command in processes_in(folder).items() if marks[kind] in command]


def kill_round(
    folder: Path,
    dice: random.Random,
    turn: tuple[str, signal.Signals],
    longest_s: float,
    subject: Subject = SLEEPY,
    **environment: str,
) -> Round:
    """Start from nothing, kill at a random moment, wait for the end; then run to the study's end.

    The moment is 1 to `longest_s` seconds after the start. `left` are the processes that work in
    the folder after the flow has ended.
    """
    kind, number = turn
    subject.forget(folder)
    study = subject.start(folder, **environment)
    until_s = time.monotonic() + dice.uniform(1.0, longest_s)
    hit, began_s = False, time.monotonic()
    while study.poll() is None and not hit:
        time.sleep(0.05)
        found = victims(folder, study.pid, kind, subject.trainer)
        if time.monotonic() > until_s and found:
            try:
                os.kill(dice.choice(found), number)
                hit = True
            except ProcessLookupError:
                continue
    after_s = time.monotonic() - began_s
    end = _end_of(study), processes_in(folder)
    done = kind, number.name, round(after_s, 1), hit
    return _finished(folder, study, done, end, subject, **environment)


def full_disk_round(
    folder: Path, dice: random.Random, longest_s: float, subject: Subject = SLEEPY
) -> Round:
    """As `kill_round`, but at the random moment the disk of the folder is filled, until the end."""
    subject.forget(folder)
    study = subject.start(folder)
    after_s = dice.uniform(1.0, longest_s)
    with suppress(subprocess.TimeoutExpired):
        study.wait(timeout=after_s)
    hit, ballast = study.poll() is None, folder.with_name("ballast")
    try:
        while study.poll() is None:
            fill_disk(ballast)
            time.sleep(0.05)
        end = _end_of(study), processes_in(folder)
    finally:
        ballast.unlink(missing_ok=True)
    return _finished(folder, study, ("disk", "full", round(after_s, 1), hit), end, subject)


def fill_disk(ballast: Path) -> None:
    """Let a file take all that is free on its disk, which must be a small one made for it."""
    total_bytes = shutil.disk_usage(ballast.parent).total
    assert total_bytes < 1 << 31, f"{ballast.parent}: {total_bytes} bytes: no disk for this"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12, 1 << 8, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def _finished(
    folder: Path,
    study: "subprocess.Popen[str]",
    done: tuple[str, str, float, bool],
    end: tuple[str, dict[int, str]],
    subject: Subject,
    **environment: str,
) -> Round:
    """The round, after the next start has run to its end."""
    since_s = time.monotonic()
    again = subject.start(folder, **environment)
    next_output = _end_of(again)
    output, left = end
    return Round(
        *done,
        study.returncode,
        left,
        again.returncode,
        round(time.monotonic() - since_s, 1),
        output + "-----\n" + next_output,
    )


def _end_of(study: "subprocess.Popen[str]") -> str:
    """The output of a study; its pipe stays open as long as anything it left behind lives."""
    study.wait(timeout=END_PATIENCE_S)
    assert study.stdout is not None
    with study.stdout:
        return study.stdout.read()


def faults(folder: Path, reference: bytes, done: Round) -> list[str]:
    """What is wrong after a round; nothing, if all is well."""
    found = []
    if done.left and (done.victim, done.signal) != ("flow", "SIGKILL"):
        found.append(f"processes left: {done.left}")
    if done.next_code != 0:
        found.append(f"the next start ended with {done.next_code}")
    if (folder / "dvc.lock").read_bytes() != reference:
        found.append("dvc.lock differs from the serial one")
    if still := processes_in(folder):
        found.append(f"processes left by the next start: {still}")
    if list((folder / ".work" / "processes").glob("*.json")):
        found.append("records of processes left")
    return found
