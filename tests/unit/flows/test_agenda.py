"""What starts when: no process is started here."""

from collections.abc import Callable
from queue import SimpleQueue

import pytest

from pipeline.flows.agenda import Agenda
from pipeline.flows.stage_runs import Outcome, Result

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}


def outcome(stage: str, result: Result = "ran") -> Outcome:
    return Outcome(stage, result, 1.0, "now")


def run(
    agenda: Agenda, jobs: int, results: dict[str, Result] | None = None
) -> tuple[list[str], int]:
    """Stages in the order of their start, and how many ran at once; the oldest ends first."""
    ended: SimpleQueue[Outcome] = SimpleQueue()
    waiting: list[str] = []
    most = 0

    def start(stage: str) -> None:
        nonlocal most
        waiting.append(stage)
        most = max(most, len(agenda.running))
        if len(agenda.running) == jobs or len(agenda.ready()) == 0:
            first = waiting.pop(0)
            ended.put(outcome(first, (results or {}).get(first, "ran")))

    def nothing_more() -> bool:
        if ended.empty() and waiting:
            first = waiting.pop(0)
            ended.put(outcome(first, (results or {}).get(first, "ran")))
        return False

    agenda.advance(jobs, start, ended, until=nothing_more)
    return agenda.started, most


@pytest.mark.parametrize("jobs", [1, 2, 3, 10])
def test_all_run_once_after_their_upstreams(jobs: int) -> None:
    agenda = Agenda(DIAMOND, {})
    started, most = run(agenda, jobs)
    assert sorted(started) == sorted(DIAMOND)
    assert most <= jobs
    assert started.index("a") < min(started.index("b"), started.index("c"))
    assert started.index("d") > max(started.index("b"), started.index("c"))
    assert set(agenda.outcomes) == set(DIAMOND)


def test_upstreams_outside_the_agenda_are_done() -> None:
    assert Agenda({"d": ("b", "c"), "x": ("d",)}, {}).ready() == ["d"]


def test_longest_chain_starts_first() -> None:
    upstreams = {"short": (), "long": (), "after": ("short",), "last": ("after",)}
    assert Agenda(upstreams, {}).ready() == ["short", "long"]
    assert Agenda(upstreams, {"long": 60.0}).ready() == ["long", "short"]


@pytest.mark.parametrize(("broken", "left"), [("b", ["d"]), ("a", ["b", "c", "d"]), ("e", [])])
def test_failure_keeps_back_dependents_only(broken: str, left: list[str]) -> None:
    agenda = Agenda(DIAMOND, {})
    run(agenda, 2, {broken: "failed"})
    assert agenda.not_started == left
    assert agenda.outcomes[broken].result == "failed"
    assert agenda.running == []


def test_nothing_running_is_not_the_end_while_something_may_start() -> None:
    agenda = Agenda(DIAMOND, {})
    ended: SimpleQueue[Outcome] = SimpleQueue()
    rounds = iter([False, True])
    is_over = agenda.advance(1, lambda name: ended.put(outcome(name)), ended, until=rounds.__next__)
    assert (is_over, agenda.running, agenda.not_started) == (False, [], ["b", "c", "d", "e"])
    assert agenda.advance(1, lambda name: ended.put(outcome(name)), ended)
    assert agenda.not_started == []


@pytest.mark.parametrize("result", ["restored", "unchanged"])
def test_other_good_ends_let_dependents_start(result: Result) -> None:
    agenda = Agenda(DIAMOND, {})
    run(agenda, 2, dict.fromkeys(DIAMOND, result))
    assert agenda.not_started == []


def test_draining_starts_nothing_but_waits() -> None:
    agenda = Agenda(DIAMOND, {})
    ended: SimpleQueue[Outcome] = SimpleQueue()
    begun: list[str] = []
    start: Callable[[str], None] = begun.append
    rounds = iter([False, True])
    agenda.advance(1, start, ended, until=lambda: next(rounds))
    assert begun == ["a"]
    ended.put(outcome("a"))
    agenda.advance(1, start, ended, draining=lambda: True)
    assert begun == ["a"]
    assert agenda.running == []
    agenda.advance(0, start, ended)
    assert begun == ["a"]
