"""A stage as a process group: its lines, its outcome, and when it is tried again."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dvc.stage.exceptions import StageCmdFailedError

from pipeline.flows import stage_runs
from pipeline.flows.stage_runs import (
    SIGNALS,
    Outcome,
    Stop,
    exit_code_of,
    outcome_now,
    reproduce_stage,
    signals_stop,
    stage_environment,
)
from pipeline.processes import FOLDER, group_members

BUSY = "ERROR: '/x/data' is busy, it is being blocked by:"
# A leader that dies like a killed DVC, and leaves a trainer that writes to the same pipe.
ORPHAN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("orphan", flush=True)
open("ready", "w").close()
time.sleep(60)
"""
ORPHANING = f"""
import os, signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {ORPHAN!r}])
while not os.path.exists("ready"):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_runs, "RETRY_AFTER_S", 0.01)


def run_group(program: str, stop: Stop | None = None) -> tuple[int, list[str]]:
    seen: list[str] = []
    command = [sys.executable, "-c", program]
    code, lines = stage_runs.run_group("a@b", command, os.environ, stop or Stop(), seen.append)
    assert seen == lines
    return code, lines


def reproduce(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, list[str]]]
) -> tuple[Outcome, int]:
    """The outcome where DVC answers so, and how often it was asked."""
    asked = 0

    def answer(
        name: str, command: list[str], environment: object, stop: Stop, on_line: Callable[..., None]
    ) -> tuple[int, list[str]]:
        nonlocal asked
        asked += 1
        assert command[3:] == ["dvc", "--wait-for-lock", "repro", "-s", "a"]
        return answers[min(asked, len(answers)) - 1]

    monkeypatch.setattr(stage_runs, "run_group", answer)
    outcome = reproduce_stage("a", {}, Stop(), print)
    return outcome, asked


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("Running stage 'a':", "ran"),
        ("Stage 'a' didn't change, skipping", "unchanged"),
        ("Stage 'a' is cached - skipping run, checking out outputs", "restored"),
    ],
)
def test_result_is_what_dvc_says(monkeypatch: pytest.MonkeyPatch, line: str, result: str) -> None:
    outcome, asked = reproduce(monkeypatch, [(0, [line, "Use `dvc push`"])])
    assert (outcome.result, outcome.is_success, asked) == (result, True, 1)


def test_lock_trouble_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, locked = (255, [BUSY]), (255, ["ERROR: Unable to acquire lock. Most likely"])
    outcome, asked = reproduce(monkeypatch, [busy, locked, (0, [])])
    assert (outcome.result, asked) == ("ran", 3)
    outcome, asked = reproduce(monkeypatch, [busy])
    assert (outcome.result, asked) == ("failed", stage_runs.ATTEMPTS)


def test_other_trouble_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"line {number}" for number in range(40)]
    outcome, asked = reproduce(monkeypatch, [(1, lines)])
    assert (outcome.result, asked) == ("failed", 1)
    assert outcome.tail[-2:] == ("line 39", "dvc ended with exit code 1")
    assert len(outcome.tail) == stage_runs.TAIL_LINES + 1
    outcome, _ = reproduce(monkeypatch, [(-9, [])])
    assert outcome.tail == ("dvc was ended by signal 9",)


def test_stopped_before_it_began() -> None:
    stop = Stop()
    stop.ask("SIGINT", 2)
    outcome = reproduce_stage("a", {}, stop, print, ["--force"])
    assert outcome.result == "stopped"


def test_lines_and_exit_code_of_a_group() -> None:
    code, lines = run_group("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert code == 3
    assert sorted(lines) == ["err", "out"]
    assert list(FOLDER.glob("*")) == []


def test_that_a_baseline_or_a_folder_of_seeds_is_empty_is_no_news() -> None:
    told = "WARNING: 'models/e/{}' is empty."
    files = ("students/x.safetensors", "baselines/x.safetensors", "teacher.seeds", "x.seeds/1.csv")
    lines = [told.format(file) for file in files]
    assert run_group(f"for line in {lines}: print(line)") == (0, [lines[0], lines[3]])


def test_group_is_on_disk_before_its_command_runs() -> None:
    program = "from pathlib import Path; print(*Path('.work/processes').glob('*'))"
    assert run_group(program) == (0, [str(FOLDER / "a@b.json")])


def test_orphan_of_a_killed_leader_is_ended() -> None:
    began_s = time.monotonic()
    code, lines = run_group(ORPHANING)
    assert (code, lines) == (-signal.SIGKILL, ["orphan"])
    assert time.monotonic() - began_s < 30  # the orphan would sleep for 60


def test_stop_ends_the_group_in_order() -> None:
    stop = Stop()
    program = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    print('up', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('tidied up')\n"
    )

    def take(line: str) -> None:
        if line == "up":  # asked a second time, it would be killed before it ends in order
            stop.ask("SIGTERM", 15)

    command = [sys.executable, "-c", program]
    told = stage_runs.run_group("a", command, os.environ, stop, take)
    assert told == (0, ["up", "tidied up"])


def test_every_group_has_a_session_of_its_own() -> None:
    code, lines = run_group("import os; print(os.getpid(), os.getpgid(0), os.getsid(0))")
    leader, group, session = lines[0].split()
    assert (code, leader, leader) == (0, group, session)
    assert int(session) != os.getsid(0)
    assert group_members(int(group)) == []


def test_environment_has_own_python_threads_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment = stage_environment(3)
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
    assert {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert stage_environment(1, "GPU-7")["CUDA_VISIBLE_DEVICES"] == "GPU-7"


def test_a_refusal_is_told_from_a_failure() -> None:
    """By DVC's own words for the exit code of a stage."""

    def ended(*codes: int) -> list[Outcome]:
        words = [str(StageCmdFailedError("python -m stages.prepare a", code)) for code in codes]
        return [outcome_now("prepare@a", "failed", 0.0, (one,)) for one in words]

    good = outcome_now("check", "ran", 0.0)
    assert exit_code_of([good]) == 0
    assert exit_code_of([good, *ended(2)]) == 2
    assert exit_code_of([good, *ended(1)]) == 1
    assert exit_code_of(ended(2, 1)) == 1
    assert exit_code_of(ended(255)) == 1
    assert exit_code_of(ended(2, 2)) == 2


@pytest.fixture
def not_deaf() -> Iterator[None]:
    """What a shell starts in its background ignores SIGINT; these tests do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signal_asks_for_the_stop(not_deaf: None) -> None:
    stop = Stop()
    with signals_stop(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.event.is_set()
        assert (stop.reason, stop.number) == ("SIGTERM", signal.SIGTERM)
        assert stop.is_patient
        os.kill(os.getpid(), signal.SIGINT)  # as where a terminal and a parent both pass it on
        assert stop.reason == "SIGTERM"
        assert stop.is_patient
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert not stop.is_patient


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals_stop(Stop()):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_signal_has_no_effect_but_a_handler() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    try:
        with signals_stop(stop), signals_stop(stop):
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.event.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def look() -> None:
        with signals_stop(Stop()):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == before
