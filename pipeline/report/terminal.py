"""The trade-off table on a terminal."""

import pandas as pd
from rich.table import Table

from pipeline.report.figures import STYLES
from pipeline.report.tradeoff import SUBSET_NOTE, gain_text, is_subset, percent

FRONT_NOTE = "* on the Pareto front: no other row is both cheaper and at least as accurate"


def tradeoff_table(name: str, rows: pd.DataFrame) -> Table:
    """The rows of a study as a coloured table; a star marks the Pareto front."""
    table = Table(title=f"{name}: accuracy and cost of a query", title_justify="left")
    notes = [FRONT_NOTE, *([SUBSET_NOTE] if is_subset(rows) else [])]
    table.caption, table.caption_justify = "\n".join(notes), "left"
    table.add_column("network")
    table.add_column("role")
    for column in ("query px", "mAP %", "95 %", "mAP@R %", "R@1 %"):
        table.add_column(column, justify="right")
    table.add_column("mAP gain (interval)")
    for column in ("GMACs", "ms", "front"):
        table.add_column(column, justify="right")
    for row in rows.to_dict("records"):
        latency = row["latency_ms"]
        table.add_row(
            row["network"],
            f"[{STYLES[row['role']][0]}]{row['role']}[/]"
            if row["role"] != "teacher"
            else "teacher",
            str(row["query_px"]),
            percent(row, "map"),
            f"{percent(row, 'map_low')} to {percent(row, 'map_high')}",
            percent(row, "map_at_r"),
            percent(row, "recall_at_1"),
            gain_text(row),
            f"{row['gmacs']:.3g}",
            "" if pd.isna(latency) else f"{latency:.2f}",
            "*" if row["pareto"] else "",
        )
    return table
