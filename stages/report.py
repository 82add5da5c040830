"""Write the results of a data set: the page, the trade-off, the metrics that DVC compares."""

from typing import Any

from pipeline.config.params import load_params
from pipeline.evaluation.accuracy import accuracy_of
from pipeline.files import write_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.report.pages import write_page, write_study_page
from pipeline.report.report import write_tradeoff
from pipeline.report.tradeoff import csv_text
from stages import run_stage

# As the record compares rows by, whose code no digest counts: a change here reruns the stage.
COMPARED = ("map", "recall_at_1", "overlap_at_10", "gmacs")
# A dozen figures for `dvc exp show`; those of the other roles are in accuracy.csv.
HEADLINES = ("teacher", "asymmetric")


def report(name: str) -> None:
    """Beside the outputs of the stage it writes report/index.html, the page of the whole study."""
    params, paths = load_params(), DatasetPaths(name)
    part = write_page(params, name)
    write_study_page(params, {name: part})
    metrics: dict[str, Any] = {}
    for row in part["rows"]:
        if row["role"] in HEADLINES:
            figures = {c: row[c] for c in COMPARED if row.get(c) is not None}
            metrics[row["network"]] = {row["role"]: figures}
    write_json(paths.metrics, metrics)
    plotted = [{**row, "accuracy": row[accuracy_of(row).column]} for row in part["rows"]]
    write_text(paths.page.with_name("accuracy.csv"), csv_text(plotted))
    write_tradeoff(paths, part["rows"])


if __name__ == "__main__":
    run_stage(report)
