"""Who beats whom: students of one size against each other, and of one cost in two architectures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pipeline.evaluation.accuracy import OVERLAP, Accuracy, accuracy_of
from pipeline.evaluation.confidence import LEAST_CLASSES, paired_test
from pipeline.evaluation.rivals import compare_with_best, holm, stand
from pipeline.files import read_json
from pipeline.paths import DatasetPaths
from pipeline.report.curves import draw_curves
from pipeline.report.tradeoff import Row, between, macs, p_value

SAME_COST = 0.1  # the most that two rows of one cost differ by, a share of the lighter network's
SAMPLES = 4000  # resamples: a p-value that is corrected for many pairs needs more than an interval
WORDS = {"better": "confirmed", "worse": "refuted", "not told apart": "undecided"}


@dataclass(frozen=True)
class Queries:
    """By network the accuracy of its queries in the teacher's database, and what they are sampled
    with: the class of each query, without labels the query itself.
    """

    values: Mapping[str, Float[np.ndarray, "seed query"]]
    units: Int[np.ndarray, " query"]


@dataclass(frozen=True)
class Resampling:
    """How intervals and tests are drawn; the fields are those of params.yaml."""

    seed: int
    level: float


def read_queries(paths: DatasetPaths, rows: Sequence[Row]) -> Queries:
    """What the evaluations of the students of a data set left of every query."""
    column = by.column if (by := accuracy_of(rows[0])) is OVERLAP else "average_precision"
    values, units = {}, np.empty(0, np.int64)
    for row in rows:
        if row["role"] == "asymmetric":
            table = pd.read_parquet(paths.per_query(row["network"]))
            table = table[table["role"] == "asymmetric"]
            seeds = [own for _, own in table.groupby("seed", sort=False)]
            values[row["network"]] = np.stack([own[column].to_numpy() for own in seeds])
            units = np.unique(seeds[0]["unit"], return_inverse=True)[1]
    return Queries(values, units)


def read_trials(paths: DatasetPaths, rows: Sequence[Row]) -> dict[str, list[float]]:
    """By student the best validation score after each number of trials, where there were any."""
    found = {}
    for row in rows:
        if row["role"] == "asymmetric":
            trials = read_json(paths.report_part(row["network"]))["trials"]
            if scores := [-1.0 if score is None else score for score in trials]:
                found[row["network"]] = np.maximum.accumulate(scores).tolist()
    return found


def tournaments(
    rows: Sequence[Row],
    queries: Queries,
    trials: Mapping[str, Sequence[float]],
    drawn: Resampling,
) -> list[dict[str, Any]]:
    """For each query size and backbone that several students have: its `title`, the `answer` in two
    sentences, the `entrants`, best first, and `curves` of their trials, None without any.

    An entrant is its row with `rival`, the best of the others, `gain` over it with `gain_low` and
    `gain_high`, `p`, adjusted after Holm, None where there are too few classes, how it `stands` to
    the rival, and its `least` and `most` accurate seed. The gains are paired: the same queries,
    the same seeds.
    """
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["role"] == "asymmetric":
            groups[row["query_px"], row["backbone"]].append(row)
    found = []
    for (query_px, backbone), group in groups.items():
        if len(group) < 2:
            continue
        values = {row["network"]: queries.values[row["network"]] for row in group}
        duels = compare_with_best(
            values, queries.units, seed=drawn.seed, samples=SAMPLES, level=drawn.level
        )
        by = accuracy_of(group[0])
        entrants = []
        for row in sorted(group, key=lambda row: -row[by.column]):
            duel, seeds = duels[row["network"]], np.nanmean(values[row["network"]], axis=1)
            entrants.append(
                {
                    **row,
                    "rival": duel.rival,
                    "gain": duel.gain.mean,
                    "gain_low": duel.gain.low,
                    "gain_high": duel.gain.high,
                    "p": duel.p_adjusted,
                    "stands": duel.stands(drawn.level),
                    "least": float(seeds.min()),
                    "most": float(seeds.max()),
                }
            )
        own = {
            name: trials[name] for name in (one["network"] for one in entrants) if name in trials
        }
        found.append(
            {
                "title": f"{query_px} px, {backbone}",
                "seeds": len(next(iter(values.values()))),
                "entrants": entrants,
                "answer": answer(entrants, by),
                "curves": draw_curves(own) if own else None,
            }
        )
    return found


def answer(entrants: Sequence[Row], by: Accuracy) -> str:
    """Which entrant is the best, and which others are told apart from it, in two sentences.

    Nothing is called better or worse but where its corrected test says so; the best beats every
    other where each other one is worse.
    """
    best, second, *_ = entrants
    if best["p"] is None:
        return (
            f"Nothing here can be called better or worse: that takes {LEAST_CLASSES} test "
            f"{by.units}. On average {best['network']} is first, with "
            f"{100 * best[by.column]:.1f} % {by.name}."
        )
    points = (
        f"{100 * best['gain']:+.1f} points of {by.name}{between(best, 'gain', sign='+')} over "
        f"{second['network']}, adjusted p {p_value(best['p'])}"
    )
    if all(one["stands"] == "worse" for one in entrants[1:]):
        first = f"{best['network']} beats every other: {points}."
    else:
        first = f"No entrant beats all others: {best['network']} has the highest mean, {points}."
    others = {
        stands: [one["network"] for one in entrants[1:] if one["stands"] == stands]
        for stands in ("not told apart", "worse")
    }
    clauses = {"not told apart": f"Not told apart from {best['network']}: ", "worse": "worse: "}
    told = "; ".join(clauses[how] + ", ".join(some) for how, some in others.items() if some)
    return f"{first} {told[0].upper()}{told[1:]}."


def equal_costs(rows: Sequence[Row], queries: Queries, drawn: Resampling) -> dict[str, Any] | None:
    """Pairs of students of one cost of a query, the teacher's backbone at a lower resolution and a
    lighter one at the teacher's: whether resolution loses less; None where there is no such pair.

    Of each lighter network the `pairs` have what of the teacher's backbone is nearest in GMACs, if
    it is within `SAME_COST`, all of them where several are as near: both rows, the paired `gain` of
    resolution over architecture with its ends, `p` after Holm over the pairs, and the `word`:
    confirmed, refuted or undecided.
    """
    by = accuracy_of(rows[0])
    teacher = next(row for row in rows if row["role"] == "teacher")
    own, full_px = teacher["backbone"], teacher["query_px"]
    students = [row for row in rows if row["role"] == "asymmetric" and row["gmacs"] is not None]
    smaller = [row for row in students if row["backbone"] == own and row["query_px"] < full_px]
    matched = []
    for lighter in students:
        if lighter["backbone"] == own or lighter["query_px"] != full_px or not smaller:
            continue
        apart = [abs(row["gmacs"] / lighter["gmacs"] - 1) for row in smaller]
        if (least := min(apart)) <= SAME_COST:
            nearest = [row for row, one in zip(smaller, apart, strict=True) if one == least]
            matched += [(row, lighter) for row in nearest]
    if not matched:
        return None
    tests = [
        paired_test(
            queries.values[resolution["network"]],
            queries.values[architecture["network"]],
            queries.units,
            seed=drawn.seed,
            samples=SAMPLES,
            level=drawn.level,
        )
        for resolution, architecture in matched
    ]
    known = [p for _, p in tests if p is not None]
    adjusted = holm(known) if len(known) == len(tests) else [None] * len(tests)
    pairs = []
    for (resolution, architecture), (gain, _), p in zip(matched, tests, adjusted, strict=True):
        pairs.append(
            {
                "resolution": resolution,
                "architecture": architecture,
                "gain": gain.mean,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "p": p,
                "word": WORDS[stand(gain.mean, p, drawn.level)],
            }
        )
    return {"pairs": pairs, "answer": cost_answer(pairs, by)}


def cost_answer(pairs: Sequence[Mapping[str, Any]], by: Accuracy) -> str:
    """Whether a lower resolution loses less than a lighter network, in two sentences."""
    counts = {word: [pair for pair in pairs if pair["word"] == word] for word in WORDS.values()}
    told = ", ".join(f"{word} in {len(some)}" for word, some in counts.items() if some)
    first = (
        "That a lower resolution loses less than a lighter network, for the same cost of a query, "
        f"is {told} of {len(pairs)} pair{'s' if len(pairs) > 1 else ''}."
    )
    if all(pair["p"] is None for pair in pairs):
        return f"{first} To decide takes {LEAST_CLASSES} test {by.units}."
    points = ", ".join(
        f"{100 * pair['gain']:+.1f} points{between(dict(pair), 'gain', sign='+')} at "
        f"{macs(pair['architecture']['gmacs'])}MACs"
        for pair in pairs
    )
    return f"{first} Resolution over architecture: {points}."
