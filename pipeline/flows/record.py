"""The end of a study for its record: what MLflow has is held against dvc.lock."""

from pipeline.paths import locked_outputs
from pipeline.tracking.audit import audit_record
from pipeline.tracking.store import TrackingError


def record_lines() -> list[str]:
    """Put the record in order; what a user should know of it. A lost store is told, no error."""
    try:
        return audit_record(locked_outputs()).lines()
    except TrackingError as error:
        return [f"record: {error}"]
