"""Which network to take: the cheapest that keeps enough accuracy, by its interval, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.accuracy import MAP, OVERLAP, accuracy_of
from pipeline.evaluation.latency import COLUMNS, REMEDY
from pipeline.report.tradeoff import ROLES, UNTRAINED, Row, cost_of, figures, interval_note
from pipeline.report.verdict import stands_to_row, verdict

FACTS = (
    "network",
    "role",
    "backbone",
    "query_px",
    "database_px",
    "gmacs",
    "map",
    "seeds",
    *COLUMNS,
)
ENDS = ("", "_low", "_high", "_drop", "_drop_low", "_drop_high")  # of the accuracy
# What a role takes besides the network.
NEEDS = dict.fromkeys(UNTRAINED, "needs no training; `l2s export` does not write it") | {
    "asymmetric": "needs a training without labels",
    "symmetric": "needs a database of its own",
    "baseline": "needs labels, and a database of its own; `l2s export` does not write it",
}


@dataclass(frozen=True)
class Bounds:
    """What a network may cost, None being no bound.

    max_drop: points of mAP (without labels of overlap@10) that it may fall short of the teacher;
    even the far end of the interval of its drop, 100 * `map_drop_high`, must not exceed it.
    max_latency_ms: median time of a single query, as `l2s latency` measured it. max_gmacs:
    arithmetic of a query. min_overlap: share of the teacher's ten nearest images that it must find,
    a fraction of 1; even the near end of its interval, `overlap_at_10_low`, must reach it.
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_gmacs: float | None = None
    min_overlap: float | None = None

    def __post_init__(self) -> None:
        given = {name: bound for name, bound in vars(self).items() if bound is not None}
        if not given:
            options = "--max-drop, --min-overlap, --max-latency-ms or --max-gmacs"
            raise ValueError(f"no bound: give {options}")
        for name, bound in given.items():
            option = f"--{name.replace('_', '-')}"
            if not 0 <= bound < math.inf:
                raise ValueError(f"{option} {bound:g}: must be a number, 0 or more")
            if name == "min_overlap" and bound > 1:
                raise ValueError(f"{option} {bound:g}: must be a fraction of 1, such as 0.9")

    @property
    def of_accuracy(self) -> bool:
        """Whether a bound holds a network to an accuracy, so that the cheapest one is wanted."""
        return self.max_drop is not None or self.min_overlap is not None

    def broken(self, row: Row) -> list[tuple[float, str]]:
        """By how much of itself each bound is exceeded by a row, and in words; none: it is within.

        A latency that was not measured, and a drop or an overlap without an interval, are beyond
        every bound.
        """
        drop, lost = row[f"{accuracy_of(row).column}_drop_high"], "its drop may be {:.1f} points"
        if drop is None:
            drop, lost = math.inf, "its drop has no interval"
        # What is not found must not be more than what may be missed.
        found, missed = row.get(f"{OVERLAP.column}_low"), "it may miss {:.1f} % of the ten nearest"
        if found is None:
            found, missed = -math.inf, "its overlap has no interval"
        most = None if self.min_overlap is None else 100 * (1 - self.min_overlap)
        latency_ms, latency = row["latency_ms"], "it takes {:.3g} ms"
        if latency_ms is None:
            latency_ms, latency = math.inf, f"it changed after the measurement: {REMEDY}"
        limits = (
            (self.max_drop, 1.0, 100 * drop, lost),
            (most, 1.0, 100 * (1 - found), missed),
            (self.max_latency_ms, 1e-3, latency_ms, latency),
            (self.max_gmacs, 1e-6, cost_of(row), "it costs {:.3g} GMACs"),
        )
        return [
            ((value - bound) / max(bound, least), words.format(value))
            for bound, least, value, words in limits
            if bound is not None and value > bound
        ]

    def __str__(self) -> str:
        overlap = None if self.min_overlap is None else 100 * self.min_overlap
        parts = (
            ("at most {:g} points below the teacher", self.max_drop),
            ("at least {:g} % of the teacher's ten nearest", overlap),
            ("at most {:g} ms", self.max_latency_ms),
            ("at most {:g} GMACs", self.max_gmacs),
        )
        return ", ".join(text.format(bound) for text, bound in parts if bound is not None)


