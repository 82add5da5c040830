"""Which network to take: the cheapest that keeps enough accuracy, by its interval, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.tradeoff import ROLES, Row

CANDIDATES = ("asymmetric",)  # symmetric and baseline rows need a database of their own
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
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise ValueError("no bound: give --max-drop, --max-latency-ms or --max-gmacs")
        for name, value in given.items():
            if not math.isfinite(value) or value < 0:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} {value:g}: must be a number, 0 or more")

    def broken(self, row: Row) -> list[tuple[float, str]]:
        """By how much of itself each bound is exceeded by a row, and in words; none: it is within.

        A latency that was not measured is beyond every bound.
        """
        found = []
        drop, latency_ms = 100 * row["map_drop_high"], row["latency_ms"]
        if self.max_drop is not None and drop > self.max_drop:
            excess = (drop - self.max_drop) / max(self.max_drop, 1.0)
            found.append((excess, f"its drop may be {drop:.1f} points"))
        if self.max_latency_ms is not None and latency_ms is None:
            found.append((math.inf, "its latency was not measured on this machine"))
        elif self.max_latency_ms is not None and latency_ms > self.max_latency_ms:
            excess = (latency_ms - self.max_latency_ms) / max(self.max_latency_ms, 1e-3)
            found.append((excess, f"it takes {latency_ms:.3g} ms"))
        if self.max_gmacs is not None and row["gmacs"] > self.max_gmacs:
            excess = (row["gmacs"] - self.max_gmacs) / max(self.max_gmacs, 1e-6)
            found.append((excess, f"it costs {row['gmacs']:.3g} GMACs"))
        return found

    def __str__(self) -> str:
        parts = {
            "at most {:g} points below the teacher": self.max_drop,
            "at most {:g} ms": self.max_latency_ms,
            "at most {:g} GMACs": self.max_gmacs,
        }
        return ", ".join(text.format(bound) for text, bound in parts.items() if bound is not None)


@dataclass(frozen=True)
class Recommendation:
    """The chosen row, or None and the row that comes closest; each other candidate with a reason.

    Rows hold `FACTS`; `why` stands for itself, in words.
    """

    chosen: Row | None
    closest: Row | None
    why: str
    alternatives: list[Row]


def recommend(
    table: Sequence[Row], bounds: Bounds, roles: Sequence[str] = CANDIDATES
) -> Recommendation:
    """The best row of some roles within the bounds, of the rows of one data set.

    With a bound of the drop it is the row of fewest GMACs (of equal ones the more accurate). With
    bounds of the cost alone the cheapest row would always be the least accurate: it is then the
    most accurate row (of equal ones the cheaper).

    table: rows with the columns `FACTS`, one of role `teacher` among them. Raises ValueError for
    unknown roles, and for a table that no row of theirs is in or that lacks the drops.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(f"--roles {', '.join(unknown)}: must be some of {', '.join(ROLES)}")
    if any(row.get("map_drop_high") is None for row in table):
        raise ValueError("the study was evaluated by an older version: run `l2s study`")
    rows = [{fact: row[fact] for fact in FACTS} for row in table]
    teacher = next(row for row in rows if row["role"] == "teacher")
    candidates = [row for row in rows if row["role"] in roles]
    if not candidates:
        raise ValueError(f"the study has no row of role {', '.join(roles)}")
    within = [row for row in candidates if not bounds.broken(row)]
    if not within:
        best = min(
            candidates,
            key=lambda row: (sum(excess for excess, _ in bounds.broken(row)), row["gmacs"]),
        )
        why = (
            f"none of {len(candidates)} is within the bounds ({bounds}); "
            f"{best['network']} ({best['role']}) comes closest: {_faults(best, bounds)}"
        )
    else:
        if bounds.max_drop is not None:
            best = min(within, key=lambda row: (row["gmacs"], -row["map"], row["network"]))
            ground = "the cheapest"
        else:
            best = min(within, key=lambda row: (-row["map"], row["gmacs"], row["network"]))
            ground = "the most accurate"
        why = (
            f"{ground} of {len(within)} within the bounds ({bounds}), of {len(candidates)} in all; "
            f"{100 * best['gmacs'] / teacher['gmacs']:.2g} % of the teacher's GMACs"
        )
    return Recommendation(
        chosen=best if within else None,
        closest=None if within else best,
        why=why,
        alternatives=[
            row | {"within": row in within, "why": _comparison(row, best, bounds)}
            for row in candidates
            if row is not best
        ],
    )


def _faults(row: Row, bounds: Bounds) -> str:
    return " and ".join(text for _, text in bounds.broken(row))


def _comparison(row: Row, best: Row, bounds: Bounds) -> str:
    """Why the row is not the best one."""
    if faults := _faults(row, bounds):
        return f"not within the bounds: {faults}"
    points = 100 * (row["map"] - best["map"])
    overlap = row["map_low"] <= best["map_high"] and best["map_low"] <= row["map_high"]
    accuracy = f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} accurate" + (
        ", their intervals overlap" if overlap else ""
    )
    ratio = row["gmacs"] / best["gmacs"]
    cost = f"{ratio:.3g} times the GMACs" if row["gmacs"] != best["gmacs"] else "as dear"
    return f"within the bounds: {cost}, {accuracy}"
