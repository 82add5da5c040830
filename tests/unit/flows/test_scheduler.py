"""What starts when, and with which cores and GPUs: no stage is started here."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from pipeline.flows.scheduler import Gpus, Scheduler, share_cores, study_shares, visible_gpus
from pipeline.flows.stage_runs import Outcome, Result

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}


def outcome(stage: str, result: Result = "ran") -> Outcome:
    return Outcome(stage, result, 1.0, "now")


def run(
    scheduler: Scheduler, jobs: int, results: dict[str, Result] | None = None
) -> tuple[list[str], int]:
    """Stages in the order of their start, and how many ran at once; the oldest ends first."""
    ended: SimpleQueue[Outcome] = SimpleQueue()
    waiting: list[str] = []
    most = 0

    def start(stage: str) -> None:
        nonlocal most
        waiting.append(stage)
        most = max(most, len(scheduler.running))
        if len(scheduler.running) == jobs or len(scheduler.ready()) == 0:
            first = waiting.pop(0)
            ended.put(outcome(first, (results or {}).get(first, "ran")))

    def nothing_more() -> bool:
        if ended.empty() and waiting:
            first = waiting.pop(0)
            ended.put(outcome(first, (results or {}).get(first, "ran")))
        return False

    scheduler.advance(jobs, start, ended, until=nothing_more)
    return scheduler.started, most


@pytest.mark.parametrize("jobs", [1, 2, 3, 10])
def test_all_run_once_after_their_upstreams(jobs: int) -> None:
    scheduler = Scheduler(DIAMOND, {})
    started, most = run(scheduler, jobs)
    assert sorted(started) == sorted(DIAMOND)
    assert most <= jobs
    assert started.index("a") < min(started.index("b"), started.index("c"))
    assert started.index("d") > max(started.index("b"), started.index("c"))
    assert set(scheduler.outcomes) == set(DIAMOND)


def test_upstreams_outside_the_study_are_done() -> None:
    assert Scheduler({"d": ("b", "c"), "x": ("d",)}, {}).ready() == ["d"]


def test_longest_chain_starts_first() -> None:
    upstreams = {"short": (), "long": (), "after": ("short",), "last": ("after",)}
    assert Scheduler(upstreams, {}).ready() == ["short", "long"]
    assert Scheduler(upstreams, {"long": 60.0}).ready() == ["long", "short"]


@pytest.mark.parametrize(("broken", "left"), [("b", ["d"]), ("a", ["b", "c", "d"]), ("e", [])])
def test_failure_keeps_back_dependents_only(broken: str, left: list[str]) -> None:
    scheduler = Scheduler(DIAMOND, {})
    run(scheduler, 2, {broken: "failed"})
    assert scheduler.not_started == left
    assert scheduler.outcomes[broken].result == "failed"
    assert scheduler.running == []


def test_nothing_running_is_not_the_end_while_something_may_start() -> None:
    scheduler = Scheduler(DIAMOND, {})
    ended: SimpleQueue[Outcome] = SimpleQueue()
    rounds = iter([False, True])
    is_over = scheduler.advance(
        1, lambda name: ended.put(outcome(name)), ended, until=rounds.__next__
    )
    assert (is_over, scheduler.running, scheduler.not_started) == (False, [], ["b", "c", "d", "e"])
    assert scheduler.advance(1, lambda name: ended.put(outcome(name)), ended)
    assert scheduler.not_started == []


@pytest.mark.parametrize("result", ["restored", "unchanged"])
def test_other_good_ends_let_dependents_start(result: Result) -> None:
    scheduler = Scheduler(DIAMOND, {})
    run(scheduler, 2, dict.fromkeys(DIAMOND, result))
    assert scheduler.not_started == []


def test_draining_starts_nothing_but_waits() -> None:
    scheduler = Scheduler(DIAMOND, {})
    ended: SimpleQueue[Outcome] = SimpleQueue()
    begun: list[str] = []
    start: Callable[[str], None] = begun.append
    rounds = iter([False, True])
    scheduler.advance(1, start, ended, until=lambda: next(rounds))
    assert begun == ["a"]
    ended.put(outcome("a"))
    scheduler.advance(1, start, ended, draining=lambda: True)
    assert begun == ["a"]
    assert scheduler.running == []
    scheduler.advance(0, start, ended)
    assert begun == ["a"]


@pytest.mark.parametrize(
    ("asked", "threads", "cores", "jobs", "is_told"),
    [
        (None, 1, 2, 2, False),
        (None, 1, 1, 1, False),
        (None, 1, 64, 4, False),
        (None, 2, 6, 3, False),
        (None, 4, 2, 1, False),
        (1, 1, 2, 1, False),
        (16, 1, 64, 16, False),
        (4, 1, 2, 2, True),
        (3, 2, 4, 2, True),
        (2, 8, 4, 1, True),
    ],
)
def test_threads_do_not_outnumber_cores(
    asked: int | None, threads: int, cores: int, jobs: int, is_told: bool
) -> None:
    shared, message = share_cores(asked, threads, cores)
    assert shared == jobs
    assert bool(message) == is_told
    assert shared == 1 or shared * threads <= cores


def test_message_names_what_to_change() -> None:
    _, message = share_cores(8, 2, 4)
    assert message == (
        "2 at a time instead of 8: threads x compute.processes = 2 in params.yaml, the cores are 4"
    )


def test_shares_are_those_of_params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("threads: 3\ncompute: {processes: 2}\n")
    assert study_shares() == (3, 2)
    Path("params.yaml").write_text("")
    assert study_shares() == (1, 1)


@pytest.mark.parametrize(
    ("given", "names"),
    [("0,2", ["0", "2"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("-1", [])],
)
def test_gpus_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_gpus_are_counted_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU 0: x (UUID: a)\\nGPU 1: x (UUID: b)\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert visible_gpus() == []


def test_each_gpu_is_lent_before_one_is_lent_twice() -> None:
    gpus = Gpus(["0", "1"])
    with ExitStack() as first:
        lent = [first.enter_context(gpus.some()) for _ in range(3)]
        assert lent == ["0", "1", "0"]
    with ExitStack() as second:
        with gpus.some() as given_back:
            assert given_back == "0"
            assert second.enter_context(gpus.some()) == "1"
        assert second.enter_context(gpus.some()) == "0"


def test_each_process_of_a_stage_gets_a_gpu() -> None:
    gpus = Gpus(["0", "1", "2", "3"], each=2)
    with gpus.some() as first, gpus.some() as second:
        assert (first, second) == ("0,1", "2,3")
        with gpus.some() as third:
            assert third == "0,1"


@pytest.mark.parametrize("names", [[], ["0"]])
def test_no_choice_of_gpus_is_no_assignment(names: list[str]) -> None:
    with Gpus(names).some() as gpu:
        assert gpu is None
