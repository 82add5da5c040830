"""Whether a retrained student becomes the champion of its query resolution."""

from dataclasses import dataclass

from pipeline.study.challenge import Comparison


@dataclass(frozen=True)
class Decision:
    """`result`: first, promoted, refused, or unchanged where there is nothing to decide."""

    result: str
    reason: str

    @property
    def moves_alias(self) -> bool:
        return self.result in ("first", "promoted")


def decide(
    candidate_md5: str | None,
    champion_md5: str | None,
    comparison: Comparison | str | None,
    tolerance_points: float,
) -> Decision:
    """Promote a candidate that is not worse than the tolerance, as far as the queries can tell.

    Not worse means: the lower end of the paired interval of its gain lies above minus the
    tolerance (a test of non-inferiority). An interval that is wider than the tolerance leaves the
    champion in its place, and the reason says so.

    candidate_md5, champion_md5: of the networks' files; None where there is none.
    comparison: both on the same queries and the current index; a text says why the champion cannot
        be searched with in this index at all.
    tolerance_points: points of map (hundredths), 0 or more.
    """
    if tolerance_points < 0:
        raise ValueError(f"tolerance = {tolerance_points}: must be 0 or more points of map")
    if candidate_md5 is None:
        return Decision("refused", "there is no candidate: no student of this size is trained")
    if champion_md5 is None:
        return Decision("first", "there was no champion of this size")
    if candidate_md5 == champion_md5:
        return Decision("unchanged", "the candidate is the champion: the same network")
    if isinstance(comparison, str):
        return Decision("promoted", f"the champion does not fit the current index: {comparison}")
    assert comparison is not None, "two different networks are compared"
    told = _figures(comparison)
    low = 100 * comparison.low
    if low >= -tolerance_points:
        return Decision("promoted", f"{told}: not worse than {tolerance_points:g} points")
    if comparison.mean >= -tolerance_points / 100:
        half = 50 * (comparison.high - comparison.low)
        return Decision(
            "refused",
            f"{told}: it may be worse by up to {-low:.2f} points, and {tolerance_points:g} are "
            f"allowed; {comparison.queries} queries can tell {half:.2f} points apart",
        )
    return Decision("refused", f"{told}: worse by more than {tolerance_points:g} points")


def _figures(comparison: Comparison) -> str:
    return (
        f"map {100 * comparison.candidate_map:.2f} against {100 * comparison.champion_map:.2f}, "
        f"a difference of {100 * comparison.mean:+.2f} points, "
        f"{100 * comparison.level:g} % interval {100 * comparison.low:+.2f} to "
        f"{100 * comparison.high:+.2f}"
    )
