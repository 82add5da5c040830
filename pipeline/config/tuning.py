"""How params.yaml asks for a search of the values that students learn with."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, Strict

from pipeline.config.losses import Rate
from pipeline.config.sources import Model

Ends = Annotated[tuple[Rate, Rate], Strict(False)]


class Tuning(Model):
    """Trials of each student and of each labelled baseline, in one space of factors of a recipe's
    own values; none leaves these as they are.
    """

    trials: Annotated[int, Field(ge=0)]
    epochs_share: Annotated[float, Field(gt=0, le=1)]
    learning_rate_factor: Ends
    loss_factor: Ends


def tuning_faults(
    tuning: Tuning, shares: Mapping[str, float], losses: Mapping[str, str]
) -> list[str]:
    """A space whose ends are turned round, or that is one point for several trials, and trials
    that no class is left to score.

    shares: the validation share of each data set. losses: the kind of each student's loss.
    """
    trials = tuning.trials
    faults = [
        f"tuning.{key} = [{low:g}, {high:g}]: must be smallest <= largest"
        for key in ("learning_rate_factor", "loss_factor")
        for low, high in [getattr(tuning, key)]
        if low > high
    ]
    (low, high), loss_ends = tuning.learning_rate_factor, set(tuning.loss_factor)
    same = [name for name, kind in losses.items() if len(loss_ends) == 1 or kind == "absolute"]
    if trials > 1 and low == high and same:
        faults.append(
            f"tuning.learning_rate_factor = [{low:g}, {high:g}]: must have two ends where "
            f"tuning.trials = {trials}, since else all trials of {', '.join(same)} would be one "
            "training"
        )
    return faults + [
        f"datasets.{name}.validation_share = 0: must be above 0 where tuning.trials = {trials}, "
        "since trials are scored on what validates"
        for name, share in shares.items()
        if trials and not share
    ]