def recommend(
    table: Sequence[Row], bounds: Bounds, roles: Sequence[str] = ("asymmetric",)
) -> dict[str, Any]:
    """The best row of some roles within the bounds, of the rows of one data set.

    With a bound of the accuracy it is the row of fewest GMACs (of equal ones the more accurate).
    With bounds of the cost alone the cheapest row would always be the least accurate: it is then
    the most accurate row (of equal ones the cheaper).

    Gives `chosen`, that row, or None and the row that comes `closest`; `why`, in words that stand
    for themselves; `alternatives`, each other candidate with a reason; `as_good`, the rows of other
    roles that cost no more and that the figures do not tell to be worse; `verdict`, what the
    figures of the whole table say. Rows hold `FACTS`.

    table: rows as `read_rows` gives them, one of role `teacher` among them.
    roles: what each needs besides the network stands in `NEEDS`.

    Raises ValueError for unknown roles, for a table that no row of theirs is in or that lacks the
    drops or the overlaps, for a bound of the drop where there are no intervals, and for one of the
    latency where no candidate has any.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(f"--roles {', '.join(unknown)}: must be some of {', '.join(ROLES)}")
    dataset = table[0]["dataset"]
    by = accuracy_of(table[0])
    asked = [f"{by.column}_drop"] + [OVERLAP.column] * (bounds.min_overlap is not None)
    candidates = [row for row in table if row["role"] in roles]
    lacking = [row for row in candidates for column in asked if row.get(column) is None]
    if lacking or any("seeds" not in row for row in table):
        raise ValueError(f"{dataset} was evaluated by an older version: run `l2s study`")
    if bounds.max_drop is not None and (note := interval_note(table)):
        remedy = "give --max-gmacs or --max-latency-ms, or evaluate on more classes"
        raise ValueError(f"--max-drop {bounds.max_drop:g}: {dataset} has {note}: {remedy}")
    teacher = next(row for row in table if row["role"] == "teacher")
    if not candidates:
        raise ValueError(f"{dataset} has no row of role {', '.join(roles)}")
    if bounds.max_latency_ms is not None and all(row["latency_ms"] is None for row in candidates):
        raise ValueError(f"--max-latency-ms: no time of {dataset} is of these networks; {REMEDY}")

    def order(row: Row) -> tuple[Any, ...]:
        excess = sum(excess for excess, _ in bounds.broken(row))
        if excess or bounds.of_accuracy:
            return excess, cost_of(row), -row[by.column], row["network"]
        return excess, -row[by.column], cost_of(row), row["network"]

    best = min(candidates, key=order)
    within = [row for row in candidates if not bounds.broken(row)]
    if within:
        ground = "the cheapest" if bounds.of_accuracy else "the most accurate"
        why = f"{ground} of {len(within)} within the bounds ({bounds}), of {len(candidates)} in all"
        if teacher["gmacs"] is not None:
            share = figures(100 * best["gmacs"] / teacher["gmacs"], 2)
            why += f"; {share} % of the teacher's arithmetic"
        if best["role"] not in ("teacher", "asymmetric"):
            why += f"; {NEEDS[best['role']]}"
    else:
        why = (
            f"none of {len(candidates)} is within the bounds ({bounds}); "
            f"{best['network']} ({best['role']}) comes closest: {_faults(best, bounds)}"
        )
    return {
        "chosen": _facts(best) if within else None,
        "closest": None if within else _facts(best),
        "why": why,
        "alternatives": [
            _facts(row) | {"within": row in within, "why": _reason(row, best, bounds)}
            for row in candidates
            if row is not best
        ],
        "as_good": [
            _facts(row) | {"why": f"{_comparison(row, best)}; {NEEDS[row['role']]}"}
            for row in table
            if row["role"] not in (*roles, "teacher") and cost_of(row) <= cost_of(best)
            if stands_to_row(best, row) != "better"
        ],
        "verdict": verdict(table),
    }


def _facts(row: Row) -> Row:
    columns = [f"{accuracy_of(row).column}{end}" for end in ENDS]
    own = [f"{OVERLAP.column}{end}" for end in ENDS[:3]]
    own += [f"{accuracy_of(row).column}_seed{end}" for end in ENDS[1:3]]
    known = [column for column in own if column in row]
    return {fact: row[fact] for fact in (*FACTS, *columns, *known)}


def _faults(row: Row, bounds: Bounds) -> str:
    return " and ".join(text for _, text in bounds.broken(row))


def _reason(row: Row, best: Row, bounds: Bounds) -> str:
    """Why the row is not the best one."""
    faults = _faults(row, bounds)
    if faults:
        return f"not within the bounds: {faults}"
    return f"within the bounds: {_comparison(row, best)}"


def _comparison(row: Row, best: Row) -> str:
    by = accuracy_of(row)
    points = 100 * (row[by.column] - best[by.column])
    apart = {"not told apart": ", not told apart by the intervals", "": ", without intervals"}
    cost = "its cost is unknown, "
    if row["gmacs"] is not None and best["gmacs"] is not None:
        cost = f"{row['gmacs'] / best['gmacs']:.3g} times the arithmetic, "
    return (
        f"{cost}{'a' if by is MAP else 'an'} {by.name} {abs(points):.1f} points "
        f"{'higher' if points >= 0 else 'lower'}{apart.get(stands_to_row(row, best), '')}"
    )
