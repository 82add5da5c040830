"""The flow of a study where Prefect fails it: the study ends in order all the same."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from httpx import ConnectError
from prefect.states import Completed, Failed

from pipeline.flows import prefect_flows
from pipeline.flows.retraining import Request, RetrainResult
from pipeline.flows.run_state import STATE, hold_workspace


class MadeStudy:
    """What `run_reported` uses of a study, with what was called."""

    def __init__(self) -> None:
        self.jobs, self.targets, self.fresh = 1, (), False
        self.terminal = self
        self.is_finished = False
        self.called: list[str] = []

    def note(self, text: str) -> None:
        self.called.append(text)

    def advance(self) -> None:
        self.called.append("advance")

    def finish(self) -> None:
        self.is_finished = True
        self.called.append("finish")


def report(monkeypatch: pytest.MonkeyPatch, *, breaks_off: bool) -> list[str]:
    study = MadeStudy()

    def run(*_: object, return_state: bool) -> Any:
        assert return_state
        if breaks_off:
            return Failed(message="database is locked")
        study.finish()
        return Completed()

    monkeypatch.setattr(prefect_flows, "flow", lambda **_: lambda body: run)
    monkeypatch.setattr(prefect_flows, "_send_what_waits", lambda: None)
    prefect_flows.run_reported(study, "http://127.0.0.1:1/api")  # type: ignore[arg-type]
    return study.called


def test_a_flow_that_breaks_off_is_told_and_the_study_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = "the flow broke off (database is locked): Prefect's record is not complete"
    assert report(monkeypatch, breaks_off=True) == [words, "advance", "finish"]


def test_a_flow_that_ends_has_finished_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, breaks_off=False) == ["finish"]


def test_a_retraining_goes_on_where_the_server_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, return_state: bool) -> Any:
        assert return_state
        raise ConnectError("refused")

    asked: list[Request] = []
    found = RetrainResult()
    monkeypatch.setattr(prefect_flows, "retrain_flow", lost)
    monkeypatch.setattr(prefect_flows, "retrain", lambda one: asked.append(one) or found)
    request = Request("birds")
    assert prefect_flows.retrain_reported(request, "http://127.0.0.1:1/api") is found
    assert asked == [request]


def test_a_killed_run_is_closed_once_also_after_others_held_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    closed: list[UUID] = []
    monkeypatch.setattr(prefect_flows, "_close_lost_run", lambda one, _: closed.append(one))
    lost = UUID(int=7)
    with hold_workspace() as state:
        state.note(flow_run_id=str(lost))
        killed = STATE.read_text()
    STATE.write_text(killed)
    with hold_workspace():  # such as `l2s gc`
        pass
    for _ in range(2):
        with hold_workspace() as state:
            prefect_flows._begin(state)
    assert closed == [lost]
