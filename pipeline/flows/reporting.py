"""The Prefect flow of a study: one task a stage. Imports prefect; `study` imports this late."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.flows.artifacts import plan_rows, publish_plan, publish_results, stage_rows
from pipeline.flows.server import close_lost_run, send_what_waits
from pipeline.flows.stage_runs import Outcome
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.processes import end_leftovers

if TYPE_CHECKING:
    from pipeline.flows.study import Study

LOOK_EVERY_S = 2.0


def run_reported(study: "Study", url: str) -> None:
    """Run the rest of a study as a flow that reports to the Prefect API at the address.

    The stages do not need Prefect: where it is lost, they go on. (Its threads then try for two
    minutes more to send what they hold, before the process ends.)
    """
    with temporary_settings({PREFECT_API_URL: url}):
        previous = study.record.previous
        try:
            if previous and previous.get("flow_run_id"):
                close_lost_run(previous)
            state = study_flow(study)(study.jobs, study.targets, study.fresh, return_state=True)
            send_what_waits()
            trouble = "" if study.is_finished else f"the flow broke off ({_words_of(state)})"
        except HTTPError as error:
            trouble = f"Prefect's server was lost ({error})"
        if trouble:
            study.tell.note(f"{trouble}: Prefect's record is not complete")
            study.advance(study.run)
            study.finish()


def study_flow(study: "Study") -> Flow[..., Any]:
    """The flow over one study that is planned, and perhaps on its way already."""

    @task(cache_policy=NO_CACHE, persist_result=False)
    def stage_task(stage: str) -> State[Any]:
        logger = get_run_logger()
        run = study.run(stage)
        for line in run.lines():
            logger.info("%s", line)
        return state_of(run.outcome())

    @flow(
        name="study",
        task_runner=ThreadPoolTaskRunner(max_workers=study.jobs),  # type: ignore[arg-type]
        on_cancellation=[end_processes],
        on_crashed=[end_processes],
        persist_result=False,
    )
    def run_stages(jobs: int, targets: list[str], fresh: bool) -> State[Any]:
        futures: dict[str, PrefectFuture[Any]] = {}

        def submit(stage: str) -> None:
            upstreams = [futures[name] for name in study.agenda.upstreams[stage] if name in futures]
            named = stage_task.with_options(name=stage, task_run_name=stage)
            futures[stage] = named.submit(stage, wait_for=upstreams, return_state=False)

        study.record.note(flow_run_id=str(flow_run.id), prefect=str(PREFECT_API_URL.value()))
        publish_plan(plan_rows(study.graph, study.dirty))
        with heeding_signals(study.stop), heeding_cancellation(study.stop):
            for stage in list(study.agenda.started):  # before Prefect was ready
                submit(stage)
            study.advance(submit)
        not_run = study.agenda.not_started
        if not study.stop.event.is_set():
            for stage in not_run:  # Prefect shows them as not ready
                submit(stage)
        wait(list(futures.values()))
        study.finish()
        publish_results(stage_rows(study.graph, study.agenda.outcomes, not_run))
        return _final_state(study)

    return run_stages


def state_of(outcome: Outcome) -> State[Any]:
    told = f"{outcome.result} in {outcome.seconds:.1f} s"
    if outcome.is_success:
        name = {"restored": "Cached", "unchanged": "Unchanged"}.get(outcome.result, "Completed")
        return Completed(name=name, message=told)
    if outcome.result == "stopped":
        return Cancelled(message=told)
    return Failed(message="; ".join([told, *outcome.tail[-2:]]))


def _words_of(state: State[Any] | None) -> str:
    return (state.message if state else None) or "no reason is known"


def _final_state(study: "Study") -> State[Any]:
    told = "\n".join(study.lines())
    if study.stop.event.is_set():
        return Cancelled(message=told)
    return (
        Completed(message=told)
        if study.all_succeeded and not study.faults
        else Failed(message=told)
    )


def end_processes(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that run stages: end what a cancelled or crashed one left running."""
    end_leftovers(keep=("prefect-server",))


@contextmanager
def heeding_cancellation(stop: Stop) -> Iterator[None]:
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

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
