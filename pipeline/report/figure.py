"""The figure of a study, accuracy against the cost of a query: on the page and as a file.

Here stands where its marks lie, in units of the drawing; figure.j2 draws them.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.evaluation.accuracy import accuracy_of
from pipeline.report.tradeoff import (
    Row,
    figures,
    macs,
    main_opponent,
    p_value,
    pareto_front,
    roles_of,
)

FOLDER = Path(__file__).parent
LOOK = FOLDER.with_name("look.css")
LEFT, RIGHT, TOP, BOTTOM = 40, 18, 40, 48
WIDE = (980, 460)
LABEL_SPACE = 44  # the least distance of two labels of query sizes
MOST_TICKS = 7
DIGITS = ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
# Columns of rows against which the front is drawn, and what they are.
COSTS = {
    "gmacs": "MACs a query",
    "train_gmacs": "MACs of the training",
    "latency_ratio": "time of a query, the teacher's being 1",
    "training_s": "seconds of the training",
}


def draw_panel(rows: Sequence[Row], width: int, height: int, cost: str = "gmacs") -> dict[str, Any]:
    """Lay out accuracy in percent over one of `COSTS`, a logarithmic axis, from the rows of one
    data set. Of another cost than GMACs a query the Pareto front is drawn anew.

    marks: the rows of known cost and accuracy, cheapest first, with `x`, `y`, `low_y` and `high_y`
    (None without an interval) and `own`, whether the backbone is the teacher's. ticks: places and
    their labels.
    """
    by = accuracy_of(rows[0])
    own = {row["backbone"] for row in rows if row["role"] == "teacher"}
    rows = [row for row in rows if row.get(cost) and row[by.column] is not None]
    right, bottom = width - RIGHT, height - BOTTOM
    costs = [row[cost] for row in rows] or [1.0]  # axes alone, where no cost is known
    if cost != "gmacs":
        front = pareto_front(costs, [row[by.column] for row in rows])
        rows = [row | {"pareto": on} for row, on in zip(rows, front, strict=True)]
    label = macs if cost.endswith("gmacs") else figures
    least, most = min(costs), max(costs)
    pad = max(1.12, (most / least) ** 0.06) if most > least else 3.0
    first, last = least / pad, most * pad
    along = scale(math.log10(first), math.log10(last), LEFT, right)
    ends = [row[f"{by.column}{end}"] for row in rows for end in ("", "_low", "_high")]
    percents = [100 * end for end in ends if end is not None] or [0.0, 100.0]
    ticks = percent_ticks(min(percents), max(percents))
    y = scale(ticks[0], ticks[-1], bottom, TOP)
    marks = [
        row
        | {
            "own": row["backbone"] in own,
            "x": along(math.log10(row[cost])),
            "y": y(100 * row[by.column]),
        }
        | {
            f"{end}_y": None
            if row[f"{by.column}_{end}"] is None
            else y(100 * row[f"{by.column}_{end}"])
            for end in ("low", "high")
        }
        for row in sorted(rows, key=lambda row: (row[cost], row[by.column]))
    ]
    return {
        "measure": by.name,
        "cost": COSTS[cost],
        "size": (width, height),
        "edges": (LEFT, right, TOP, bottom),
        "x_ticks": [(along(math.log10(tick)), label(tick)) for tick in cost_ticks(first, last)],
        "y_ticks": [(y(tick), f"{tick:g}") for tick in ticks],
        "size_ticks": _size_ticks(marks) if cost == "gmacs" else [],
        "marks": marks,
    }


def costs_of(rows: Sequence[Row]) -> list[str]:
    """Those of `COSTS` that more than one row has."""
    return [cost for cost in COSTS if sum(1 for row in rows if row.get(cost)) > 1]


def draw_tradeoff(rows: Sequence[Row], title: str, cost: str = "gmacs") -> str:
    """The figure of one data set as an SVG file; the same rows give the same text."""
    template = environment().get_template("tradeoff.svg.j2")
    return template.render(panel=draw_panel(rows, *WIDE, cost), title=title, roles=roles_of(rows))


def environment() -> Environment:
    """The templates of this folder, and how they write numbers."""
    found = Environment(
        loader=FileSystemLoader([FOLDER, LOOK.parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": lambda value: f"{100 * value:.1f}",
        "signed": lambda value: f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}"),
        "figures": figures,
        "macs": macs,
    }
    found.filters |= {"p_value": p_value, "opponent": main_opponent, "accuracy": accuracy_of}
    return found


def scale(first: float, last: float, start: float, end: float) -> Callable[[float], float]:
    """A line from values `first` .. `last` to places `start` .. `end`."""
    return lambda value: round(start + (value - first) / (last - first) * (end - start), 2)


def cost_ticks(first: float, last: float) -> list[float]:
    """Round values between the two, the most of `DIGITS` of each power of ten that have room."""
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    for digits in DIGITS:
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if first <= tick <= last]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def percent_ticks(low: float, high: float) -> list[float]:
    """Evenly spaced round values around low .. high, from 0 where that is near."""
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step < MOST_TICKS - 1)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    if first <= 2:
        first = 0
    return [float(step * place) for place in range(first, last + 1)]


def _size_ticks(marks: Sequence[Row]) -> list[tuple[float, str]]:
    """Query sizes of the teacher's backbone at their costs, where they do not run together."""
    sizes = {mark["query_px"]: mark["x"] for mark in marks if mark["own"]}
    ticks: list[tuple[float, str]] = []
    for query_px, place in sorted(sizes.items(), reverse=True):
        if not ticks or ticks[-1][0] - place >= LABEL_SPACE:
            ticks.append((place, f"{query_px} px"))
    return ticks
