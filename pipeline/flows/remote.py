"""`l2s remote`: cells of the study on other machines, through a Prefect work pool."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.flows.exchange import (
    CellOrder,
    ExchangeError,
    order_cell,
    require_remote,
    run_dvc,
    take_result,
)
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.ledger import hold_workspace
from pipeline.flows.lockfile import heal_locks, keep_copy, normalise_lock
from pipeline.flows.server import ServerError, answers, set_up_prefect
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.flows.terminal import Announcer
from pipeline.processes import end_leftovers

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

LOOK_EVERY_S = 2.0
DEPLOYMENT = "cell/cell"


@dataclass(frozen=True)
class RemoteResult:
    """Cells that came back, and those that failed with the reason."""

    done: list[str]
    failed: dict[str, str]
    stop_number: int | None


def run_remote(targets: Iterable[str], deployment: str = DEPLOYMENT) -> RemoteResult:
    """Run the out-of-date cells among the targets on the workers of a work pool.

    Raises ValueError for targets that are unknown or not ready, ExchangeError without a DVC
    remote, and ServerError without a Prefect server that machines share.
    """
    require_remote()
    url = os.environ.get("PREFECT_API_URL", "")
    if not url or not answers(url, patience_s=10):
        raise ServerError(
            f"PREFECT_API_URL = {url!r}: no Prefect server answers there; other machines need "
            "one that they can reach: docs/operations.md"
        )
    set_up_prefect()
    stop, tell = Stop(), Announcer()
    with heeding_signals(stop), hold_workspace():
        end_leftovers(keep=("prefect-server",))
        heal_locks()
        keep_copy()
        graph = read_graph()
        cells = ready_cells(graph, targets)
        if not cells:
            tell.note("remote: everything is up to date")
            return RemoteResult([], {}, None)
        inputs = sorted({name for cell in cells for name in graph.upstreams[cell]})
        tell.note(f"remote: {', '.join(cells)}; sending what they read")
        tell.width = max(map(len, cells))
        run_dvc("push", inputs, stop, lambda _: None)
        orders = [order_cell(cell, graph.upstreams[cell], graph.names) for cell in cells]
        try:
            done, failed = _run_orders(orders, deployment, stop, tell)
        finally:
            normalise_lock(graph.names)
    return RemoteResult(done, failed, stop.number)


def ready_cells(graph: StageGraph, targets: Iterable[str]) -> list[str]:
    """The out-of-date stages among the targets. Raises ValueError where one waits for another."""
    wanted = set(targets)
    known = {name for stage in graph.names for name in (stage, stage.partition("@")[0])}
    if unknown := sorted(wanted - known):
        groups = ", ".join(sorted({stage.partition("@")[0] for stage in graph.names}))
        raise ExchangeError(f"unknown stages: {', '.join(unknown)}; groups: {groups}")
    dirty = graph.dirty()
    cells = [stage for stage in dirty if wanted & {stage, stage.partition("@")[0]}]
    waiting = {
        cell: [name for name in graph.upstreams[cell] if name in dirty]
        for cell in cells
        if not set(dirty).isdisjoint(graph.upstreams[cell])
    }
    if waiting:
        first = sorted({name for names in waiting.values() for name in names})
        raise ExchangeError(
            f"{', '.join(waiting)}: their inputs are not made yet: first run "
            f"l2s study --targets {','.join(first)}"
        )
    return cells


def _run_orders(
    orders: list[CellOrder], deployment: str, stop: Stop, tell: Announcer
) -> tuple[list[str], dict[str, str]]:
    """Ask for all the cells at once, and take each result as it comes."""
    from prefect.client.orchestration import get_client

    from pipeline.flows.cell_flow import parameters_of

    done: list[str] = []
    failed: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        asked = client.read_deployment_by_name(deployment)
        waiting = {
            order.stage: client.create_flow_run_from_deployment(
                asked.id, parameters=parameters_of(order), name=order.stage
            )
            for order in orders
        }
        try:
            while waiting and not stop.event.is_set():
                time.sleep(LOOK_EVERY_S)
                for stage, run in list(waiting.items()):
                    state = client.read_flow_run(run.id).state
                    if state is None or not state.is_final():
                        continue
                    del waiting[stage]
                    if not state.is_completed():
                        failed[stage] = state.message or str(state.name)
                        tell.note(f"{stage}: failed elsewhere: {failed[stage]}")
                    else:
                        _take(stage, state.message or "", stop, tell.note)
                        done.append(stage)
        finally:
            for stage, run in waiting.items():
                _cancel(client, run)
                failed[stage] = "cancelled"
    return done, failed


def _take(stage: str, told: str, stop: Stop, tell: Callable[[str], None]) -> None:
    was_there = take_result(stage, stop, lambda _: None)
    tell(f"{stage}: {told} elsewhere" + ("" if was_there else "; NOT restored: it ran here again"))


def _cancel(client: Any, run: "FlowRun") -> None:
    from prefect.states import Cancelling

    client.set_flow_run_state(run.id, Cancelling(message="the study was stopped"), force=True)
