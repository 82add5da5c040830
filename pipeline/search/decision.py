"""Whether a retrained student becomes the champion of its query resolution."""

from dataclasses import dataclass

from pipeline.evaluation.compare import Comparison, Incompatible, Unfit
from pipeline.evaluation.confidence import LEAST_CLASSES


@dataclass(frozen=True)
class Decision:
    """`result`: first, promoted, refused, or unchanged where there is nothing to decide."""

    result: str
    reason: str

    @property
    def moves_alias(self) -> bool:
        return self.result in ("first", "promoted")


def decide(
    outcome: Comparison | Incompatible | Unfit | None,
    tolerance_points: float,
    *,
    without_interval: bool = False,
) -> Decision:
    """Promote a candidate that is not worse than the tolerance, as far as the classes can tell.

    Not worse means: the lower end of the paired interval of its gain lies above minus the
    tolerance (a test of non-inferiority). An interval that is wider than the tolerance leaves the
    champion in its place, and so do test classes that are too few for one; the reason says so. Only
    a champion of another embedding space gives way without a comparison.

    outcome: of the challenge of a champion by another network; None where there is no champion.
    tolerance_points: points of map, without labels of overlap_at_10 (hundredths), 0 or more.
    without_interval: where there is no interval, the gain itself decides in its place.
    """
    if not tolerance_points >= 0:  # NaN neither
        raise ValueError(f"tolerance = {tolerance_points}: must be 0 or more points of accuracy")
    match outcome:
        case None:
            return Decision("first", "there was no champion of this size")
        case Unfit(reason):
            return Decision("refused", f"the candidate cannot be searched with: {reason}")
        case Incompatible(reason):
            return Decision("promoted", f"the champion does not fit the current index: {reason}")
        case Comparison():
            return _weigh(outcome, tolerance_points, without_interval=without_interval)


def _weigh(comparison: Comparison, tolerance_points: float, *, without_interval: bool) -> Decision:
    gain, units = 100 * comparison.gain, f"{comparison.units} test {comparison.by.units}"
    figures = (
        f"{comparison.by.column} {100 * comparison.candidate:.2f} against "
        f"{100 * comparison.champion:.2f}, a difference of {gain:+.2f} points, "
    )
    if comparison.gain_low is None or comparison.gain_high is None:
        figures += f"no interval: {units}, {LEAST_CLASSES} are needed: "
        if not without_interval:
            option = "`l2s retrain --force --without-interval` lets the difference alone decide"
            return Decision("refused", f"{figures}it may be chance; {option}")
        low = high = gain
    else:
        low, high = 100 * comparison.gain_low, 100 * comparison.gain_high
        figures += f"{100 * comparison.level:g} % interval {low:+.2f} to {high:+.2f}: "
    if low >= -tolerance_points:
        found = "worse, by no more than the" if high < 0 else "not worse than"
        return Decision("promoted", f"{figures}{found} {tolerance_points:g} points")
    if gain >= -tolerance_points:
        figures += (
            f"it may be worse by up to {-low:.2f} points, and {tolerance_points:g} are allowed; "
            f"{units} can tell {(high - low) / 2:.2f} points apart"
        )
        return Decision("refused", figures)
    return Decision("refused", f"{figures}worse by more than {tolerance_points:g} points")
