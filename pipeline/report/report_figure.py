"""Where the marks of the report's figure stand: one panel a data set, in units of its drawing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

LEFT, RIGHT, TOP, BOTTOM = 40, 18, 40, 48
LABEL_SPACE = 44  # the least distance of two labels of query sizes
MOST_TICKS = 7


@dataclass(frozen=True)
class Scale:
    """A line from values `first` .. `last` to places `start` .. `end`; of the logarithm if so."""

    first: float
    last: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        first, last = self.first, self.last
        if self.logarithmic:
            value, first, last = math.log10(value), math.log10(first), math.log10(last)
        return round(self.start + (value - first) / (last - first) * (self.end - self.start), 2)


@dataclass(frozen=True)
class Mark:
    """A row of the table as a point with its interval. `number` is that of the row."""

    number: int
    role: str
    own_backbone: bool
    on_front: bool
    x: float
    y: float
    low_y: float
    high_y: float


@dataclass(frozen=True)
class Curve:
    """The marks of one role and backbone, joined from the cheapest to the dearest."""

    role: str
    own_backbone: bool
    path: str


@dataclass(frozen=True)
class Panel:
    width: int
    height: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    size_ticks: list[tuple[float, str]]
    curves: list[Curve]
    front: str
    marks: list[Mark]
    right: int
    bottom: int
    left: int = LEFT
    top: int = TOP


def draw_panel(rows: Sequence[Mapping[str, Any]], width: int, height: int) -> Panel:
    """Lay out mAP in percent over GMACs, from the rows of one data set.

    Each row holds `number` besides the columns of the table. The axis of costs is logarithmic.
    """
    right, bottom = width - RIGHT, height - BOTTOM
    costs = [row["gmacs"] for row in rows]
    pad = max(1.12, (max(costs) / min(costs)) ** 0.06)
    if min(costs) == max(costs):
        pad = 3.0
    x = Scale(min(costs) / pad, max(costs) * pad, LEFT, right, logarithmic=True)
    y_values = percent_ticks(
        100 * min(row["map_low"] for row in rows), 100 * max(row["map_high"] for row in rows)
    )
    y = Scale(y_values[0], y_values[-1], bottom, TOP)
    own = {row["backbone"] for row in rows if row["role"] == "teacher"}
    marks = [
        Mark(
            row["number"],
            row["role"],
            row["backbone"] in own,
            row["pareto"],
            x(row["gmacs"]),
            y(100 * row["map"]),
            y(100 * row["map_low"]),
            y(100 * row["map_high"]),
        )
        for row in sorted(rows, key=lambda row: (row["gmacs"], row["map"]))
    ]
    return Panel(
        width=width,
        height=height,
        x_ticks=[(x(value), f"{value:g}") for value in cost_ticks(x.first, x.last)],
        y_ticks=[(y(value), f"{value:g}") for value in y_values],
        size_ticks=_size_ticks(rows, own, x),
        curves=list(_curves(rows, own, x, y)),
        front=_staircase([(mark.x, mark.y) for mark in marks if mark.on_front]),
        marks=marks,
        right=right,
        bottom=bottom,
    )


def cost_ticks(first: float, last: float) -> list[float]:
    """Round values between the two: 1, 2 and 5 of each power of ten, or fewer where many fit."""
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [float(f"{tick:.3g}") for tick in ticks if first <= tick <= last]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def percent_ticks(low: float, high: float) -> list[float]:
    """Evenly spaced round values around low .. high, from 0 where that is near."""
    step = next(
        step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step < MOST_TICKS - 1 or step == 50
    )
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    if first <= 2:
        first = 0
    return [float(step * place) for place in range(first, last + 1)]


def _size_ticks(
    rows: Iterable[Mapping[str, Any]], own: set[str], x: Scale
) -> list[tuple[float, str]]:
    """Query sizes of the teacher's backbone at their costs, where they do not run together."""
    sizes = {row["query_px"]: x(row["gmacs"]) for row in rows if row["backbone"] in own}
    ticks: list[tuple[float, str]] = []
    for query_px, place in sorted(sizes.items(), reverse=True):
        if not ticks or ticks[-1][0] - place >= LABEL_SPACE:
            ticks.append((place, f"{query_px} px"))
    return ticks


def _curves(
    rows: Iterable[Mapping[str, Any]], own: set[str], x: Scale, y: Scale
) -> Iterable[Curve]:
    def kind(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["role"], row["backbone"]

    ordered = sorted(rows, key=lambda row: (*kind(row), row["gmacs"]))
    for (role, backbone), members in groupby(ordered, kind):
        points = [(x(row["gmacs"]), y(100 * row["map"])) for row in members]
        if len(points) > 1:
            path = "M" + " L".join(f"{left} {top}" for left, top in points)
            yield Curve(role, backbone in own, path)


def _staircase(points: Sequence[tuple[float, float]]) -> str:
    """What can be had for at most each cost: level up to the next mark, then up to it."""
    if len(points) < 2:
        return ""
    steps = " ".join(f"H{left} V{top}" for left, top in points[1:])
    return f"M{points[0][0]} {points[0][1]} {steps}"
