"""The pages of a study: one a data set, which DVC hashes, and one of all of them."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from pipeline.config.params import Params
from pipeline.evaluation.latency import with_latencies
from pipeline.files import write_text
from pipeline.models.licences import data_licence
from pipeline.paths import STUDY_PAGE, DatasetPaths
from pipeline.report.report import read_part, render_report
from pipeline.report.tournament import (
    Resampling,
    equal_costs,
    read_queries,
    read_trials,
    tournaments,
)


def write_page(params: Params, name: str) -> dict[str, Any]:
    """Write the page of a data set; what it shows, as `read_part` gives it. Equal results give an
    equal page: it holds no times.
    """
    part = _part(params, name)
    write_text(DatasetPaths(name).page, _page(params, {name: part}))
    return part


def write_study_page(params: Params, known: Mapping[str, dict[str, Any]]) -> None:
    """Write report/index.html, the page of all active data sets that have results, with the times
    of queries where `l2s latency` has measured them. It is no output of a stage.

    known: what `write_page` gave for data sets, which is not computed again.
    """
    parts = {}
    for name in params.datasets:
        if all(DatasetPaths(name).report_part(cell).exists() for cell in params.cells_of(name)):
            part = known[name] if name in known else _part(params, name)
            parts[name] = part | {"rows": with_latencies(DatasetPaths(name), part["rows"])}
    if parts:
        write_text(STUDY_PAGE, _page(params, parts))


def _part(params: Params, name: str) -> dict[str, Any]:
    """What the page shows of a data set, and how its students stand to each other."""
    paths = DatasetPaths(name)
    part = read_part(paths, params.cells_of(name))
    rows, drawn = part["rows"], Resampling(params.seeds[0], params.evaluation.confidence)
    queries = read_queries(paths, rows)
    part["pack"]["licence"] = data_licence(params, name, part["pack"].get("licence"))
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
