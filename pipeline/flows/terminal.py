"""A study on the terminal: a line where something happens, a summary, and all stages' states."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from pipeline.config.params import load_params
from pipeline.flows.graph import GraphError, read_edges, read_graph
from pipeline.flows.run_state import (
    last_outcomes,
    read_state,
    running_study,
    stage_states,
    states_of_running,
)
from pipeline.flows.stage_runs import Outcome
from pipeline.paths import teacher_origin

WORDS = {
    "ran": "done",
    "restored": "restored from DVC's cache",
    "unchanged": "unchanged",
    "failed": "FAILED",
    "stopped": "stopped",
}
STYLES = {"failed": "bold red", "stopped": "yellow", "unchanged": "dim"}
STATE_STYLES = {
    "fresh": "green",
    "stale": "yellow",
    "running": "bold cyan",
    "waiting": "cyan",
    "failed": "bold red",
    "not yet run": "dim",
    "unknown": "dim",
}
# What DVC says around every stage.
CHATTER = (
    "Running stage '",
    "Stage '",
    "> ",
    "Updating lock file",
    "Generating lock file",
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
    "Data and pipelines are up to date.",
)


def duration(seconds: float) -> str:
    """Seconds as one reads them: 4.2 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )


class Terminal:
    """Writes lines of stages that run side by side; any thread may call it."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.width = max(map(len, names), default=0)
        self.console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style)

    def started(self, stage: str) -> None:
        self._line(stage, "starts", "dim")

    def line(self, stage: str, text: str) -> None:
        """A line of a stage's own, unless it is what DVC says around every stage."""
        if text.strip() and not text.startswith(CHATTER):
            self._line(stage, f"| {text}")

    def ended(self, outcome: Outcome) -> None:
        words = f"{WORDS[outcome.result]} in {duration(outcome.seconds)}"
        self._line(outcome.stage, words, STYLES.get(outcome.result, "green"))

    def _line(self, stage: str, text: str, style: str = "") -> None:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        self.console.print(f"{now}  {stage:<{self.width}}  {text}", style=style)


def summary(
    outcomes: Mapping[str, Outcome], not_run: Sequence[str], reason: str, seconds: float
) -> list[str]:
    """The end of a study in lines: what happened to how many stages, and which did not work."""
    counts = {
        word: sum(outcome.result == result for outcome in outcomes.values())
        for result, word in WORDS.items()
    }
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    own_s = sum(outcome.seconds for outcome in outcomes.values())
    how = f"stopped ({reason})" if reason else "ended"
    lines = [f"study {how} after {duration(seconds)}: {counted or 'no stage ended'}"]
    if len(outcomes) > 1:
        lines[0] += f"; {duration(own_s)} one after the other"
    for outcome in outcomes.values():
        if outcome.result == "failed":
            lines.append(f"failed: {outcome.stage}; its last lines:")
            lines.extend(f"    {line}" for line in outcome.tail)
    if not_run:
        lines.append(f"not run: {', '.join(not_run)}")
    return lines


def show_status() -> None:
    """Print the stages, and who runs a study here; starts nothing, waits for nothing."""
    runs = last_outcomes()
    rows, headline = _states_now(runs)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(rows, runs))
    console.print(headline, highlight=False)
    for name in load_params().datasets:
        if line := kept_teacher_line(name):
            console.print(line, highlight=False)


def _states_now(runs: Mapping[str, Outcome]) -> tuple[dict[str, tuple[str, str]], str]:
    """For each stage its state and the reason of it; and a sentence on the study as a whole."""
    if (state := running_study()) is not None:
        rows = states_of_running(state)
        rows = rows or dict.fromkeys(read_edges(), ("unknown", "the study is being planned"))
        by = f"process {state['pid']} on {state['host']}, since {state['since']}"
        return rows, f"a study runs: {by}, {state.get('jobs', 1)} at a time"
    headline = "no study runs"
    if (last := read_state()) is not None:
        how = f"ended {last['ended']}" if last["ended"] else "was killed"
        headline += f"; the last one began {last['since']}, and {how}"
    try:
        return stage_states(read_graph(), runs), headline
    except GraphError as error:  # DVC at work by other hands
        return dict.fromkeys(read_edges(), ("unknown", "")), f"{headline}; {error}"


def kept_teacher_line(dataset: str) -> str | None:
    """What to know of a data set whose teacher is older than its images, or None."""
    origin = teacher_origin(dataset)
    if origin["teacher_of_this_pack"] == "yes" or not origin["teacher_pack_md5"]:
        return None
    return (
        f"{dataset}: `l2s retrain` kept the teacher, which learned from an older pack; it and what "
        "hangs on it stay stale until `l2s study` or `l2s retrain --with-teacher`"
    )


def _table(rows: Mapping[str, tuple[str, str]], runs: Mapping[str, Outcome]) -> Table:
    table = Table(title="stages", title_justify="left")
    for column in ("stage", "state", "last run", "took", "ended"):
        table.add_column(column, justify="right" if column == "took" else "left", no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, (state, why) in rows.items():
        run = runs.get(name)
        table.add_row(
            name,
            f"[{STATE_STYLES[state]}]{state}[/]" if state in STATE_STYLES else state,
            WORDS[run.result] if run else "",
            duration(run.seconds) if run else "",
            run.ended[:19].replace("T", " ") if run else "",
            why,
        )
    return table
