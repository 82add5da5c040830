"""What MLflow is told of an evaluation."""

from pathlib import Path
from typing import Any

from pipeline.devices import computed_with
from pipeline.evaluation.cells import Measured
from pipeline.evaluation.setups import Cell
from pipeline.files import file_md5
from pipeline.paths import DatasetPaths, code_file
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run

# What a row is about; the rest of its figures are measured.
FACTS = ("dataset", "network", "backbone", "query_px", "database_px")


def record_rows(
    cell: Cell, key: str, rows: dict[str, dict[str, Any]], measured: list[Measured]
) -> None:
    """One run a row in the tracking store; the run of each seed's training gets its own figures."""
    params, paths = cell.params, DatasetPaths(cell.dataset)
    used: set[Path] = set()
    trained: dict[str, list[tuple[Path, dict[str, float]]]] = {}
    for seed, one in zip(cell.seeds, measured, strict=True):
        own = params.paths(cell.dataset, seed)
        used |= {own.teacher, own.database}
        networks = {"asymmetric": own.student(key), "baseline": own.baseline(key)}
        for role, file in ({"teacher": own.teacher} | networks).items():
            if role in one.facts:
                used.add(file)
                trained.setdefault(role, []).append((file, one.figures(role)))
    dataset = params.datasets[cell.dataset]
    settings = {
        "seeds": list(cell.seeds),
        "threads": params.threads,
        "recall_at": list(dataset.recall_at),
        "validation_share": dataset.validation_share,
        **params.evaluation.model_dump(),
    }
    mark = fingerprint(settings, [code_file("evaluate"), paths.pack, *used])
    machine = computed_with(cell.device)
    for role, row in rows.items():
        metrics = {
            column: float(value)
            for column, value in row.items()
            if column not in FACTS and type(value) in (int, float)
        }
        with tracked_run(
            stage="evaluate",
            key=key,
            role=role,
            fingerprint=mark,
            facts={fact: row[fact] for fact in FACTS},
            settings=settings,
            needs_store=False,
        ) as run:
            run.set_tags({"output_md5": file_md5(paths.cell(row["network"])), **machine})
            for file, figures in trained.get(role, ()):
                run.log_training(file_md5(file), figures)
            run.log_results(metrics)
