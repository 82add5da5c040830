"""Latencies in the record, beside the figures of the evaluations that their rows come from."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.files import known_md5
from pipeline.paths import DatasetPaths
from pipeline.tracking.store import has_store, open_store, tracking_errors


@tracking_errors()
def record_latencies(
    paths: DatasetPaths, rows: Iterable[Mapping[str, Any]], names: Iterable[str]
) -> None:
    """Log the figures `names` of each row in the run of its evaluation, where the record has it.

    A row that was not measured is passed over. Raises TrackingError.
    """
    if not has_store():
        return
    store = open_store()
    for row in rows:
        md5 = known_md5(paths.cell(row["network"]))
        runs = store.runs(f"tags.output_md5 = '{md5}' and tags.role = '{row['role']}'")
        for run in runs[:1]:
            for name in names:
                if row[name] is not None:
                    store.client.log_metric(run.info.run_id, name, row[name])
