"""What a study says on the terminal."""

import io

import pytest
from rich.console import Console

from pipeline.flows.stage_runs import Outcome
from pipeline.flows.terminal import Terminal, duration, summary

RAN = Outcome("teach@a", "ran", 61.0, "2026-01-01T00:00:00+00:00")
FAILED = Outcome("distill@a-64", "failed", 2.0, "2026-01-01T00:00:00+00:00", ("boom", "exit 1"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_summary_counts_and_names() -> None:
    outcomes = {outcome.stage: outcome for outcome in (RAN, FAILED)}
    assert summary(outcomes, ["evaluate@a-64", "tradeoff@a"], "", 40.0) == [
        "study ended after 40.0 s: 1 done, 1 FAILED; 1 min 03 s one after the other",
        "failed: distill@a-64; its last lines:",
        "    boom",
        "    exit 1",
        "not run: evaluate@a-64, tradeoff@a",
    ]
    assert summary({}, ["teach@a"], "SIGINT", 1.0) == [
        "study stopped (SIGINT) after 1.0 s: no stage ended",
        "not run: teach@a",
    ]


def test_lines_have_their_stage_and_no_chatter() -> None:
    terminal = Terminal()
    terminal.width = len("distill@a-64")
    stream = io.StringIO()
    terminal.console = Console(file=stream, width=40, markup=False, highlight=False, soft_wrap=True)
    terminal.started("teach@a")
    for line in (
        "Running stage 'teach@a':",
        "> python -m stages.train_teacher a",
        "training: 3/8 epoch, [bold]1.2 epoch/s, 4 s, 5 s left, to the end of a long line",
        "",
        "\tgit add dvc.lock",
    ):
        terminal.line("teach@a", line)
    terminal.ended(RAN)
    shown = [line[10:] for line in stream.getvalue().splitlines()]
    assert shown == [
        "teach@a       starts",
        "teach@a       | training: 3/8 epoch, [bold]1.2 epoch/s, 4 s, 5 s left, "
        "to the end of a long line",
        "teach@a       done in 1 min 01 s",
    ]
