"""The trade-off between accuracy and the cost of a query: the table of a study."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.evaluation.accuracy import MAP, OVERLAP, accuracy_of
from pipeline.evaluation.confidence import LEAST_CLASSES, LEAST_SEEDS
from pipeline.evaluation.latency import with_latencies
from pipeline.evaluation.roles import OPPONENTS
from pipeline.files import read_json
from pipeline.paths import DatasetPaths

SUBSET_NOTE = "subset: a part of the data set only; not comparable with published figures"
HEADROOM_NOTE = "closed: (map - naive map) / (teacher map - naive map), the headroom that is closed"
OVERLAP_NOTE = (
    "overlap@k: share of the teacher's k nearest images that a query finds; self: share of the "
    "queries that find their own image first, where it is not left out"
)
SEEDS_NOTE = (
    "seeds: so many trainings a row is the mean of; intervals draw seeds as well as {units}, and "
    f"under {LEAST_SEEDS} seeds, which say too little of others, their range stands beside"
)
ROLES = {
    "teacher": "The teacher at full size, in its own database: the upper bound.",
    "asymmetric": "The student, from small images, in the teacher's database: the method.",
    "symmetric": "The student, in a database made by the student: needs re-indexing.",
    "naive": "The teacher, fed small images, in its own database: without the method.",
    "adapter": "The same, its embeddings turned to fit those of large images: without training.",
    "baseline": "A network trained with labels at the small size, in its own database.",
}
UNTRAINED = ("naive", "adapter")  # roles that need no training; one row each for all of one size
# Columns on the right.
NUMBERS = {
    *("query px", "mAP %", "mAP@R %", "R@1 %", "closed %", "MACs", "ms (ratio)"),
    *("overlap@1 %", "overlap@10 %", "self %", "seeds"),
}

Row = dict[str, Any]  # None where it has no value in a column


def table_rows(cells: Iterable[Mapping[str, Row]]) -> list[Row]:
    """The rows of the cells, dearest query first, without any figure that depends on the machine.

    Rows that several cells share (naive and adapter at one size with one backbone) are kept once.

    cells: rows by role, as results/DATASET/cells/KEY.json holds them.
    """
    order = list(ROLES)
    rows = [row for cell in cells for row in cell.values()]
    rows.sort(key=lambda row: (-cost_of(row), row["network"], order.index(row["role"])))
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        shared = row["role"] in UNTRAINED
        own = ("role", "backbone", "query_px") if shared else ("role", "network")
        kept.setdefault(tuple(row[column] for column in own), row)
    rows = list(kept.values())
    columns = dict.fromkeys(column for row in rows for column in row)
    rows = [{column: row.get(column) for column in columns} for row in rows]
    accuracy = [row[accuracy_of(row).column] or 0.0 for row in rows]
    front = pareto_front([cost_of(row) for row in rows], accuracy)
    return [row | {"pareto": on} for row, on in zip(rows, front, strict=True)]


def cost_of(row: Row) -> float:
    """GMACs of a query; those that nobody knows, of a teacher without a network, are endless."""
    return math.inf if row["gmacs"] is None else float(row["gmacs"])


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> list[bool]:
    """For each row, whether no other costs at most as much and is at least as accurate.

    Of rows equal in both, all are on the front.
    """
    points = list(zip(cost, accuracy, strict=True))
    return [
        not any(other[0] <= own[0] and other[1] >= own[1] and other != own for other in points)
        for own in points
    ]


def read_rows(paths: DatasetPaths, cells: Sequence[str]) -> list[Row]:
    """The rows of a data set with the latencies that fit them. Writes nothing.

    Raises ValueError where a cell is not evaluated yet.
    """
    missing = [cell for cell in cells if not paths.cell(cell).exists()]
    if missing:
        raise ValueError(
            f"{paths.dataset}: not evaluated yet: {', '.join(missing)}; run `l2s study`"
        )
    return with_latencies(paths, table_rows(read_json(paths.cell(cell)) for cell in cells))


def csv_text(rows: Sequence[Row]) -> str:
    """The rows with all their columns, a line a row; no value is an empty field."""
    text = io.StringIO()
    columns = dict.fromkeys(column for row in rows for column in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shown_columns(row: Row, *, with_seeds: bool) -> dict[str, str]:
    """What people compare of a row, in words: percent, MACs, a star for the Pareto front."""
    accuracy = accuracy_of(row)
    others = {"overlap@1 %": "overlap_at_1", "self %": "self_recall"}
    if accuracy is MAP:
        others = {"mAP@R %": "map_at_r", "R@1 %": "recall_at_1"}
        others |= {f"{OVERLAP.name} %": OVERLAP.column} if OVERLAP.column in row else {}
    return {
        "network": row["network"],
        "role": row["role"],
        "query px": str(row["query_px"]),
        f"{accuracy.name} %": f"{percent(row, accuracy.column)}{between(row, accuracy.column)}",
        **({"seeds": seeds_text(row)} if with_seeds else {}),
        **{name: percent(row, column) for name, column in others.items()},
        "mAP gain" if accuracy is MAP else "gain": gain_text(row),
        "closed %": percent(row, "headroom_closed"),
        "MACs": "unknown" if row["gmacs"] is None else macs(row["gmacs"]),
        "front": "*" if row["pareto"] else "",
    }


def markdown_table(rows: Sequence[Row]) -> str:
    """The columns that people compare, as a Markdown table."""
    shown = [shown_columns(row, with_seeds=most_seeds(rows) > 1) for row in rows]
    rule = ["--:" if column in NUMBERS else "---" for column in shown[0]]
    cells = [list(shown[0]), rule, *(list(columns.values()) for columns in shown)]
    lines = "".join(f"| {' | '.join(texts)} |\n" for texts in cells)
    return "\n".join([lines, *(f"{note}\n" for note in notes(rows))])


def roles_of(rows: Sequence[Row]) -> dict[str, str]:
    """Those of `ROLES` that the rows have."""
    found = {row["role"] for row in rows}
    return {role: note for role, note in ROLES.items() if role in found}


def is_subset(rows: Sequence[Row]) -> bool:
    """Whether the figures are of a part of a published data set."""
    return any(row.get("subset") for row in rows)


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader of the figures must know."""
    accuracy = accuracy_of(rows[0])
    closed = any(row.get("headroom_closed") is not None for row in rows)
    found = [
        OVERLAP_NOTE * (accuracy is not MAP),
        (HEADROOM_NOTE if accuracy is MAP else HEADROOM_NOTE.replace("map", accuracy.name))
        * closed,
        threshold_note(rows),
        interval_note(rows),
        SEEDS_NOTE.format(units=accuracy.units) * (most_seeds(rows) > 1),
        SUBSET_NOTE * is_subset(rows),
    ]
    return [note for note in found if note]


