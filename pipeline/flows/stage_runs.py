"""One stage as a DVC process in a session of its own."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Literal

from pipeline.flows.stops import Stop
from pipeline.processes import end_group, record_group

Result = Literal["ran", "restored", "unchanged", "failed", "stopped"]
SUCCESSES = ("ran", "restored", "unchanged")
REFUSED = "exited with 2"  # DVC's words for a stage's exit code
LOCK_TROUBLE = ("is busy, it is being blocked by", "Unable to acquire lock")
ATTEMPTS = 5
RETRY_AFTER_S = 1.0  # the first time; each time longer by as much
TAIL_LINES = 15


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

    @property
    def is_refusal(self) -> bool:
        """Whether it failed for what it was given, such as a damaged archive: exit code 2."""
        return self.result == "failed" and any(REFUSED in line for line in self.tail)


def exit_code_of(outcomes: Iterable[Outcome]) -> int:
    """What a command whose stages ended like this ends with: 0, 2 for refusals alone, else 1."""
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    if failed and all(outcome.is_refusal for outcome in failed):
        return 2
    return int(bool(failed))


def outcome_now(stage: str, result: Result, since_s: float, tail: tuple[str, ...] = ()) -> Outcome:
    """An outcome of this moment; `since_s` is the monotonic time of the start."""
    ended = datetime.now().astimezone().isoformat("T", "seconds")
    return Outcome(stage, result, round(time.monotonic() - since_s, 2), ended, tail)


class StageRun:
    """A stage on its way, in a thread: its lines as they come, and its outcome in the end."""

    def __init__(self, work: Callable[[Callable[[str], None]], Outcome]) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._outcome: Future[Outcome] = Future()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[Callable[[str], None]], Outcome]) -> None:
        try:
            self._outcome.set_result(work(self._lines.put))
        except BaseException as error:  # to whoever asks for the outcome
            self._outcome.set_exception(error)
        finally:
            self._lines.put(None)

    def lines(self) -> Iterator[str]:
        """Its lines so far and to come; ends with the stage. For one reader."""
        return iter(self._lines.get, None)

    def outcome(self) -> Outcome:
        """Waits for the end."""
        return self._outcome.result()


def reproduce_stage(
    stage: str,
    *,
    force: bool,
    environment: Mapping[str, str],
    stop: Stop,
    on_line: Callable[[str], None],
) -> Outcome:
    """Run one stage by DVC; again only where DVC could not have a lock."""
    since_s = time.monotonic()
    options = ["--force"] if force else []
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", *options, stage]
    for attempt in range(ATTEMPTS):
        if stop.event.is_set():
            return outcome_now(stage, "stopped", since_s)
        facts = _Facts()

        def take(line: str, facts: "_Facts" = facts) -> None:
            facts.take(line)
            on_line(line)

        code = run_group(stage, command, environment, stop, take)
        if code == 0:
            return outcome_now(stage, facts.result, since_s)
        if not facts.lock_trouble or stop.event.wait(RETRY_AFTER_S * (1 + attempt)):
            break
    if stop.event.is_set():
        return outcome_now(stage, "stopped", since_s)
    ending = f"dvc was ended by signal {-code}" if code < 0 else f"dvc ended with exit code {code}"
    return outcome_now(stage, "failed", since_s, (*facts.tail, ending))


class _Facts:
    """What DVC's lines say of a run."""

    def __init__(self) -> None:
        self.result: Result = "ran"
        self.lock_trouble = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def take(self, line: str) -> None:
        self.lock_trouble |= any(words in line for words in LOCK_TROUBLE)
        if line.startswith("Stage '"):
            if "didn't change, skipping" in line:
                self.result = "unchanged"
            elif "is cached - skipping run" in line:
                self.result = "restored"
        if line.strip():
            self.tail.append(line)


def run_group(
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    stop: Stop,
    on_line: Callable[[str], None],
) -> int:
    """Run a command in a session of its own until it and all it started have ended; its exit code.

    The command waits for a word of ours, which comes after its group is on disk: a study that is
    killed in between leaves no process that nobody knows of.
    """
    process = subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", 'read -r word && exec "$@"', "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    record = record_group(name, process.pid)
    reader = threading.Thread(target=_read_lines, args=(process.stdout, on_line), daemon=True)
    reader.start()
    try:
        process.stdin.write(b"go\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it was ended already; its exit code tells
    while True:
        try:
            process.wait(timeout=0.1)
            break
        except subprocess.TimeoutExpired:
            if stop.event.is_set():
                end_group(process.pid, lambda: stop.is_patient)
    end_group(process.pid, lambda: stop.is_patient)  # what a killed dvc has left
    reader.join(timeout=5.0)
    record.unlink(missing_ok=True)
    return process.returncode


def _read_lines(stream: IO[bytes], on_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            on_line(line.decode(errors="replace").rstrip())


def stage_environment(threads: int, gpu: str | None = None) -> dict[str, str]:
    """The environment of a stage: this Python's first on the path, its share of cores, its GPU."""
    own = Path(sys.executable).parent
    shares = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **os.environ,
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(shares, str(threads)),
        **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
    }
