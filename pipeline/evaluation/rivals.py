"""Several entrants on the same queries: each against its best rival, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pipeline.evaluation.confidence import Interval, paired_test

Stand = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class Duel:
    """An entrant's paired gain over its best rival, the best of all others by the mean.

    p: two-sided, of no gain; p_adjusted: Holm's, over all pairs of entrants. Both are None where
    the queries are of too few classes. seeds: how many of the entrant's are behind its mean.
    """

    rival: str
    gain: Interval
    p: float | None
    p_adjusted: float | None
    seeds: int

    def stands(self, level: float) -> Stand:
        """How the entrant stands to its rival."""
        return stand(self.gain.mean, self.p_adjusted, level)


def stand(gain: float, p_adjusted: float | None, level: float) -> Stand:
    """What a paired gain says: told apart only where p_adjusted <= 1 - level."""
    if p_adjusted is None or p_adjusted > 1 - level:
        return "not told apart"
    return "better" if gain > 0 else "worse"


def compare_with_best(
    values: Mapping[str, Float[np.ndarray, "seed query"]],
    classes: Int[np.ndarray, " query"],
    *,
    seed: int,
    samples: int = 4000,
    level: float = 0.95,
) -> dict[str, Duel]:
    """Each entrant against the best of all others, by `paired_test`, with Holm's correction.

    Which rival is the best is learned from the same values, so that each pair of entrants could
    have been one of those compared: the family is all pairs. Over the pairs compared alone, of ten
    equal entrants one would be called worse than the best in 15 % of tournaments in place of 5 %.

    values: by entrant, as `paired_test` takes them; all of as many seeds, or of one.
    seed, samples: as for `bootstrap_interval`.
    level: of the intervals of the gains, which are not widened for the number of entrants.

    Raises ValueError on fewer than two entrants, and as `paired_test` does.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} entrants: a comparison takes two")
    means = {name: float(np.nanmean(own)) for name, own in values.items()}
    best, second, *_ = sorted(means, key=means.__getitem__, reverse=True)
    rivals = {name: second if name == best else best for name in values}
    tests = {
        name: paired_test(
            values[name], values[rival], classes, seed=seed, samples=samples, level=level
        )
        for name, rival in rivals.items()
    }
    # Of the two of a pair that meet each other, one: it is the same test.
    known = [name for name, (_, p) in tests.items() if p is not None and name != best]
    p_values = [p for name in known if (p := tests[name][1]) is not None]
    pairs = len(values) * (len(values) - 1) // 2
    adjusted: dict[str, float] = dict(zip(known, holm(p_values, pairs), strict=True))
    if second in adjusted:
        adjusted[best] = adjusted[second]
    return {
        name: Duel(rival, *tests[name], adjusted.get(name), len(np.atleast_2d(values[name])))
        for name, rival in rivals.items()
    }


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Holm's adjusted p-values, in the given order: max over j <= i of min(1, (m - j + 1) p_(j)).

    p_(1) <= p_(2) <= ... are the sorted ones. Those at most 1 - level may be believed together:
    that any of them is wrong has a probability of at most that.

    family: number m of tests, those included whose p-values are not given, which count as larger;
        None: those given.

    Raises ValueError where there are fewer tests than p-values.
    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    count = len(p_values) if family is None else family
    if count < len(p_values):
        raise ValueError(f"family = {family}: must be at least the {len(p_values)} p-values")
    order = np.argsort(p_values, kind="stable")
    factors = count - np.arange(len(p_values))
    grown = np.maximum.accumulate(np.minimum(1, factors * np.asarray(p_values)[order]))
    adjusted = np.empty(len(p_values))
    adjusted[order] = grown
    return [float(one) for one in adjusted]
