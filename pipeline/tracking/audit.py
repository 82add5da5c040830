"""The record held against dvc.lock: every result that stands there has its run, or is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.tracking.delivery import deliver_waiting
from pipeline.tracking.outbox import waiting_records
from pipeline.tracking.store import (
    TrackingError,
    close_dead_runs,
    contact_errors,
    open_store,
)

CURRENT = "current"  # tag: whether the run led to what the workspace holds now
RECORDED = (("models", ".safetensors"), ("results", ".json"))


@dataclass(frozen=True)
class Audit:
    """What was found and put right. `missing` are stages whose result no run accounts for."""

    linked: int
    delivered: list[str]
    closed: list[str]
    missing: list[str]
    waiting: list[str]

    def lines(self) -> list[str]:
        """What a user should know; nothing, if all is well."""
        told = {
            "sent to MLflow now, after contact had been lost": self.delivered,
            "runs whose process was killed, now marked so": self.closed,
            "results of which MLflow has no run, as they were made with another record": (
                self.missing
            ),
            "records that still wait for MLflow, in .work/outbox": self.waiting,
        }
        return [f"record: {what}: {', '.join(names)}" for what, names in told.items() if names]


def audit_record(locked: Mapping[str, Mapping[str, str]]) -> Audit:
    """Send what waits, close dead runs, and tag the runs behind the results in dvc.lock.

    `locked` holds for each stage the MD5 of each output. A result that DVC restored from its cache
    ran no code now: its run is found by what it led to. Raises TrackingError.
    """
    store = open_store()
    try:
        delivered = deliver_waiting(store)
        closed = close_dead_runs(store)
        current, missing = set(), []
        for stage, md5 in recorded_outputs(locked).items():
            runs = store.runs(f"tags.output_md5 = '{md5}' and tags.dvc_stage = '{_stage(stage)}'")
            latest: dict[str, tuple[int, str]] = {}  # one a role: evaluations have several
            for run in runs:
                found = (run.info.start_time, run.info.run_id)
                role = run.data.tags["role"]
                latest[role] = max(found, latest.get(role, found))
            current |= {run_id for _, run_id in latest.values()}
            if not runs:
                missing.append(stage)
        tagged = {run.info.run_id for run in store.runs(f"tags.{CURRENT} = 'yes'")}
        for run_id in tagged - current:
            store.client.set_tag(run_id, CURRENT, "no")
        for run_id in current - tagged:
            store.client.set_tag(run_id, CURRENT, "yes")
    except contact_errors() as error:
        raise TrackingError(f"the record could not be checked: {error}") from error
    return Audit(
        linked=len(current),
        delivered=delivered,
        closed=closed,
        missing=missing,
        waiting=[record.name for record in waiting_records()],
    )


def recorded_outputs(locked: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """For each stage that tracks a run, the MD5 of the output by which that run is known."""
    return {
        stage: md5
        for stage, outputs in locked.items()
        for path, md5 in outputs.items()
        if _is_recorded(PurePosixPath(path))
    }


def _is_recorded(path: PurePosixPath) -> bool:
    is_cell = path.parts[0] != "results" or path.parent.name == "cells"
    return (path.parts[0], path.suffix) in RECORDED and is_cell


def _stage(name: str) -> str:
    """Teachers and students are evaluated by one program, which knows itself by one name."""
    return name.replace("evaluate_teacher@", "evaluate@")
