"""The Prefect flow of a retraining: what a schedule or a work pool runs. Imports prefect."""

import os
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from pipeline.flows.artifacts import publish_retraining
from pipeline.flows.reporting import end_processes, heeding_cancellation, state_of
from pipeline.flows.retrain import RetrainResult, retrain
from pipeline.flows.retraining import Request
from pipeline.flows.schedule import note_scheduled_run
from pipeline.flows.server import close_lost_run, send_what_waits
from pipeline.flows.stops import Stop
from pipeline.flows.study import Study, run_study


@flow(
    name="retrain",
    on_cancellation=[end_processes],
    on_crashed=[end_processes],
    persist_result=False,
)
def retrain_flow(
    dataset: str | None = None,
    with_teacher: bool = False,
    tolerance: float = 0.5,
    force: bool = False,
    across_backbones: bool = False,
) -> State[Any]:
    """Retrain the students on new images, and let the better ones lead."""
    note_scheduled_run()
    request = Request(dataset, with_teacher, tolerance, force, across_backbones)
    stop = Stop()
    with heeding_cancellation(stop):
        result = retrain(request, _advance_as_tasks, stop, close_lost_run)
    publish_retraining(result)
    return _final_state(result)


@flow(name="scheduled-study", persist_result=False)
def study_flow(jobs: int | None = None) -> State[Any]:
    """The whole study, on a schedule: what is out of date runs."""
    note_scheduled_run()
    os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value() or ""
    result = run_study(jobs=jobs)
    if result.stop_reason:
        return Cancelled(message=result.stop_reason)
    told = f"{len(result.outcomes)} stages ran"
    if result.is_success:
        return Completed(message=told)
    return Failed(message="; ".join([told, *result.faults, *result.not_run]))


def retrain_reported(request: Request, url: str) -> RetrainResult:
    """Retrain as a flow that reports to the Prefect API at the address."""
    with temporary_settings({PREFECT_API_URL: url}):
        state = retrain_flow(
            request.dataset,
            request.with_teacher,
            request.tolerance_points,
            request.force,
            request.across_backbones,
            return_state=True,
        )
        send_what_waits()
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, RetrainResult), "the flow returns it, whichever way it ended"
    return result


def _advance_as_tasks(study: Study) -> None:
    """Run the stages of a study, each a task of the flow that runs now."""
    futures: dict[str, PrefectFuture[Any]] = {}

    @task(cache_policy=NO_CACHE, persist_result=False)
    def stage_task(stage: str) -> State[Any]:
        logger = get_run_logger()
        run = study.run(stage)
        for line in run.lines():
            logger.info("%s", line)
        return state_of(run.outcome())

    def submit(stage: str) -> None:
        upstreams = [futures[name] for name in study.agenda.upstreams[stage] if name in futures]
        named = stage_task.with_options(name=stage, task_run_name=stage)
        futures[stage] = named.submit(stage, wait_for=upstreams, return_state=False)

    study.record.note(flow_run_id=str(flow_run.id), prefect=str(PREFECT_API_URL.value()))
    study.advance(submit)
    wait(list(futures.values()))


def _final_state(result: RetrainResult) -> State[Any]:
    told = "\n".join(result.lines)
    if result.stop_reason:
        return Cancelled(message=told, data=result)
    how = Completed if result.is_success else Failed
    return how(message=told, data=result)
