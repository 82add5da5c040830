"""Runs in a tracking store, as trainings leave them."""

from contextlib import AbstractContextManager

from pipeline.tracking.runs import TrackedRun, tracked_run


def training(fingerprint: str, *, keep_best: int = 0) -> AbstractContextManager[TrackedRun]:
    """The open run of a student's training."""
    return tracked_run(
        stage="distill",
        key="a-64",
        role="student",
        fingerprint=fingerprint,
        facts={"dataset": "emblems"},
        settings={},
        keep_best=keep_best,
    )
