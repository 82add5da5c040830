"""The Prefect flow of one cell, as a worker on another machine runs it. Imports prefect."""

from dataclasses import asdict
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from pipeline.flows.exchange import CellOrder, ExchangeError, run_cell
from pipeline.flows.reporting import end_processes


@flow(
    name="cell",
    on_cancellation=[end_processes],
    on_crashed=[end_processes],
    persist_result=False,
)
def cell_flow(stage: str, inputs: list[str], params: str, lock: str, code: str) -> State[Any]:
    """Run a stage in this checkout and leave its outputs in DVC's remote."""
    logger = get_run_logger()
    try:
        outcome = run_cell(
            CellOrder(stage, inputs, params, lock, code), lambda line: logger.info("%s", line)
        )
    except (ExchangeError, ValueError, OSError) as error:
        return Failed(message=str(error))
    told = f"{outcome.result} in {outcome.seconds:.1f} s"
    if outcome.is_success:
        return Completed(message=told)
    if outcome.result == "stopped":
        return Cancelled(message=told)
    return Failed(message="; ".join([told, *outcome.tail[-3:]]))


def parameters_of(order: CellOrder) -> dict[str, Any]:
    """The parameters of the flow that carry an order."""
    return asdict(order)
