"""A study on the terminal: a line where something happens, a summary, and all stages' states."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config.params import load_params
from pipeline.flows import run_state
from pipeline.flows.graph import GraphError, read_graph
from pipeline.flows.stage_runs import Outcome
from pipeline.paths import teacher_origin

WORDS = {
    "ran": "done",
    "restored": "restored from DVC's cache",
    "unchanged": "unchanged",
    "failed": "FAILED",
    "stopped": "stopped",
}
# Of results, and of states.
STYLES = {
    "stopped": "yellow",
    "unchanged": "dim",
    "fresh": "green",
    "stale": "yellow",
    "running": "bold cyan",
    "waiting": "cyan",
    "failed": "bold red",
    "not yet run": "dim",
    "not here": "dim",
}
# What DVC says around every stage.
CHATTER = re.compile(
    "Running stage '|Stage '|> |Updating lock file|Generating lock file|To track the changes"
    "|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`|Data and pipelines are up to"
)


def duration(seconds: float) -> str:
    """Seconds as one reads them: 4.2 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours else f"{minutes} min {rest_s:02} s"


class Terminal:
    """Writes lines of stages that run side by side; any thread may call it."""

    def __init__(self) -> None:
        self.width = 0  # of the stages' names
        self.console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(text)

    def started(self, stage: str) -> None:
        self._line(stage, "starts", "dim")

    def line(self, stage: str, text: str) -> None:
        """A line of a stage's own, unless it is what DVC says around every stage."""
        if text.strip() and not CHATTER.match(text):
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
    counts: Counter[str] = Counter(outcome.result for outcome in outcomes.values())
    counted = ", ".join(f"{counts[one]} {word}" for one, word in WORDS.items() if counts[one])
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
    runs = run_state.last_outcomes()
    rows, headline = _states_now(runs)
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title="stages", title_justify="left")
    for column in ("stage", "state", "last run", "took", "ended"):
        table.add_column(column, justify="right" if column == "took" else "left", no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, (state, why) in rows.items():
        last = ("", "", "")
        if run := runs.get(name):
            ended = run.ended[:19].replace("T", " ")
            last = (WORDS[run.result], duration(run.seconds), ended)
        table.add_row(name, Text(state, STYLES.get(state, "")), *last, why)
    console.print(table)
    console.print(headline, highlight=False)
    for name in load_params().datasets:
        if line := kept_teacher_line(name):
            console.print(line, highlight=False)


def _states_now(runs: Mapping[str, Outcome]) -> tuple[dict[str, tuple[str, str]], str]:
    """For each stage its state and the reason of it; and a sentence on the study as a whole."""
    if (state := run_state.running_study()) is not None:
        at_a_time = f"{state['jobs']} at a time" if "jobs" in state else "being planned"
        headline = f"a study runs: {run_state.holder(state)}, {at_a_time}"
        return run_state.states_of_running(state), headline
    headline = "no study runs"
    if (last := run_state.read_state()) is not None:
        how = f"ended {last['ended']}" if last["ended"] else "was killed"
        headline += f"; the last one began {last['since']}, and {how}"
    try:
        return run_state.stage_states(read_graph(), runs), headline
    except GraphError as error:  # DVC at work by other hands
        return {}, f"{headline}; {error}"


def kept_teacher_line(dataset: str) -> str | None:
    """What to know of a data set whose teacher is older than its images, or None."""
    origin = teacher_origin(dataset)
    if origin["teacher_of_this_pack"] == "yes" or not origin["teacher_pack_md5"]:
        return None
    return (
        f"{dataset}: `l2s retrain` kept the teacher, which learned from an older pack; it and what "
        "hangs on it stay stale until `l2s study` or `l2s retrain --with-teacher`"
    )
