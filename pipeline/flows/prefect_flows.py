"""The Prefect flows: of a study, a retraining, a cell. Imports prefect, which takes two seconds."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture, wait
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed

from pipeline.flows.artifacts import publish_plan, publish_results, publish_retraining
from pipeline.flows.remote import CellOrder, run_cell
from pipeline.flows.retraining import Request, RetrainResult, retrain
from pipeline.flows.run_state import RunState
from pipeline.flows.stage_runs import Outcome, Stop, signals_stop
from pipeline.flows.study import Study, planned_study
from pipeline.flows.terminal import Terminal
from pipeline.processes import end_leftovers
from pipeline.tracking.audit import record_lines

LOOK_EVERY_S = 2.0


def run_reported(study: Study, url: str) -> None:
    """Run the rest of a study as a flow that reports to the Prefect API at the address.

    The stages do not need Prefect: where it is lost, they go on. (Its threads then try for two
    minutes more to send what they hold, before the process ends.)
    """

    @flow(name="study", **OPTIONS)
    def study_flow(jobs: int, targets: list[str], fresh: bool) -> State[Any]:
        return _run_as_flow(study)

    with temporary_settings({PREFECT_API_URL: url}):
        try:
            state = study_flow(study.jobs, study.targets, study.fresh, return_state=True)
            _send_what_waits()
            why = (state.message if state else None) or "no reason is known"
            trouble = "" if study.is_finished else f"the flow broke off ({why})"
        except HTTPError as error:
            trouble = f"Prefect's server was lost ({error})"
        if trouble:
            study.terminal.note(f"{trouble}: Prefect's record is not complete")
            study.advance()
            study.finish()


def retrain_reported(request: Request, url: str) -> RetrainResult:
    """Retrain as a flow that reports to the Prefect API at the address; where that is lost on the
    way, without it: what is trained and judged by then is found again.
    """
    with temporary_settings({PREFECT_API_URL: url}):
        try:
            state = retrain_flow(*astuple(request), return_state=True)
            _send_what_waits()
        except HTTPError as error:
            lost = f"Prefect's server was lost ({error}): Prefect's record is not complete"
            Terminal().note(f"{lost}; the retraining goes on")
            return retrain(request)
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, RetrainResult), "the flow returns it, whichever way it ended"
    return result


def end_processes(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that run stages: end what a cancelled or crashed one left running."""
    end_leftovers(own=False)


def show_end(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that a schedule runs: how the run ended, on the terminal of the schedule."""
    if flow_run.deployment_id:
        why = f": {state.message}" if state.is_failed() else ""
        Terminal().note(f"run {flow_run.name}: {state.name}{why}")


OPTIONS: dict[str, Any] = {
    "on_cancellation": [end_processes],
    "on_crashed": [end_processes],
    "on_failure": [show_end],
    "on_completion": [show_end],
    "persist_result": False,
}


@flow(name="scheduled-study", **OPTIONS)
def scheduled_study(jobs: int | None = None) -> State[Any]:
    """The whole study, on a schedule: what is out of date runs."""
    state: State[Any] = Completed(message="everything is up to date")
    with planned_study(jobs=jobs) as study:
        if study.dirty:
            state = _run_as_flow(study)
    for line in record_lines():
        Terminal().note(line)
    return state


@flow(name="retrain", **OPTIONS)
def retrain_flow(
    dataset: str | None = None,
    with_teacher: bool = False,
    tolerance: float = 0.5,
    force: bool = False,
    across_backbones: bool = False,
    without_interval: bool = False,
) -> State[Any]:
    """Retrain the students on new images, and let the better ones lead."""
    request = Request(dataset, with_teacher, tolerance, force, across_backbones, without_interval)
    stop = Stop()
    with _cancellation_stops(stop):
        result = retrain(request, _advance_as_tasks, stop, _begin)
    publish_retraining(result.lines)
    how = _kind_of_end(result.stop_reason, is_success=result.is_success)
    return how(message="\n".join(result.lines), data=result)


@flow(name="cell", **OPTIONS)
def cell_flow(stage: str, inputs: list[str], params: str, lock: str, code: str) -> State[Any]:
    """Run a stage in this checkout and leave its outputs in DVC's remote."""
    logger = get_run_logger()
    try:
        order = CellOrder(stage, inputs, params, lock, code)
        return _state_of(run_cell(order, lambda line: logger.info("%s", line)))
    except (ValueError, OSError) as error:
        return Failed(message=str(error))


def _run_as_flow(study: Study) -> State[Any]:
    """Run the rest of a planned study within the flow that runs now; the flow's final state."""
    _begin(study.state)
    _tag_run(study)
    publish_plan(study)
    with signals_stop(study.stop), _cancellation_stops(study.stop):
        _advance_as_tasks(study)
    study.finish()
    publish_results(study)
    how = _kind_of_end(study.stop.reason, is_success=study.is_success)
    return how(message="\n".join(study.lines()))


def _kind_of_end(stop_reason: str, *, is_success: bool) -> Callable[..., State[Any]]:
    return Cancelled if stop_reason else Completed if is_success else Failed


def _begin(state: RunState) -> None:
    """Say in the workspace which flow runs, and in Prefect that one that was killed here crashed.

    That one cannot do so itself; `state.previous` is what it left on disk.
    """
    if (lost := state.previous) and lost.get("flow_run_id"):
        _close_lost_run(UUID(lost["flow_run_id"]), f"its process {lost['pid']} was killed")
    url = str(PREFECT_API_URL.value())
    state.note(flow_run_id=str(flow_run.id), prefect=url, unclosed=None)


def _tag_run(study: Study) -> None:
    """Tag the flow run with the data sets whose stages it runs: a study has no other name."""
    names = {stage.partition("@")[2] for stage in study.whole.names if stage.startswith("prepare@")}
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), tags=sorted(names))


