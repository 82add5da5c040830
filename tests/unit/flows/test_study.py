"""A study over a graph that is made by hand: which stages it asks DVC for, and what it tells."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.datasets.reader import DatasetError
from pipeline.datasets.remote import RECORD
from pipeline.files import write_json
from pipeline.flows import run_state, study
from pipeline.flows.graph import StageGraph
from pipeline.flows.stage_runs import Outcome, Stop, outcome_now
from pipeline.flows.study import Study, planned_study
from pipeline.flows.terminal import Terminal
from tests.sleepy_study import make_sleepy_study

GRAPH = StageGraph(
    {"a": (), "b": ("a",), "c": ("b",)},
    {"a": ("lr modified",)},
    frozenset("abc"),
)
LOCK = """\
schema: '2.0'
stages:
  a:
    cmd: x
    outs: [{{path: one, md5: '{a}'}}]
  b:
    cmd: x
    outs: [{{path: two, md5: '2'}}]
"""
Reproduce = Callable[[str, Callable[[str], None]], Outcome]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Study]]:
    """Makes a study whose stages are run by a function instead of DVC."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("threads: 1\n")
    Path("dvc.lock").write_text(LOCK.format(a=1))
    with run_state.hold_workspace() as state:

        def make(reproduce: Reproduce, *, fresh: bool = False) -> Study:
            def run(
                stage: str,
                environment: object,
                stop: Stop,
                on_line: Callable[[str], None],
                _: object,
            ) -> Outcome:
                return reproduce(stage, on_line)

            monkeypatch.setattr(study, "reproduce_stage", run)
            return Study(GRAPH, GRAPH, state, Stop(), Terminal(), jobs=1, fresh=fresh)

        yield make


def results(one: Study) -> dict[str, str]:
    return {stage: outcome.result for stage, outcome in one.outcomes.items()}


def test_what_comes_out_as_it_was_runs_nothing_after_it(made: Callable[..., Study]) -> None:
    asked: list[str] = []

    def reproduce(stage: str, on_line: Callable[[str], None]) -> Outcome:
        asked.append(stage)
        return outcome_now(stage, "ran", 0.0)

    one = made(reproduce)
    assert one.dirty == ["a", "b", "c"]
    assert one.advance()
    assert results(one) == {"a": "ran", "b": "unchanged", "c": "unchanged"}
    assert asked == ["a"]
    assert one.is_success
    other = made(reproduce, fresh=True)
    other.advance()
    assert asked == ["a", "a", "b", "c"]


def test_what_changes_is_passed_on(made: Callable[..., Study]) -> None:
    def reproduce(stage: str, on_line: Callable[[str], None]) -> Outcome:
        if stage == "a":
            Path("dvc.lock").write_text(LOCK.format(a=9))
        on_line(f"{stage}: one line")
        return outcome_now(stage, "ran", 0.0)

    one = made(reproduce)
    one.advance()
    assert results(one) == {"a": "ran", "b": "ran", "c": "unchanged"}
    told = one.run("b")
    assert [told.get(), told.get()] == ["b: one line", one.outcomes["b"]]
    state = run_state.read_state()
    assert state is not None
    assert state["stages"]["b"]["state"] == "ran"
    assert state["plan"] == ["a", "b", "c"]


def test_a_fault_of_ours_is_a_failure_of_the_stage(made: Callable[..., Study]) -> None:
    def reproduce(stage: str, on_line: Callable[[str], None]) -> Outcome:
        raise OSError("disk full")

    one = made(reproduce)
    one.advance()
    assert results(one) == {"a": "failed"}
    assert one.outcomes["a"].tail == ("OSError: disk full",)
    assert one.not_run == ["b", "c"]
    assert not one.is_success


def test_a_stop_starts_nothing_and_is_no_success(made: Callable[..., Study]) -> None:
    def reproduce(stage: str, on_line: Callable[[str], None]) -> Outcome:
        raise AssertionError(stage)

    one = made(reproduce)
    one.stop.ask("SIGINT", 2)
    assert one.advance()
    assert results(one) == {}
    assert not one.is_success
    assert one.lines()[0].startswith("study stopped (SIGINT) after")


def test_a_study_compares_its_inputs_with_their_stores_before_it_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a store is told before anything runs."""
    make_sleepy_study(tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    with Path("params.yaml").open("a", encoding="utf-8") as file:
        file.write("inputs:\n  a: remote/a\n")
    folder = Path("remote/a")
    folder.mkdir(parents=True)
    write_json(folder / RECORD, {"address": "memory://nowhere/birds", "objects": {}})
    with pytest.raises(DatasetError, match="memory://nowhere/birds: "), planned_study():
        pass
    assert not Path("dvc.lock").exists()
