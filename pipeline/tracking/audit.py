"""The record held against dvc.lock: every result that stands there has its run, or is named."""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.files import write_text
from pipeline.paths import STUDY, WORK, locked_outputs, tradeoff_tables
from pipeline.tracking.pages import LEFT_OUT, NOTE, NOTE_LENGTH, NOTE_TAG, results_address
from pipeline.tracking.record import RECORDS, waiting_records
from pipeline.tracking.store import (
    Store,
    TrackingError,
    database_mark,
    open_store,
    tracking_errors,
    tracking_uri,
)
from pipeline.tracking.sync import sync_waiting

CHECKED = STUDY / WORK / "tracking.checked"  # for which dvc.lock and database all was well
# The outputs by which runs are known: a network, the figures of a cell, what a search found.
RECORDED = re.compile(r"models/.+\.safetensors|results/[^/]+/(cells|tuning)/[^/]+\.json")
EMPTY_BYTES = len("{}\n")  # at most: of no baseline, and of no search


def record_lines() -> list[str]:
    """Put the record in order; what a user should know of it. A lost store is a line, no error.

    Cheap where nothing waits, and dvc.lock and the database are as they were when all was well.
    """
    locked = locked_outputs()
    try:
        if not waiting_records() and CHECKED.exists() and CHECKED.read_text() == _state(locked):
            return []
        lines = audit_record(locked)
        if not lines and (state := _state(locked)):
            write_text(CHECKED, state)
        return lines
    except TrackingError as error:
        return [f"record: {error}"]


def _state(locked: Mapping[str, Mapping[str, str]]) -> str:
    """What the record depends on; empty where a server has it, in which others may delete runs."""
    absent = [path for outputs in locked.values() for path in outputs if not Path(path).exists()]
    return (mark := database_mark()) and f"{tracking_uri()} {mark} {locked} {absent}"


def note_results(store: Store) -> None:
    """Describe the experiment by the verdicts and tables of the present study, while there is room;
    MLflow shows the first lines of it, until it is opened.
    """
    tables = {table.parent.name: table.read_text("utf-8").strip() for table in tradeoff_tables()}
    verdicts = [f"**{name}**: {text.split(chr(10))[-1]}" for name, text in tables.items()]
    more = NOTE.format(address=results_address(".", store.experiment_id))
    note, left_out = "\n\n".join([*verdicts, more]), 0
    for name, text in tables.items():
        longer = f"{note}\n\n## {name}\n{text}"
        if len(longer) <= NOTE_LENGTH - len(LEFT_OUT):
            note = longer
        else:
            left_out += 1
    note = (note + LEFT_OUT.format(count=left_out) if left_out else note)[:NOTE_LENGTH]
    if store.client.get_experiment(store.experiment_id).tags.get(NOTE_TAG) != note:
        store.client.set_experiment_tag(store.experiment_id, NOTE_TAG, note)


@tracking_errors()
def audit_record(locked: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Send what waits, close dead runs, and tag those that led to the results in dvc.lock with
    `current`; what a user should know, nothing if all is well.

    `locked` holds for each stage the MD5 of each output. A result that DVC restored from its cache
    ran no code now: its run is found by what it led to. One that is not here, as in a clone, need
    not have its run here either, and an empty one has none: a baseline where nothing learns from
    labels, a search without trials. Raises TrackingError.
    """
    results = {
        stage: (path, md5)
        for stage, outputs in locked.items()
        for path, md5 in outputs.items()
        if RECORDED.fullmatch(path)
    }
    current, missing = set(), []
    store = open_store()
    completed = sync_waiting(store)
    for stage, (path, md5) in results.items():
        # Teachers and students are evaluated by one program, which knows itself by one name.
        own = stage.replace("evaluate_teacher@", "evaluate@")
        runs = store.runs(f"tags.output_md5 = '{md5}' and tags.dvc_stage = '{own}'")
        latest = {run.data.tags["role"]: run.info.run_id for run in reversed(runs)}
        current |= set(latest.values())  # one a role: an evaluation has several
        if not runs and Path(path).exists() and Path(path).stat().st_size > EMPTY_BYTES:
            missing.append(stage)
    tagged = {run.info.run_id for run in store.runs("tags.current = 'yes'")}
    for run_id in current ^ tagged:
        store.client.set_tag(run_id, "current", "yes" if run_id in current else "no")
    note_results(store)
    found = {
        "completed now, after a killed process or a lost contact": completed,
        "results of which MLflow has no run, as they were made with another record": missing,
        f"records that still wait for MLflow, in {RECORDS}": [
            one.name for one in waiting_records()
        ],
    }
    return [f"record: {what}: {', '.join(names)}" for what, names in found.items() if names]
