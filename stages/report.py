"""Write the results of the whole study: the page, the trade-off of each data set, the metrics."""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import write_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.report.report import read_part, render_report, write_tradeoff
from pipeline.report.tradeoff import csv_text
from stages import run_stage

FOLDER = Path("report")
SHOWN = {"seed", "threads", "datasets", "students", "evaluation"}


def report(_: str) -> None:
    params = load_params()
    parts = [read_part(DatasetPaths(name), params.cells_of(name)) for name in params.datasets]
    # Not `inputs`: where the files lie on this machine is no fact of the study.
    parameters = params.model_dump(mode="json", include=SHOWN, exclude_unset=True)
    page = render_report(parts, parameters, params.evaluation.confidence)
    write_text(FOLDER / "index.html", page)
    metrics = {
        part["dataset"]: {
            f"{row['network']}.{row['role']}": {"map": row["map"], "gmacs": row["gmacs"]}
            for row in part["rows"]
        }
        for part in parts
    }
    write_json(FOLDER / "metrics.json", metrics)
    write_text(FOLDER / "accuracy.csv", csv_text([row for part in parts for row in part["rows"]]))
    for part in parts:
        write_tradeoff(DatasetPaths(part["dataset"]), part["rows"])


if __name__ == "__main__":
    run_stage(report)
