"""What says how accurate a row is: one column, whoever compares rows by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """A column of the rows of a study, its name in tables, and what its intervals sample.

    Beside it stand COLUMN_low and COLUMN_high, COLUMN_over_ROLE and COLUMN_drop with theirs.
    `validation` is the metric of an epoch that goes with it; the tables of epochs that DVC plots
    have whichever it is in the column `VALIDATION`, as one graph draws both.
    """

    column: str
    name: str
    units: str
    validation: str


VALIDATION = "validation"
MAP = Accuracy("map", "mAP", "classes", "validation_map")
# The share of the teacher's ten nearest images that a search finds.
OVERLAP = Accuracy("overlap_at_10", "overlap@10", "images", "validation_overlap")
SCORES = (MAP.validation, OVERLAP.validation)  # of an epoch, of which a training has one


def accuracy_of(row: Mapping[str, Any]) -> Accuracy:
    """By what a row, and all of its data set, is compared: map, or without labels the overlap."""
    return OVERLAP if row.get(MAP.column, 0.0) is None else MAP
