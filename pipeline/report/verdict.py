"""What the figures of a study say, in words: which network is better, and what to deploy."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.accuracy import MAP, OVERLAP, accuracy_of
from pipeline.report.tradeoff import (
    UNTRAINED,
    Row,
    between,
    cost_of,
    figures,
    interval_note,
    macs,
    most_seeds,
)

WITHOUT_METHOD = {
    "naive": "the teacher fed the same small images (naive)",
    "adapter": "that teacher with its embeddings turned (adapter)",
    "baseline": "a network with labels and a database of its own (baseline)",
}


_REVERSED = {"better": "worse", "worse": "better", "not told apart": "not told apart", "": ""}


def verdict(rows: Sequence[Row]) -> str:
    """A few sentences: the students against each row without the method; what to deploy; of how
    many seeds the figures are means, where they are.

    Better and worse are said only where the paired interval lies on one side of zero.

    rows: of one data set, as `table_rows` gives them, the teacher's among them.
    """
    students = [row for row in rows if row["role"] == "asymmetric"]
    if not students:
        return "No student is evaluated: there is nothing to compare with the teacher."
    if note := interval_note(rows):
        return f"Nothing here can be called better or worse, for there are {note}."
    seeds = most_seeds(rows)
    means = f" Figures are means of {seeds} seeds." if seeds > 1 else ""
    clauses = [_clause(students, opponent) for opponent in WITHOUT_METHOD]
    told = "; ".join(clause for clause in clauses if clause)
    advice = _advice(rows, students)
    if told.startswith("every"):
        told = f"E{told[1:]}"
    return (f"{told}. {advice}" if told else advice) + means


def accuracy_kept(rows: Sequence[Row], best: Row | None) -> dict[str, Any] | None:
    """The study in one picture: what of the teacher's accuracy each query size keeps, for what
    share of its arithmetic. `headline` says it of the `best` student; None where there is none.

    levels: the teacher, then the most accurate student of each size and backbone, dearest first;
    `shares` by role: of the student, and of what it is compared with, naive and baseline.
    """
    if best is None:
        return None
    teacher = next(row for row in rows if row["role"] == "teacher")
    column = accuracy_of(teacher).column
    whole = teacher[column]
    found: dict[tuple[str, int], Row] = {}
    students = [row for row in rows if row["role"] == "asymmetric"]
    for row in sorted(students, key=lambda row: (-cost_of(row), -row[column])):
        found.setdefault(_kind_of(row), row)

    def level(row: Row, shares: dict[str, float]) -> dict[str, Any]:
        known = teacher["gmacs"] and row["gmacs"]
        other = row["backbone"] if row["backbone"] != teacher["backbone"] else ""
        cost = row["gmacs"] / teacher["gmacs"] if known else None
        about = {one: row[one] for one in ("query_px", "gmacs")}
        return {**about, "cost": cost, "other": other, "shares": shares}

    def shares_of(row: Row) -> dict[str, float]:
        shares = {"asymmetric": row[column] / whole}
        for role in ("baseline", "naive"):
            if (gain := row.get(f"{column}_over_{role}")) is not None:
                shares[role] = (row[column] - gain) / whole
        return shares

    levels = [level(teacher, {"teacher": 1.0})]
    levels += [level(row, shares_of(row)) for row in found.values()]
    return {"headline": _headline(level(best, shares_of(best)), column), "levels": levels}


def _headline(level: Mapping[str, Any], column: str) -> str:
    shares = {role: figures(100 * share, 2) for role, share in level["shares"].items()}
    what = "accuracy" if column == MAP.column else "ten nearest"
    cost = f"{macs(level['gmacs'])}MACs"
    if level["cost"] is not None:
        cost = f"{figures(100 * level['cost'], 2)} % of its arithmetic"
    kept = (
        f"A query of {level['query_px']} px keeps {shares['asymmetric']} % of the teacher's {what}"
    )
    without = f"; without the method it keeps {shares['naive']} %" if "naive" in shares else ""
    return f"{kept} for {cost}{without}."


def stands(row: Row, opponent: str) -> str:
    """How a row compares with an opponent: better, worse, not told apart, or "" for not known."""
    column = f"{accuracy_of(row).column}_over_{opponent}"
    return _word(row.get(f"{column}_low"), row.get(f"{column}_high"))


def stands_to_row(row: Row, other: Row) -> str:
    """How a row compares with another, in the words of `stands`.

    Where the two were not compared in pairs, only intervals that lie apart tell them apart.
    """
    if _are_paired(row, other):
        return stands(row, other["role"])
    if _are_paired(other, row) or row["role"] == "teacher" != other["role"]:
        return _REVERSED[stands_to_row(other, row)]
    if other["role"] == "teacher" and accuracy_of(row) is MAP:
        return _REVERSED[_word(row["map_drop_low"], row["map_drop_high"])]
    low, high = (f"{accuracy_of(row).column}_{end}" for end in ("low", "high"))
    if row[low] is None or other[low] is None:
        return ""
    return _word(row[low] - other[high], row[high] - other[low])


def _are_paired(row: Row, other: Row) -> bool:
    shared = other["role"] in UNTRAINED and row["query_px"] == other["query_px"]
    one_cell = shared or row["network"] == other["network"]
    return one_cell and row.get(f"{accuracy_of(row).column}_over_{other['role']}") is not None


def _word(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def _clause(students: Sequence[Row], opponent: str) -> str:
    """The students that are better than an opponent, not told apart, and worse, with the points."""
    column = f"{accuracy_of(students[0]).column}_over_{opponent}"
    parts: list[str] = []
    for word, link in (("better", "than"), ("not told apart", "from"), ("worse", "than")):
        found = [row for row in students if stands(row, opponent) == word]
        if not found:
            continue
        *others, last = (row["network"] for row in found)
        who = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        if others and len(found) == len(students):
            who = "every student is"
        points = sorted(row[column] for row in found)
        span = f" to {100 * points[-1]:+.1f}" if others else between(found[0], column, sign="+")
        whom = "" if parts else f" {link} {WITHOUT_METHOD[opponent]}"
        parts.append(f"{who} {word}{whom}, {100 * points[0]:+.1f}{span} points")
    return ", ".join(parts)


def _advice(rows: Sequence[Row], students: Sequence[Row]) -> str:
    """What to deploy: the most accurate student that is worth its training, or none."""
    teacher = next(row for row in rows if row["role"] == "teacher")
    by = accuracy_of(teacher)
    untrained = [row for row in rows if row["role"] in UNTRAINED]

    def is_worth_it(row: Row) -> bool:
        return row["gmacs"] < cost_of(teacher) and all(
            stands_to_row(row, other) == "better"
            if other["query_px"] == row["query_px"]
            else row[by.column] > other[by.column] or cost_of(other) > row["gmacs"]
            for other in untrained
        )

    worth = [row for row in students if is_worth_it(row)]
    if not worth:
        return (
            "Deploy no student: none is both cheaper than the teacher and better than what "
            "needs no training."
        )
    best = max(worth, key=lambda row: (row[by.column], -row["gmacs"]))
    said = f"To deploy in the teacher's database: {best['network']}, "
    if teacher["gmacs"] is None:
        said += f"{macs(best['gmacs'])}MACs (the teacher's are unknown)"
    else:
        said += (
            f"{figures(100 * best['gmacs'] / teacher['gmacs'], 2)} % of the teacher's arithmetic"
        )
    if by is MAP:
        drop = f"{100 * best['map_drop']:.1f}{between(best, 'map_drop')}"
        said += f", {drop} points of mAP below it"
    else:
        said += f": it finds {finds(best)}"
    alike = [row for row in students if _kind_of(row) == _kind_of(best)]
    if len(alike) > 1:  # a choice by test figures
        said += (
            f" (the first of {len(alike)} of its size, a choice that its interval does not count)"
        )
    rivals = [
        row
        for row in rows
        if row["role"] in ("symmetric", "baseline") and row["gmacs"] <= best["gmacs"]
        if stands_to_row(row, best) == "better"
    ]
    if rivals:
        rival = max(rivals, key=lambda row: row[by.column])
        said += (
            f"; with a second database {rival['network']} ({rival['role']}) is more accurate, "
            f"{100 * rival[by.column]:.1f} against {100 * best[by.column]:.1f} %"
        )
    compared = [best.get(f"{by.column}_over_{role}") is not None for role in UNTRAINED]
    if not any(compared) and best["query_px"] < teacher["query_px"]:
        said += "; nothing that needs no training could be compared with it"
    return f"{said}."


def _kind_of(row: Row) -> tuple[str, int]:
    return row["backbone"], row["query_px"]


def finds(row: Row) -> str:
    """How much of the teacher's own search a row finds, in words."""
    column = OVERLAP.column
    return f"{100 * row[column]:.1f}{between(row, column)} % of the teacher's ten nearest"
