"""Who holds the workspace, and what is known of stages."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.flows import run_state
from pipeline.flows.graph import StageGraph
from pipeline.flows.stage_runs import Outcome

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
from pipeline.flows.run_state import hold_workspace
with hold_workspace():
    print("holds", flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start_holder() -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    return holder


def test_second_holder_is_told_of_the_first() -> None:
    with start_holder() as holder:
        told = f"a study runs here already: process {holder.pid} on {socket.gethostname()}, since "
        with pytest.raises(ValueError, match=told), run_state.hold_workspace():
            raise AssertionError("held twice")
        running = run_state.running_study()
        assert running is not None
        assert running["pid"] == str(holder.pid)
        holder.communicate("\n")
    assert run_state.running_study() is None
    with run_state.hold_workspace() as state:
        assert state.previous is None


def test_killed_holder_lets_go_and_leaves_his_record() -> None:
    with start_holder() as holder:
        holder.kill()
        holder.wait()
    assert run_state.running_study() is None
    with run_state.hold_workspace() as state:
        assert state.previous is not None
        assert state.previous["pid"] == str(holder.pid)
    left = run_state.read_state()
    assert left is not None
    assert left["ended"]


def test_a_killed_run_is_handed_on_by_who_closes_none() -> None:
    with run_state.hold_workspace() as state:
        state.note(flow_run_id="lost")
        killed = run_state.STATE.read_text()
    run_state.STATE.write_text(killed)
    with run_state.hold_workspace():  # such as `l2s gc`
        gc_killed = run_state.STATE.read_text()
    for left in (run_state.STATE.read_text(), gc_killed):
        run_state.STATE.write_text(left)
        with run_state.hold_workspace() as state:
            assert state.previous is not None
            assert state.previous["flow_run_id"] == "lost"


def test_an_error_is_an_end_and_no_kill() -> None:
    with pytest.raises(ValueError, match="misspelt"), run_state.hold_workspace():
        raise ValueError("misspelt")
    left = run_state.read_state()
    assert left is not None
    assert left["ended"]


def test_study_of_another_machine_counts_as_running_while_it_holds_the_lock() -> None:
    with run_state.hold_workspace():
        facts = json.loads(run_state.STATE.read_text())
        run_state.STATE.write_text(
            json.dumps({**facts, "host": "elsewhere", "pid": str(2**22 + 1)})
        )
        assert run_state.running_study() is not None
        run_state.STATE.write_text(json.dumps({**facts, "pid": str(2**22 + 1)}))
        assert run_state.running_study() is None
    run_state.STATE.write_text(json.dumps({**facts, "host": "elsewhere"}))  # killed there
    assert run_state.running_study() is None
    assert run_state.at_work() is None
    run_state.LOCK.unlink()
    run_state.LOCK.mkdir()  # as where no lock can be had
    assert run_state.running_study() is not None


def test_record_follows_the_stages() -> None:
    with run_state.hold_workspace() as state:
        before = [["a", "fresh", ""], ["b", "stale", "x modified"], ["c", "not yet run", ""]]
        state.note(before=before, plan=["b", "c"])
        assert run_state.states_of_running(json.loads(run_state.STATE.read_text())) == {
            "a": ("fresh", ""),
            "b": ("waiting", ""),
            "c": ("waiting", ""),
        }
        state.note_stage("b", "restored")
        state.note_stage("c", "running")
        rows = run_state.states_of_running(json.loads(run_state.STATE.read_text()))
    assert list(rows) == ["a", "b", "c"]
    assert rows["b"] == ("fresh", "")
    assert rows["c"][0] == "running"
    assert rows["c"][1].startswith("since ")


def test_record_of_a_study_that_plans_knows_no_stages() -> None:
    with run_state.hold_workspace():
        facts = run_state.read_state()
    assert facts is not None
    assert run_state.states_of_running(facts) == {}


def test_without_a_record_nothing_runs() -> None:
    assert run_state.read_state() is None
    assert run_state.running_study() is None


def test_last_runs_keep_what_did_work() -> None:
    ran = Outcome("distill@a-64", "ran", 12.5, "2026-01-01T00:00:00+00:00")
    failed = Outcome("teach@a", "failed", 1.0, "2026-01-01T00:00:00+00:00", ("no", "memory"))
    for outcome in (ran, failed):
        run_state.note_outcome(outcome)
    run_state.note_outcome(Outcome("distill@a-64", "unchanged", 0.0, "later"))
    runs = run_state.last_outcomes()
    assert runs["distill@a-64"] == ran
    assert runs["teach@a"] == failed


def test_states_of_stages_at_rest() -> None:
    graph = StageGraph(
        {"done": (), "edited": (), "after": ("edited",), "broken": (), "new": (), "cloned": ()},
        {
            "edited": ("lr modified", "x deleted"),
            "broken": ("y",),
            "new": ("z",),
            "cloned": ("a/in deleted", "a/out not in cache"),
        },
        frozenset({"done", "edited", "after", "broken", "cloned"}),
    )
    runs = {"broken": Outcome("broken", "failed", 1.0, "now", ("line", "out of memory"))}
    assert run_state.stage_states(graph, runs) == {
        "done": ("fresh", ""),
        "edited": ("stale", "lr modified; x deleted"),
        "after": ("stale", "after edited"),
        "broken": ("failed", "out of memory"),
        "new": ("not yet run", ""),
        "cloned": ("not here", "its files are gone, or were made elsewhere"),
    }
