"""The trade-off table on a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.report.tradeoff import NUMBERS, SUBSET_NOTE, Row, is_subset, shown_columns

FRONT_NOTE = "* on the Pareto front: no other row is both cheaper and at least as accurate"
COLOURS = {
    "teacher": "default",
    "asymmetric": "#0b6e99",
    "symmetric": "#6aa84f",
    "naive": "#c0392b",
    "baseline": "#b8860b",
}


def tradeoff_table(name: str, rows: Sequence[Row]) -> Table:
    """The rows of a study as a coloured table, with the latencies in milliseconds."""
    title = f"{name}: accuracy and cost of a query"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    notes = [FRONT_NOTE, *([SUBSET_NOTE] if is_subset(rows) else [])]
    table.caption, table.caption_justify = "\n".join(notes), "left"
    for column in (*shown_columns(rows[0]), "ms"):
        is_number = column in NUMBERS
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number)
    for row in rows:
        shown = shown_columns(row)
        shown["role"] = f"[{COLOURS[row['role']]}]{row['role']}[/]"
        latency_ms = row["latency_ms"]
        table.add_row(*shown.values(), "" if latency_ms is None else f"{latency_ms:.2f}")
    return table
