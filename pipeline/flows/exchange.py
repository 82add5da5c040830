"""A cell on another machine: what travels with the question, and what by DVC's remote."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import write_text
from pipeline.flows.ledger import hold_workspace
from pipeline.flows.lockfile import heal_locks, sorted_lock
from pipeline.flows.resources import study_shares
from pipeline.flows.stage_runs import Outcome, reproduce_stage, run_group, stage_environment
from pipeline.flows.stops import Stop, heeding_signals
from pipeline.paths import LOCK
from pipeline.processes import end_leftovers
from pipeline.training.work_folders import delete_spent_work

PARAMS = Path("params.yaml")
CODE = ("pipeline/**/*.py", "stages/**/*.py", "dvc.yaml")


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


class ExchangeError(ValueError):
    """A cell cannot run elsewhere, or not in this checkout."""


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
    with heeding_signals(stop), hold_workspace():
        end_leftovers(keep=("prefect-server",))
        heal_locks()
        write_text(PARAMS, order.params)
        write_text(LOCK, order.lock)
        try:
            if order.inputs:
                run_dvc("pull", order.inputs, stop, on_line)
            outcome = reproduce_stage(
                order.stage,
                force=False,
                environment=stage_environment(study_shares().threads),
                stop=stop,
                on_line=on_line,
            )
            if outcome.is_success:
                run_dvc("push", ["--run-cache", order.stage], stop, on_line)
                delete_spent_work()
            return outcome
        finally:
            stop.ask("the cell has ended")
            end_leftovers(keep=("prefect-server",))


def take_result(stage: str, stop: Stop, on_line: Callable[[str], None]) -> bool:
    """Restore what another machine made, by the run cache of the remote; whether it was there.

    Where it was not, which equal code, parameters and inputs leave no reason for, the stage has
    run on this machine.
    """
    lines = run_dvc("repro", ["--pull", "--single-item", stage], stop, on_line)
    return any("is cached - skipping run" in line for line in lines)


def run_dvc(
    verb: str, arguments: Sequence[str], stop: Stop, on_line: Callable[[str], None]
) -> list[str]:
    """The lines of a DVC command. Raises ExchangeError with its last lines where it fails."""
    told: list[str] = []

    def take(line: str) -> None:
        told.append(line)
        on_line(line)

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", verb, *arguments]
    code = run_group(f"dvc-{verb}", command, stage_environment(1), stop, take)
    if code != 0:
        raise ExchangeError(f"dvc {verb} ended with exit code {code}: {'; '.join(told[-3:])}")
    return told
