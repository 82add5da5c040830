"""The state of the workspace for a reader at a terminal; starts nothing, waits for nothing."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.config.params import load_params
from pipeline.flows.graph import GraphError, read_edges, read_graph
from pipeline.flows.ledger import last_runs, read_record, running_study, states
from pipeline.flows.retraining import kept_teacher_line
from pipeline.flows.stage_runs import SUCCESSES, Outcome
from pipeline.flows.terminal import WORDS, duration

STYLES = {
    "fresh": "green",
    "stale": "yellow",
    "running": "bold cyan",
    "waiting": "cyan",
    "failed": "bold red",
    "not yet run": "dim",
    "unknown": "dim",
}


def show_status() -> None:
    """Print the stages, and who runs a study here."""
    record = running_study()
    runs = last_runs()
    if record is not None:
        rows = states_of_running(record)
        rows = rows or dict.fromkeys(read_edges(), ("unknown", "the study is being planned"))
        by = f"process {record['pid']} on {record['host']}, since {record['since']}"
        headline = f"a study runs: {by}, {record.get('jobs', 1)} at a time"
    else:
        rows, headline = _states_at_rest(runs)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(rows, runs))
    console.print(headline, highlight=False)
    for name in load_params().datasets:
        if line := kept_teacher_line(name):
            console.print(line, highlight=False)


def _states_at_rest(runs: Mapping[str, Outcome]) -> tuple[dict[str, tuple[str, str]], str]:
    headline = "no study runs"
    last = read_record()
    if last is not None:
        headline += f"; the last one began {last['since']}, and " + (
            f"ended {last['ended']}" if last["ended"] else "was killed"
        )
    try:
        return states(read_graph(), runs), headline
    except GraphError as error:  # DVC at work by other hands
        rows = dict.fromkeys(read_edges(), ("unknown", ""))
        return rows, f"{headline}; {error}"


def states_of_running(record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """For each stage its state by the record of the study that runs: DVC cannot tell meanwhile."""
    rows = {name: (state, why) for name, state, why in record.get("before", ())}
    for name in record.get("plan", ()):
        rows[name] = ("waiting", "")
    for name, stage in record["stages"].items():
        state = "fresh" if stage["state"] in SUCCESSES else stage["state"]
        rows[name] = (state, f"since {stage['since']}" if state == "running" else "")
    return rows


def _table(rows: Mapping[str, tuple[str, str]], runs: Mapping[str, Outcome]) -> Table:
    table = Table(title="stages", title_justify="left")
    for column in ("stage", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("last run", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, (state, why) in rows.items():
        run = runs.get(name)
        table.add_row(
            name,
            f"[{STYLES.get(state, '')}]{state}[/]" if STYLES.get(state) else state,
            WORDS[run.result] if run else "",
            duration(run.seconds) if run else "",
            run.ended[:19].replace("T", " ") if run else "",
            why,
        )
    return table
