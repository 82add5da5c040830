"""Write the results of a data set: the page, the trade-off, the metrics that DVC compares."""

from typing import Any

from pipeline.config.params import load_params
from pipeline.files import write_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.report.report import read_part, render_report, write_tradeoff
from pipeline.report.tradeoff import csv_text
from stages import run_stage

COMPARED = ("map", "recall_at_1", "gmacs")
# A dozen figures for `dvc exp show`; those of the other roles are in accuracy.csv.
HEADLINES = ("teacher", "asymmetric")


def report(name: str) -> None:
    params, paths = load_params(), DatasetPaths(name)
    cells = params.cells_of(name)
    part = read_part(paths, cells)
    # Not `inputs`: where the files lie on this machine is no fact of the study.
    parameters = params.model_dump(mode="json", include=_shown(name, cells), exclude_unset=True)
    write_text(paths.page, render_report([part], parameters, params.evaluation.confidence))
    metrics: dict[str, Any] = {}
    for row in part["rows"]:
        if row["role"] in HEADLINES:
            figures = {column: row[column] for column in COMPARED if column in row}
            metrics[row["network"]] = {row["role"]: figures}
    write_json(paths.metrics, metrics)
    write_text(paths.page.with_name("accuracy.csv"), csv_text(part["rows"]))
    write_tradeoff(paths, part["rows"])


def _shown(name: str, cells: list[str]) -> dict[str, Any]:
    """The parameters that the page shows: those of its data set."""
    return {
        **dict.fromkeys(("seed", "threads", "evaluation"), True),
        "datasets": {name: True},
        "students": dict.fromkeys(cells[1:], True),
    }


if __name__ == "__main__":
    run_stage(report)
