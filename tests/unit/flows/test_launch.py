"""How a study and a retraining start where Prefect does not: they go on without its record."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.flows import launch, run_state
from pipeline.flows.retraining import Request
from pipeline.flows.server import ServerError
from pipeline.flows.stage_runs import Stop


class DeadServer:
    url = "http://127.0.0.1:1/api"

    def is_up(self) -> bool:
        raise ServerError("it died")

    wait = is_up


class MadeStudy:
    """What `run_study` uses of a study, with what was called."""

    def __init__(self) -> None:
        self.dirty, self.stop, self.terminal = ["a"], Stop(), self
        self.called: list[str] = []

    def note(self, text: str) -> None:
        self.called.append(text)

    def advance(self, until: Callable[[], bool] = lambda: True) -> bool:
        self.called.append("advance")
        return until()

    def finish(self) -> None:
        self.called.append("finish")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeStudy:
    made = MadeStudy()

    @contextmanager
    def server() -> Iterator[DeadServer]:
        yield DeadServer()

    @contextmanager
    def planned(**_: Any) -> Iterator[MadeStudy]:
        yield made

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "prefect_server", server)
    monkeypatch.setattr(launch, "planned_study", planned)
    monkeypatch.setattr(launch, "_import_libraries", lambda: None)
    return made


def test_without_a_server_the_stages_run_all_the_same(study: MadeStudy) -> None:
    assert launch.run_study() is study
    told = "it died: no record of this study in Prefect"
    assert study.called == ["advance", told, "advance", "finish"]


def test_what_is_stopped_before_it_began_ends_in_order(study: MadeStudy) -> None:
    study.stop.ask("SIGINT", 2)
    launch.run_study()
    assert study.called == ["finish"]


def test_nothing_to_do_starts_nothing(study: MadeStudy) -> None:
    study.dirty = []
    launch.run_study()
    assert study.called == []


def test_a_retraining_goes_on_without_a_server_and_is_refused_beside_a_study(
    study: MadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []
    monkeypatch.setattr(launch, "retrain", asked.append)
    launch.run_retrain(Request("own"))
    assert asked == [Request("own")]
    held = "a study runs here already: process"
    with run_state.hold_workspace(), pytest.raises(ValueError, match=held):
        launch.run_retrain(Request("own"))
    assert asked == [Request("own")]


def test_libraries_are_imported_ahead_and_quietly(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pipeline.flows.launch import _import_libraries\n"
        "assert not {'mlflow', 'prefect'} & sys.modules.keys()\n"
        "_import_libraries()\n"
        "assert {'mlflow', 'prefect', 'pipeline.flows.prefect_flows'} <= sys.modules.keys()\n"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
