"""`l2s remote`: cells of the study on other machines, with DVC's remote as the exchange.

The asking machine sends orders through a Prefect work pool; a worker runs each in its own checkout.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from configparser import ConfigParser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pipeline.files import user_path, write_text
from pipeline.flows.graph import StageGraph
from pipeline.flows.lockfile import normalise_lock, sorted_lock
from pipeline.flows.run_state import workspace
from pipeline.flows.scheduler import study_shares
from pipeline.flows.server import ServerError, set_up_prefect
from pipeline.flows.stage_runs import Outcome, Stop, reproduce_stage, run_group, stage_environment
from pipeline.flows.study import current_graph
from pipeline.flows.terminal import Terminal
from pipeline.paths import LOCK
from pipeline.quick_start import quick_command
from pipeline.tracking.pages import answers
from pipeline.tracking.record import fingerprint
from pipeline.training.work_folders import delete_spent_work

PARAMS = Path("params.yaml")
CODE = ("pipeline/**/*.py", "stages/**/*.py", "dvc.yaml")
LOOK_EVERY_S = 2.0
OnLine = Callable[[str], None]


class ExchangeError(ValueError):
    """A cell cannot run elsewhere, or not in this checkout."""


@dataclass(frozen=True)
class CellOrder:
    """A stage to run elsewhere: with which parameters, on what inputs, by which code.

    `inputs` are the stages whose outputs it reads, `lock` is the text of a dvc.lock with their
    entries: the files themselves are in DVC's remote. `code` is a digest of the code.
    """

    stage: str
    inputs: list[str]
    params: str
    lock: str
    code: str


def run_remote(targets: Iterable[str], deployment: str) -> tuple[list[str], int | None]:
    """Run the out-of-date cells among the targets on the workers of a work pool.

    Returns the cells that failed, and the signal that ended it, if one did.
    Raises ValueError for targets that are unknown or not ready, ExchangeError without a DVC
    remote, and ServerError without a Prefect server that machines share.
    """
    require_remote()
    url = os.environ.get("PREFECT_API_URL", "")
    if not answers(url, patience_s=10):
        raise ServerError(
            f"PREFECT_API_URL = {url!r}: no Prefect server answers there; other machines need "
            "one that they can reach: docs/operations.md"
        )
    set_up_prefect()
    stop, note = Stop(), Terminal().note
    with workspace(stop, note):
        graph = current_graph(stop)
        cells = ready_cells(graph, targets)
        if not cells:
            note("remote: everything is up to date")
            return [], None
        inputs = sorted({name for cell in cells for name in graph.upstreams[cell]})
        note(f"remote: {', '.join(cells)}; sending what they read")
        _run_dvc("push", inputs, stop)
        orders = [order_cell(cell, graph.upstreams[cell], graph.names) for cell in cells]
        try:
            return _run_orders(orders, deployment, stop, note), stop.number
        finally:
            normalise_lock(graph.names)


def ready_cells(graph: StageGraph, targets: Iterable[str]) -> list[str]:
    """The out-of-date stages among the targets. Raises ValueError where one waits for another."""
    dirty = graph.dirty()
    cells = [stage for stage in graph.named(targets) if stage in dirty]
    if first := sorted({name for cell in cells for name in graph.upstreams[cell]} & set(dirty)):
        needed = ",".join(first)
        raise ExchangeError(f"inputs are not made yet: first run l2s study --targets {needed}")
    return cells


def order_cell(stage: str, inputs: Sequence[str], stages: Sequence[str]) -> CellOrder:
    """The order of one stage; `stages` are all of dvc.yaml."""
    lock = sorted_lock(LOCK.read_text(encoding="utf-8"), stages, without=set(stages) - set(inputs))
    return CellOrder(stage, list(inputs), PARAMS.read_text(encoding="utf-8"), lock, code_digest())


def code_digest() -> str:
    """A digest of the code and the graph of this checkout."""
    return fingerprint("", (path for pattern in CODE for path in Path().glob(pattern)))


def require_remote() -> None:
    """Raise ExchangeError unless DVC has a default remote, which is the exchange."""
    config = ConfigParser()
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    if not config.has_option("core", "remote"):
        raise ExchangeError(
            "DVC has no default remote, by which cells on other machines get their inputs: "
            "dvc remote add --default NAME PLACE"
        )


def _run_orders(orders: list[CellOrder], deployment: str, stop: Stop, note: OnLine) -> list[str]:
    """Ask for all the cells at once, and take each result as it comes; those that failed."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelling

    failed = []
    with get_client(sync_client=True) as client:
        try:
            asked = client.read_deployment_by_name(deployment).id
        except ObjectNotFound:
            raise ExchangeError(
                f"--deployment {deployment}: the Prefect server knows none of that name: "
                "`prefect --no-prompt deploy --all` makes those of prefect.yaml"
            ) from None
        waiting: dict[str, UUID] = {}
        try:
            for order in orders:
                waiting[order.stage] = client.create_flow_run_from_deployment(
                    asked, parameters=asdict(order), name=order.stage
                ).id
            while waiting and not stop.event.wait(LOOK_EVERY_S):
                for stage, run in list(waiting.items()):
                    try:
                        state = client.read_flow_run(run).state
                    except HTTPError as error:  # after a minute of tries; the cell goes on there
                        note(f"{stage}: Prefect does not answer, and is asked again ({error})")
                        continue
                    if state is None or not state.is_final():
                        continue
                    del waiting[stage]
                    note(f"{stage}: elsewhere {state.message or state.name}")
                    if not (state.is_completed() and _take_result(stage, stop, note)):
                        failed.append(stage)
        finally:
            cancelling: Any = Cancelling(message="the study was stopped")
            for stage, run in waiting.items():
                try:
                    client.set_flow_run_state(run, cancelling, force=True)
                except HTTPError as error:
                    note(f"{stage}: could not be cancelled elsewhere ({error})")
    return [*failed, *waiting]


