"""The best score so far against the number of trials, as lines with their names at the end.

Here stands where they lie, in units of the drawing; tournament.html.j2 draws them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.figure import percent_ticks, scale

SIZES = {"wide": (760, 320, 190), "narrow": (380, 340, 130)}  # width, height, room for the names
LETTER_PX = 8  # of a name, in bold, also in wide fonts
LABEL_GAP = 8  # between the axes and the names
LABEL_SPACE = 15
LEFT, TOP, BOTTOM = 40, 26, 44


def draw_curves(trials: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The drawing of either size; `trials` as `draw_trials` takes them.

    Names that are longer than their room widen the drawing, which is shown smaller then.
    """
    needed = LABEL_GAP + LETTER_PX * max(map(len, trials))
    return {
        size: draw_trials(trials, width + max(0, needed - names), height, max(names, needed))
        for size, (width, height, names) in SIZES.items()
    }


def draw_trials(
    trials: Mapping[str, Sequence[float]], width: int, height: int, names: int
) -> dict[str, Any]:
    """Lay out the best validation score of each student, in percent, over the number of trials.

    lines: name, path, and where its end and its label stand; labels keep `LABEL_SPACE`.
    """
    most = max(map(len, trials.values()))
    percents = [100 * score for scores in trials.values() for score in scores if score >= 0]
    ticks = percent_ticks(min(percents), max(percents))
    right, bottom = width - names, height - BOTTOM
    x = scale(0.5, most + 0.5, LEFT, right)
    y = scale(ticks[0], ticks[-1], bottom, TOP)
    lines: list[dict[str, Any]] = []
    for name, scores in sorted(trials.items(), key=lambda one: -one[1][-1]):
        points = [(x(n + 1), y(100 * score)) for n, score in enumerate(scores) if score >= 0]
        end = points[-1]
        below = lines[-1]["label"] + LABEL_SPACE if lines else TOP
        lines.append({"name": name, "points": points, "end": end, "label": max(end[1], below)})
    # What would stand below the axis is pushed up again, from the last one on.
    lowest = float(bottom)
    for line in reversed(lines):
        line["label"] = min(line["label"], lowest)
        lowest = line["label"] - LABEL_SPACE
    return {
        "size": (width, height),
        "edges": (LEFT, right, TOP, bottom),
        "x_ticks": [(x(n), str(n)) for n in range(1, most + 1)],
        "y_ticks": [(y(tick), f"{tick:g}") for tick in ticks],
        "lines": lines,
    }