def threshold_note(rows: Sequence[Row]) -> str:
    """What a threshold of the teacher's lets pass for each student; empty where nobody knows."""
    passed = [
        f"{row['network']} {100 * plain:.2f} %, calibrated "
        f"{100 * row['false_matches_passed_calibrated']:.2f} %"
        for row in rows
        if (plain := row.get("false_matches_passed")) is not None
    ]
    start = "false matches that pass a threshold which lets 1 % of the teacher's pass"
    return f"{start}: {'; '.join(passed)}" if passed else ""


def interval_note(rows: Sequence[Row]) -> str:
    """Why the rows of a data set have no intervals; empty where they have."""
    accuracy = accuracy_of(rows[0])
    if rows[0][f"{accuracy.column}_low"] is not None:
        return ""
    count = rows[0]["classes" if accuracy is MAP else "queries"]
    units = f"test {accuracy.units}"
    return f"no intervals: {count} {units} say too little, {LEAST_CLASSES} are needed"


def most_seeds(rows: Sequence[Row]) -> int:
    """Of how many trainings a row is the mean, at the most."""
    return max(row.get("seeds") or 1 for row in rows)


def seeds_text(row: Row) -> str:
    """The number of seeds, and the range of their accuracies in percent where they are few."""
    return f"{row['seeds']}{between(row, f'{accuracy_of(row).column}_seed')}"


def main_opponent(row: Row) -> str | None:
    """The opponent that the gain of a row is shown over: the first of those it was compared with.

    An asymmetric row has naive, a symmetric one baseline.
    """
    known, column = OPPONENTS.get(row["role"], ()), accuracy_of(row).column
    return next((one for one in known if row.get(f"{column}_over_{one}") is not None), None)


def gain_text(row: Row) -> str:
    opponent = main_opponent(row)
    if not opponent:
        return ""
    column = f"{accuracy_of(row).column}_over_{opponent}"
    return f"{100 * row[column]:+.1f} over {opponent}{between(row, column, sign='+')}"


def between(row: Row, column: str, sign: str = "") -> str:
    """The interval of a value, a fraction of 1, in percent or points: empty where there is none."""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    if low is None or high is None or low == high:  # what is so by definition has none
        return ""
    return f" ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def figures(value: float, count: int = 3) -> str:
    """A number to `count` significant figures, never with an exponent."""
    return f"{Decimal(f'{value:.{count}g}'):f}"


def macs(gmacs: float) -> str:
    """Multiply-accumulates in millions, or in billions from one on: "7.17 M", "4.09 G"."""
    return f"{figures(gmacs)} G" if gmacs >= 1 else f"{figures(1000 * gmacs)} M"


def p_value(p: float | None) -> str:
    return "\N{EN DASH}" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else f"{100 * value:.1f}"
