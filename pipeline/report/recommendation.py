"""Which network to take: the cheapest that keeps enough accuracy, by its interval, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.tradeoff import ROLES, Row

FACTS = (
    *("network", "role", "backbone", "query_px", "database_px", "gmacs", "latency_ms"),
    *("map", "map_low", "map_high", "map_drop", "map_drop_low", "map_drop_high"),
)


@dataclass(frozen=True)
class Bounds:
    """What a network may cost, None being no bound.

    max_drop: points of mAP that it may fall short of the teacher; even the far end of the interval
    of its drop, 100 * `map_drop_high`, must not exceed it. max_latency_ms: median time of a query
    on this machine. max_gmacs: arithmetic of a query.
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_gmacs: float | None = None

    def __post_init__(self) -> None:
        given = {name: bound for name, bound in vars(self).items() if bound is not None}
        if not given:
            raise ValueError("no bound: give --max-drop, --max-latency-ms or --max-gmacs")
        for name, bound in given.items():
            if not 0 <= bound < math.inf:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} {bound:g}: must be a number, 0 or more")

    def broken(self, row: Row) -> list[tuple[float, str]]:
        """By how much of itself each bound is exceeded by a row, and in words; none: it is within.

        A latency that was not measured is beyond every bound.
        """
        latency_ms, latency = row["latency_ms"], "it takes {:.3g} ms"
        if latency_ms is None:
            latency_ms, latency = math.inf, "its latency was not measured on this machine"
        limits = (
            (self.max_drop, 1.0, 100 * row["map_drop_high"], "its drop may be {:.1f} points"),
            (self.max_latency_ms, 1e-3, latency_ms, latency),
            (self.max_gmacs, 1e-6, row["gmacs"], "it costs {:.3g} GMACs"),
        )
        return [
            ((value - bound) / max(bound, least), words.format(value))
            for bound, least, value, words in limits
            if bound is not None and value > bound
        ]

    def __str__(self) -> str:
        parts = {
            "at most {:g} points below the teacher": self.max_drop,
            "at most {:g} ms": self.max_latency_ms,
            "at most {:g} GMACs": self.max_gmacs,
        }
        return ", ".join(text.format(bound) for text, bound in parts.items() if bound is not None)


def recommend(
    table: Sequence[Row], bounds: Bounds, roles: Sequence[str] = ("asymmetric",)
) -> dict[str, Any]:
    """The best row of some roles within the bounds, of the rows of one data set.

    With a bound of the drop it is the row of fewest GMACs (of equal ones the more accurate). With
    bounds of the cost alone the cheapest row would always be the least accurate: it is then the
    most accurate row (of equal ones the cheaper).

    Gives `chosen`, that row, or None and the row that comes `closest`; `why`, in words that stand
    for themselves; `alternatives`, each other candidate with a reason. Rows hold `FACTS`.

    table: rows with the columns `FACTS`, one of role `teacher` among them.
    roles: symmetric and baseline rows need a database of their own.

    Raises ValueError for unknown roles, and for a table that no row of theirs is in or that lacks
    the drops.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(f"--roles {', '.join(unknown)}: must be some of {', '.join(ROLES)}")
    dataset = table[0]["dataset"]
    if any(row.get("map_drop_high") is None for row in table):
        raise ValueError(f"{dataset} was evaluated by an older version: run `l2s study`")
    rows = [{fact: row[fact] for fact in FACTS} for row in table]
    teacher = next(row for row in rows if row["role"] == "teacher")
    candidates = [row for row in rows if row["role"] in roles]
    if not candidates:
        raise ValueError(f"{dataset} has no row of role {', '.join(roles)}")

    def order(row: Row) -> tuple[Any, ...]:
        excess = sum(excess for excess, _ in bounds.broken(row))
        if excess or bounds.max_drop is not None:
            return excess, row["gmacs"], -row["map"], row["network"]
        return excess, -row["map"], row["gmacs"], row["network"]

    best = min(candidates, key=order)
    within = [row for row in candidates if not bounds.broken(row)]
    if within:
        ground = "the most accurate" if bounds.max_drop is None else "the cheapest"
        why = (
            f"{ground} of {len(within)} within the bounds ({bounds}), of {len(candidates)} in all; "
            f"{100 * best['gmacs'] / teacher['gmacs']:.2g} % of the teacher's GMACs"
        )
    else:
        why = (
            f"none of {len(candidates)} is within the bounds ({bounds}); "
            f"{best['network']} ({best['role']}) comes closest: {_faults(best, bounds)}"
        )
    return {
        "chosen": best if within else None,
        "closest": None if within else best,
        "why": why,
        "alternatives": [
            row | {"within": row in within, "why": _comparison(row, best, bounds)}
            for row in candidates
            if row is not best
        ],
    }


def _faults(row: Row, bounds: Bounds) -> str:
    return " and ".join(text for _, text in bounds.broken(row))


def _comparison(row: Row, best: Row, bounds: Bounds) -> str:
    """Why the row is not the best one."""
    if faults := _faults(row, bounds):
        return f"not within the bounds: {faults}"
    points = 100 * (row["map"] - best["map"])
    overlap = row["map_low"] <= best["map_high"] and best["map_low"] <= row["map_high"]
    return (
        f"within the bounds: {row['gmacs'] / best['gmacs']:.3g} times the GMACs, "
        f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} accurate"
        f"{', their intervals overlap' if overlap else ''}"
    )
