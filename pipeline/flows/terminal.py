"""A study on the terminal: a line where something happens, and a summary."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console

from pipeline.flows.stage_runs import Outcome

WORDS = {
    "ran": "done",
    "restored": "restored from DVC's cache",
    "unchanged": "unchanged",
    "failed": "FAILED",
    "stopped": "stopped",
}
STYLES = {"failed": "bold red", "stopped": "yellow", "unchanged": "dim"}
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


class Announcer:
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
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    own_s = sum(outcome.seconds for outcome in outcomes.values())
    how = f"stopped ({reason})" if reason else "ended"
    lines = [f"study {how} after {duration(seconds)}: {told or 'no stage ended'}"]
    if len(outcomes) > 1:
        lines[0] += f"; {duration(own_s)} one after the other"
    for outcome in outcomes.values():
        if outcome.result == "failed":
            lines.append(f"failed: {outcome.stage}; its last lines:")
            lines.extend(f"    {line}" for line in outcome.tail)
    if not_run:
        lines.append(f"not run: {', '.join(not_run)}")
    return lines
