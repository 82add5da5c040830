"""Write the report of the whole study: one page with figure, tables and galleries."""

import json
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import write_text
from pipeline.paths import DatasetPaths
from pipeline.report.report import render_report
from stages import run_stage

SHOWN = {"seed", "threads", "datasets", "students", "evaluation"}


def report(_: str) -> None:
    params = load_params()
    parts = [
        json.loads(DatasetPaths(name).report_part.read_text(encoding="utf-8"))
        for name in params.datasets
    ]
    # Not `inputs`: where the files lie on this machine is no fact of the study.
    parameters = params.model_dump(mode="json", include=SHOWN, exclude_unset=True)
    page = render_report(parts, parameters, params.evaluation.confidence)
    write_text(Path("report/index.html"), page)


if __name__ == "__main__":
    run_stage(report)
