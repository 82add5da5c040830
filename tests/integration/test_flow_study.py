"""The whole flow, over a small DVC project of sleeping stages: real processes, a real server."""

import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.flows.server import prefect_server
from tests.killed_studies import faults, kill_round
from tests.sleepy_study import (
    forget_results,
    make_sleepy_study,
    processes_in,
    serial_lock,
    start_study,
    write_plan,
    write_students,
)

ORDER = ["prepare@a", "distill@a-64", "distill@a-48"]
ORDER += ["evaluate@a-64", "evaluate@a-48", "tradeoff@a"]
PATIENCE_S = 400  # others may be at work on this machine


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server that all studies here report to."""
    before, here = dict(os.environ), Path.cwd()
    os.chdir(tmp_path_factory.mktemp("prefect"))
    try:
        with prefect_server() as server:
            server.wait()
            yield server.url
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A project and the dvc.lock that `dvc repro` leaves in it."""
    folder = tmp_path_factory.mktemp("serial").resolve() / "study"
    make_sleepy_study(folder)
    return folder, serial_lock(folder)


@pytest.fixture
def project(serial: tuple[Path, bytes]) -> Path:
    """The project with nothing done yet."""
    folder = serial[0]
    write_plan(folder, 0.2)
    write_students(folder, ("a-64", "a-48"))
    forget_results(folder)
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and the output of a study."""
    study = start_study(folder, *arguments, **environment)
    output, _ = study.communicate(timeout=PATIENCE_S)
    return study.returncode, output


def ask(api: str, path: str, **filters: Any) -> Any:
    """An answer of Prefect's API."""
    import urllib.request

    request = urllib.request.Request(  # noqa: S310
        f"{api}/{path}",
        json.dumps(filters).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def flow_run_of(folder: Path) -> str:
    return str(json.loads((folder / ".work" / "study.json").read_text())["flow_run_id"])


def task_states(api: str, flow_run: str) -> dict[str, str]:
    of_run = {"id": {"any_": [flow_run]}}
    rows = ask(api, "task_runs/filter", flow_runs=of_run)
    return {row["name"]: row["state"]["name"] for row in rows}


def test_parallel_leaves_what_serial_leaves(
    project: Path, serial: tuple[Path, bytes], api: str
) -> None:
    code, output = run(project, PREFECT_API_URL=api)
    assert code == 0, output
    assert (project / "dvc.lock").read_bytes() == serial[1]
    assert "6 done" in output
    run_id = flow_run_of(project)
    assert task_states(api, run_id) == dict.fromkeys(ORDER, "Completed")
    (flow,) = ask(api, "flow_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    assert flow["state"]["type"] == "COMPLETED"
    datasets = {stage.partition("@")[2] for stage in ORDER if stage.startswith("prepare@")}
    assert set(flow["tags"]) == datasets
    tasks = ask(api, "task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    assert {row["name"]: set(row["tags"]) for row in tasks} == {
        stage: set(stage.split("@")) for stage in ORDER
    }
    found = ask(api, "artifacts/filter", flow_runs={"id": {"any_": [run_id]}})
    assert {artifact["key"] for artifact in found} == {"plan", "stages", "tradeoff-a"}
    plan = next(json.loads(row["data"]) for row in found if row["key"] == "plan")
    assert [row["stage"] for row in plan] == ORDER
    logs = ask(api, "logs/filter", logs={"flow_run_id": {"any_": [run_id]}})
    assert any("prepare@a: from step 0" in row["message"] for row in logs)

    code, output = run(project, PREFECT_API_URL=api)
    assert (code, "up to date" in output) == (0, True)

    write_students(project, ("a-64",))
    code, output = run(project, PREFECT_API_URL=api)
    assert code == 0, output
    assert "1 done" in output
    assert (project / "models/a-48").exists()  # what left the study stays
    assert not processes_in(project)


def test_cell_that_fails_lets_siblings_end(
    project: Path, serial: tuple[Path, bytes], api: str
) -> None:
    write_plan(project, 0.2, failing="distill@a-48")
    code, output = run(project, PREFECT_API_URL=api)
    assert code == 1
    assert "failed: distill@a-48" in output
    assert "error: distill@a-48 was told to fail" in output
    assert "not run: evaluate@a-48, tradeoff@a" in output
    states = task_states(api, flow_run_of(project))
    good = dict.fromkeys(set(ORDER) - {"distill@a-48", "evaluate@a-48", "tradeoff@a"}, "Completed")
    kept_back = {"evaluate@a-48": "NotReady", "tradeoff@a": "NotReady"}
    assert states == {**good, "distill@a-48": "Failed", **kept_back}

    write_plan(project, 0.2)
    code, output = run(project, PREFECT_API_URL=api)
    assert code == 0, output
    assert "3 done" in output
    assert (project / "dvc.lock").read_bytes() == serial[1]


def test_unknown_target_is_refused(project: Path) -> None:
    code, output = run(project, "distil@a-64")
    assert code == 2
    assert "unknown targets: distil@a-64; stages: prepare@a" in output


def test_second_study_is_told_who_holds_and_the_first_can_be_cancelled(
    project: Path, api: str
) -> None:
    write_plan(project, 3.0)
    first = start_study(project, PREFECT_API_URL=api)
    until = time.monotonic() + PATIENCE_S
    record: dict[str, Any] = {}
    while "flow_run_id" not in record and time.monotonic() < until:
        time.sleep(0.2)
        if (project / ".work" / "study.json").exists():
            record = json.loads((project / ".work" / "study.json").read_text())
    code, output = run(project)
    assert code == 2
    assert f"a study runs here already: process {first.pid} on {record['host']}" in output

    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    ask(api, f"flow_runs/{record['flow_run_id']}/set_state", **cancelling)
    output, _ = first.communicate(timeout=PATIENCE_S)
    assert "stopped (cancelled in Prefect)" in output
    assert not processes_in(project)
    of_run = {"id": {"any_": [record["flow_run_id"]]}}
    assert ask(api, "flow_runs/filter", flow_runs=of_run)[0]["state"]["type"] == "CANCELLED"


def test_without_a_server_it_has_its_own(project: Path, api: str) -> None:
    # A database that is there already saves ten seconds; the servers do not share one.
    home = project / ".prefect"
    home.mkdir()
    known = sqlite3.connect(Path(os.environ["PREFECT_HOME"]) / "prefect.db")
    with closing(known), closing(sqlite3.connect(home / "prefect.db")) as copy:
        known.backup(copy)
        runs_before = _count_runs(copy)
    code, output = run(project, "prepare", PREFECT_HOME=str(home))
    assert code == 0, output
    assert "1 done" in output
    assert flow_run_of(project)
    with closing(sqlite3.connect(home / "prefect.db")) as own:
        assert _count_runs(own) == runs_before + 1
    assert not processes_in(project)


def _count_runs(database: sqlite3.Connection) -> int:
    return int(database.execute("select count(*) from flow_run").fetchone()[0])


def test_killed_at_any_moment_the_next_start_ends_it(
    project: Path, serial: tuple[Path, bytes], api: str
) -> None:
    dice = random.Random(4)  # noqa: S311
    turns = [
        ("flow", signal.SIGINT),
        ("flow", signal.SIGKILL),
        ("dvc", signal.SIGKILL),
    ]
    for turn in turns:
        done = kill_round(project, dice, turn, 6.0, PREFECT_API_URL=api)
        assert faults(project, serial[1], done) == [], done
        if done.hit and turn == ("flow", signal.SIGINT):
            assert done.code == 130
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    assert ask(api, "flow_runs/filter", flow_runs=running) == []