def _take_result(stage: str, stop: Stop, note: OnLine) -> bool:
    """Restore what another machine made, by the run cache of the remote; whether that went well.

    Where it is not there, which equal code, parameters and inputs leave no reason for, the stage
    runs on this machine.
    """
    outcome = reproduce_stage(stage, stage_environment(1), stop, lambda line: None, ["--pull"])
    if outcome.result != "restored":
        note(f"{stage}: NOT restored, {outcome.result} here {' '.join(outcome.tail[-3:])}")
    return outcome.is_success


def enter_checkout() -> dict[str, str]:
    """Go to the checkout that L2S_CHECKOUT names on the machine that runs.

    The first step of every deployment in prefect.yaml. Prefect's own step for this would take the
    name of the folder from the machine that deploys. Raises ValueError where it names none.
    """
    named = os.environ.get("L2S_CHECKOUT", "")
    folder = user_path(named)
    if not named or not (folder / "dvc.yaml").is_file():
        raise ValueError(
            f"L2S_CHECKOUT = {named!r}: must name a checkout on the worker's machine: "
            "cd CHECKOUT && L2S_CHECKOUT=$PWD prefect worker start --pool l2s --limit 1"
        )
    os.chdir(folder)
    return {"directory": str(Path.cwd())}


def run_cell(order: CellOrder, on_line: OnLine) -> Outcome:
    """Run a cell in this checkout: inputs from the remote, outputs and run cache to it.

    params.yaml and dvc.lock of the checkout are replaced: it serves nothing else meanwhile. Raises
    ExchangeError for a checkout with other code, and ValueError for one that is held.
    """
    if (own := code_digest()) != order.code:
        raise ExchangeError(
            f"the code of this checkout ({own}) is not that of the study ({order.code}): "
            "bring both to one commit"
        )
    require_remote()
    stop = Stop()
    with workspace(stop, on_line):
        write_text(PARAMS, order.params)
        write_text(LOCK, order.lock)
        if order.inputs:
            _run_dvc("pull", order.inputs, stop, on_line)
        environment = stage_environment(study_shares()[0])
        outcome = reproduce_stage(order.stage, environment, stop, on_line)
        if outcome.is_success:
            _run_dvc("push", ["--run-cache", order.stage], stop, on_line)
            delete_spent_work()
        return outcome


def _run_dvc(
    verb: str, arguments: Sequence[str], stop: Stop, on_line: OnLine = lambda line: None
) -> None:
    """Run a DVC command. Raises ExchangeError with its last lines where it fails."""
    command = [*quick_command("dvc"), "--wait-for-lock", verb, *arguments]
    code, lines = run_group(f"dvc-{verb}", command, stage_environment(1), stop, on_line)
    if code != 0:
        raise ExchangeError(f"dvc {verb} ended with exit code {code}: {'; '.join(lines[-3:])}")
