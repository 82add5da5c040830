"""Write the results of a data set: the page, the trade-off, the metrics that DVC compares."""

from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.files import write_json, write_text
from pipeline.paths import STUDY_PAGE, DatasetPaths
from pipeline.report.report import read_part, render_report, write_tradeoff
from pipeline.report.tradeoff import csv_text
from stages import run_stage

COMPARED = ("map", "recall_at_1", "gmacs")
# A dozen figures for `dvc exp show`; those of the other roles are in accuracy.csv.
HEADLINES = ("teacher", "asymmetric")


def report(name: str) -> None:
    """Beside the outputs of the stage it writes report/index.html, the page of all active data sets
    that have results: no output of a stage, as each data set's stage writes it.
    """
    params, paths = load_params(), DatasetPaths(name)
    part = read_part(paths, params.cells_of(name))
    write_text(paths.page, _page(params, [name]))
    write_text(
        STUDY_PAGE, _page(params, [one for one in params.datasets if _is_ready(params, one)])
    )
    metrics: dict[str, Any] = {}
    for row in part["rows"]:
        if row["role"] in HEADLINES:
            figures = {column: row[column] for column in COMPARED if column in row}
            metrics[row["network"]] = {row["role"]: figures}
    write_json(paths.metrics, metrics)
    write_text(paths.page.with_name("accuracy.csv"), csv_text(part["rows"]))
    write_tradeoff(paths, part["rows"])


def _page(params: Params, names: list[str]) -> str:
    """The page of data sets, with the parameters of theirs."""
    cells = {name: params.cells_of(name) for name in names}
    shown: dict[str, Any] = {
        # Not `inputs`: where the files lie on this machine is no fact of the study.
        **dict.fromkeys(("seed", "threads", "evaluation"), True),
        "datasets": dict.fromkeys(names, True),
        "students": dict.fromkeys((key for own in cells.values() for key in own[1:]), True),
    }
    parameters = params.model_dump(mode="json", include=shown, exclude_unset=True)
    parts = [read_part(DatasetPaths(name), own) for name, own in cells.items()]
    return render_report(parts, parameters, params.evaluation.confidence)


def _is_ready(params: Params, name: str) -> bool:
    paths = DatasetPaths(name)
    return all(paths.report_part(cell).exists() for cell in params.cells_of(name))


if __name__ == "__main__":
    run_stage(report)