def _close_lost_run(run_id: UUID, message: str) -> None:
    crashed: State[Any] = Crashed(message=message)
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # of another Prefect database
            return
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        for task_run in client.read_task_runs(flow_run_filter=of_run):
            if task_run.state and not task_run.state.is_final():
                client.set_task_run_state(task_run.id, crashed, force=True)
        if run.state and not run.state.is_final():
            client.set_flow_run_state(run_id, crashed, force=True)


def _advance_as_tasks(study: Study) -> None:
    """Run the rest of a study, each stage a task of the flow that runs now."""
    futures: dict[str, PrefectFuture[Any]] = {}

    @task(cache_policy=NO_CACHE, persist_result=False)
    def stage_task(stage: str) -> State[Any]:
        logger = get_run_logger()
        lines = study.run(stage)
        while isinstance(line := lines.get(), str):
            logger.info("%s", line)
        return _state_of(line)

    def submit(stage: str) -> None:
        upstreams = [futures[name] for name in study.scheduler.upstreams[stage] if name in futures]
        own = [part for part in stage.split("@") if part]  # what is done, and for which row
        named = stage_task.with_options(name=stage, task_run_name=stage, tags=own)
        futures[stage] = named.submit(stage, wait_for=upstreams, return_state=False)

    for stage in list(study.scheduler.started):  # before Prefect was ready
        submit(stage)
    study.advance(submit)
    if not study.stop.event.is_set():
        for stage in study.not_run:  # Prefect shows them as not ready
            submit(stage)
    wait(list(futures.values()))


def _state_of(outcome: Outcome) -> State[Any]:
    message = "; ".join([f"{outcome.result} in {outcome.seconds:.1f} s", *outcome.tail[-3:]])
    if outcome.is_success:
        name = {"restored": "Cached", "unchanged": "Unchanged"}.get(outcome.result, "Completed")
        return Completed(name=name, message=message)
    return Cancelled(message=message) if outcome.result == "stopped" else Failed(message=message)


@contextmanager
def _cancellation_stops(stop: Stop) -> Iterator[None]:
    """Ask for the stop when someone cancels this flow run in Prefect's pages or commands."""
    own_id, over = UUID(str(flow_run.id)), threading.Event()
    url = PREFECT_API_URL.value()

    def watch() -> None:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            while not over.wait(LOOK_EVERY_S):
                try:
                    state = client.read_flow_run(own_id).state
                except Exception:  # noqa: S112  (a lost server stops no study)
                    continue
                if state and (state.is_cancelling() or state.is_cancelled()):
                    stop.ask("cancelled in Prefect")
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _send_what_waits() -> None:
    """Give Prefect's threads time to send states and log lines before their server goes."""
    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)
