"""Write the results of a data set: the page, the trade-off, the metrics that DVC compares."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.evaluation.accuracy import accuracy_of
from pipeline.files import write_json, write_text
from pipeline.models.licences import data_licence
from pipeline.paths import STUDY_PAGE, DatasetPaths
from pipeline.report.report import read_part, render_report, write_tradeoff
from pipeline.report.tournament import (
    Resampling,
    equal_costs,
    read_queries,
    read_trials,
    tournaments,
)
from pipeline.report.tradeoff import csv_text
from stages import run_stage

COMPARED = ("map", "recall_at_1", "overlap_at_10", "gmacs")
# A dozen figures for `dvc exp show`; those of the other roles are in accuracy.csv.
HEADLINES = ("teacher", "asymmetric")


def report(name: str) -> None:
    """Beside the outputs of the stage it writes report/index.html, the page of all active data sets
    that have results: no output of a stage, as each data set's stage writes it.
    """
    params, paths = load_params(), DatasetPaths(name)
    ready = [one for one in params.datasets if one == name or _is_ready(params, one)]
    parts = {one: _part(params, one) for one in ready}
    for one, its in parts.items():
        its["pack"]["licence"] = data_licence(params, one, its["pack"].get("licence"))
    part, page = parts[name], _page(params, {name: parts[name]})
    write_text(paths.page, page)
    write_text(STUDY_PAGE, page if ready == [name] else _page(params, parts))
    metrics: dict[str, Any] = {}
    for row in part["rows"]:
        if row["role"] in HEADLINES:
            figures = {c: row[c] for c in COMPARED if row.get(c) is not None}
            metrics[row["network"]] = {row["role"]: figures}
    write_json(paths.metrics, metrics)
    plotted = [{**row, "accuracy": row[accuracy_of(row).column]} for row in part["rows"]]
    write_text(paths.page.with_name("accuracy.csv"), csv_text(plotted))
    write_tradeoff(paths, part["rows"])


def _part(params: Params, name: str) -> dict[str, Any]:
    """What the page shows of a data set, and how its students stand to each other."""
    paths = DatasetPaths(name)
    part = read_part(paths, params.cells_of(name))
    rows, drawn = part["rows"], Resampling(params.seeds[0], params.evaluation.confidence)
    queries = read_queries(paths, rows)
    return part | {
        "tournaments": tournaments(rows, queries, read_trials(paths, rows), drawn),
        "equal_costs": equal_costs(rows, queries, drawn),
    }


def _page(params: Params, parts: Mapping[str, Any]) -> str:
    """The page of data sets, of each what `read_part` gives, with the parameters of theirs."""
    students = chain.from_iterable(params.cells_of(name)[1:] for name in parts)
    shown: dict[str, Any] = {
        # Not `inputs`: where the files lie on this machine is no fact of the study.
        **dict.fromkeys(("seeds", "threads", "evaluation"), True),
        "datasets": dict.fromkeys(parts, True),
        "students": dict.fromkeys(students, True),
    }
    parameters = params.model_dump(mode="json", include=shown, exclude_unset=True)
    return render_report(list(parts.values()), parameters, params.evaluation.confidence)


def _is_ready(params: Params, name: str) -> bool:
    paths = DatasetPaths(name)
    return all(paths.report_part(cell).exists() for cell in params.cells_of(name))


if __name__ == "__main__":
    run_stage(report)
