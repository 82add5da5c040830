"""`l2s remote`: cells of the study on other machines, with DVC's remote as the exchange.

The asking machine sends orders through a Prefect work pool; a worker runs each in its own checkout.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from configparser import ConfigParser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import write_text
from pipeline.flows.graph import StageGraph, read_graph
from pipeline.flows.lockfile import normalise_lock, sorted_lock
from pipeline.flows.run_state import workspace
from pipeline.flows.scheduler import study_shares
from pipeline.flows.server import ServerError, answers, set_up_prefect
from pipeline.flows.stage_runs import (
    Outcome,
    Stop,
    reproduce_stage,
    run_group,
    stage_environment,
)
from pipeline.flows.terminal import Terminal
from pipeline.paths import LOCK
from pipeline.training.work_folders import delete_spent_work

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

PARAMS = Path("params.yaml")
CODE = ("pipeline/**/*.py", "stages/**/*.py", "dvc.yaml")
CHECKOUT = "L2S_CHECKOUT"
DEPLOYMENT = "cell/cell"
LOOK_EVERY_S = 2.0


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


def run_remote(
    targets: Iterable[str], deployment: str = DEPLOYMENT
) -> tuple[dict[str, str], int | None]:
    """Run the out-of-date cells among the targets on the workers of a work pool.

    Returns the cells that failed, each with the reason, and the signal that ended it, if one did.
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
    stop, terminal = Stop(), Terminal()
    with workspace(stop, terminal.note):
        graph = read_graph()
        cells = ready_cells(graph, targets)
        if not cells:
            terminal.note("remote: everything is up to date")
            return {}, None
        inputs = sorted({name for cell in cells for name in graph.upstreams[cell]})
        terminal.note(f"remote: {', '.join(cells)}; sending what they read")
        _run_dvc("push", inputs, stop)
        orders = [order_cell(cell, graph.upstreams[cell], graph.names) for cell in cells]
        try:
            return _run_orders(orders, deployment, stop, terminal.note), stop.number
        finally:
            normalise_lock(graph.names)


def ready_cells(graph: StageGraph, targets: Iterable[str]) -> list[str]:
    """The out-of-date stages among the targets. Raises ValueError where one waits for another."""
    dirty = graph.dirty()
    cells = [stage for stage in graph.named(targets) if stage in dirty]
    waiting = [cell for cell in cells if not set(dirty).isdisjoint(graph.upstreams[cell])]
    if waiting:
        first = sorted({name for cell in waiting for name in graph.upstreams[cell]} & set(dirty))
        raise ExchangeError(
            f"{', '.join(waiting)}: their inputs are not made yet: first run "
            f"l2s study --targets {','.join(first)}"
        )
    return cells


def order_cell(stage: str, inputs: Sequence[str], stages: Sequence[str]) -> CellOrder:
    """The order of one stage; `stages` are all of dvc.yaml."""
    text = LOCK.read_text(encoding="utf-8")
    return CellOrder(
        stage=stage,
        inputs=list(inputs),
        params=PARAMS.read_text(encoding="utf-8"),
        lock=sorted_lock(text, stages, without=set(stages) - set(inputs)),
        code=code_digest(),
    )


def code_digest() -> str:
    """A digest of the code and the graph of this checkout."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in Path().glob(pattern)):
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def require_remote() -> None:
    """Raise ExchangeError unless DVC has a default remote, which is the exchange."""
    config = ConfigParser()
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    if not config.has_option("core", "remote"):
        raise ExchangeError(
            "DVC has no default remote, by which cells on other machines get their inputs: "
            "dvc remote add --default NAME PLACE"
        )


def _run_orders(
    orders: list[CellOrder], deployment: str, stop: Stop, note: Callable[[str], None]
) -> dict[str, str]:
    """Ask for all the cells at once, and take each result as it comes; those that failed."""
    from prefect.client.orchestration import get_client

    failed: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        asked = client.read_deployment_by_name(deployment)
        waiting = {
            order.stage: client.create_flow_run_from_deployment(
                asked.id, parameters=asdict(order), name=order.stage
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
                        note(f"{stage}: failed elsewhere: {failed[stage]}")
                    else:
                        without = "" if _take_result(stage, stop) else "; NOT restored: it ran here"
                        note(f"{stage}: {state.message} elsewhere{without}")
        finally:
            for stage, run in waiting.items():
                _cancel(client, run)
                failed[stage] = "cancelled"
    return failed


def _take_result(stage: str, stop: Stop) -> bool:
    """Restore what another machine made, by the run cache of the remote; whether it was there.

    Where it was not, which equal code, parameters and inputs leave no reason for, the stage has
    run on this machine.
    """
    lines = _run_dvc("repro", ["--pull", "--single-item", stage], stop)
    return any("is cached - skipping run" in line for line in lines)


def _cancel(client: Any, run: "FlowRun") -> None:
    from prefect.states import Cancelling

    client.set_flow_run_state(run.id, Cancelling(message="the study was stopped"), force=True)


def enter_checkout() -> dict[str, str]:
    """Go to the checkout that L2S_CHECKOUT names on the machine that runs.

    The first step of every deployment in prefect.yaml. Prefect's own step for this would take the
    name of the folder from the machine that deploys. Raises ValueError where it names none.
    """
    named = os.environ.get(CHECKOUT, "")
    folder = Path(named).expanduser()
    if not named or not (folder / "dvc.yaml").is_file():
        raise ValueError(
            f"{CHECKOUT} = {named!r}: must name a checkout on the worker's machine: "
            f"cd CHECKOUT && {CHECKOUT}=$PWD prefect worker start --pool l2s --limit 1"
        )
    os.chdir(folder)
    return {"directory": str(Path.cwd())}


def run_cell(order: CellOrder, on_line: Callable[[str], None]) -> Outcome:
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
        outcome = reproduce_stage(
            order.stage,
            force=False,
            environment=stage_environment(study_shares()[0]),
            stop=stop,
            on_line=on_line,
        )
        if outcome.is_success:
            _run_dvc("push", ["--run-cache", order.stage], stop, on_line)
            delete_spent_work()
        return outcome


def _run_dvc(
    verb: str,
    arguments: Sequence[str],
    stop: Stop,
    on_line: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """The lines of a DVC command. Raises ExchangeError with its last lines where it fails."""
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        on_line(line)

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", verb, *arguments]
    code = run_group(f"dvc-{verb}", command, stage_environment(1), stop, take)
    if code != 0:
        raise ExchangeError(f"dvc {verb} ended with exit code {code}: {'; '.join(lines[-3:])}")
    return lines
