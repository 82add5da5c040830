"""How long trainings took, out of the record: no result, as another machine takes another time."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import known_md5, read_json, write_json
from pipeline.paths import DatasetPaths
from pipeline.tracking.store import TrackingError, has_store, open_store, tracking_errors

FILE = "training_seconds.json"  # in results/DATASET: no output of any stage


def with_training_seconds(
    paths: DatasetPaths, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows with `training_s`: from the start of the run of their network's training to its last
    epoch, a pause of an interrupted one included; None where the record has none, or cannot be
    reached, which is told. Those that were asked for before are kept in results/DATASET.
    """
    rows = list(rows)
    networks = [_trained_network(paths, row) for row in rows]
    md5s = [known_md5(file) if file and file.exists() else "" for file in networks]
    kept = paths.results / FILE
    known: dict[str, float] = read_json(kept) if kept.exists() else {}
    try:
        if unknown := set(md5s) - known.keys() - {""}:
            known |= _seconds(unknown)
            write_json(kept, {md5: known[md5] for md5 in md5s if md5 in known})
    except TrackingError as error:
        sys.stderr.write(f"times of trainings: {error}\n")
    return [{**row, "training_s": known.get(md5)} for row, md5 in zip(rows, md5s, strict=True)]


@tracking_errors()
def _seconds(md5s: Iterable[str]) -> dict[str, float]:
    """Those of the finished runs that led to the networks."""
    if not has_store():
        return {}
    store, found = open_store(), {}
    for md5 in md5s:
        runs = store.runs(f"tags.output_md5 = '{md5}' and attributes.status = 'FINISHED'")
        for run in runs[:1]:
            history = store.client.get_metric_history(run.info.run_id, "epoch")
            if at_ms := [one.timestamp for one in history]:
                # The end of the run moves where a finished training runs again; its epochs stay. A
                # run that was sent later, after a lost contact, starts after its first epoch.
                found[md5] = (max(at_ms) - min(run.info.start_time, *at_ms)) / 1000
    return found


def _trained_network(paths: DatasetPaths, row: Mapping[str, Any]) -> Path | None:
    """The network that was trained for a row; None for rows that need no training."""
    if row.get("train_gmacs") is None:  # of a teacher that was taken as it is
        return None
    match row["role"]:
        case "teacher":
            return paths.teacher
        case "asymmetric" | "symmetric":
            return paths.student(row["network"])
        case "baseline":
            return paths.baseline(row["network"])
    return None
