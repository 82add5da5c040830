"""The trade-off table on a terminal."""

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.evaluation.accuracy import MAP, accuracy_of
from pipeline.report.tradeoff import NUMBERS, Row, most_seeds, notes, shown_columns

FRONT_NOTE = "* on the Pareto front: no other row is both cheaper and at least as accurate"
COLOURS = {
    "teacher": "default",
    "asymmetric": "#0b6e99",
    "symmetric": "#6aa84f",
    "naive": "#c0392b",
    "adapter": "#8e5ea2",
    "baseline": "#b8860b",
}


def tradeoff_table(name: str, rows: Sequence[Row], latency: str) -> Table:
    """The rows of a study as a coloured table.

    latency: what the reader must know of the times, as `latency_note` says it.
    """
    title = f"{name}: accuracy and cost of a query"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.caption, table.caption_justify = "\n".join([FRONT_NOTE, *notes(rows), latency]), "left"
    with_seeds = most_seeds(rows) > 1
    for column in (*_columns(rows[0], with_seeds=with_seeds), "ms (ratio)"):
        justify: Literal["right", "left"] = "right" if column in NUMBERS else "left"
        table.add_column(column, justify=justify, no_wrap=not column.endswith("gain"))
    for row in rows:
        shown = _columns(row, with_seeds=with_seeds)
        shown["role"] = f"[{COLOURS[row['role']]}]{row['role']}[/]"
        ms, ratio = row["latency_ms"], row["latency_ratio"]
        table.add_row(*shown.values(), _latency(ms, ratio))
    return table


def _latency(ms: float | None, ratio: float | None) -> str:
    """A time and its ratio to the teacher's, each where it is known."""
    return "" if ms is None else f"{ms:.3g}" + ("" if ratio is None else f" ({ratio:.2f})")


def _columns(row: Row, *, with_seeds: bool) -> dict[str, str]:
    """Those that 120 characters hold: the others stand in the files."""
    hidden = ["mAP@R %", "overlap@10 %"] if accuracy_of(row) is MAP else ["overlap@1 %"]
    if with_seeds:
        hidden += ["R@1 %", "closed %"]
    return {
        name: text
        for name, text in shown_columns(row, with_seeds=with_seeds).items()
        if name not in hidden
    }
