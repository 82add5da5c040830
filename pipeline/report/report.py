"""The report of a study: one HTML page that needs no network and no other file.

Equal results give equal bytes, for the page is an output that DVC hashes. It therefore holds no
time, no latency and no commit (a commit that changes no result would change it); the commit of each
run stands in the tracking store, and `results_mark` tells whether two pages show the same results.
The versions are those of the environment that wrote the page.
"""

import base64
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import count, groupby
from typing import Any

from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.evaluation.accuracy import accuracy_of
from pipeline.evaluation.latency import with_latencies, without_latencies
from pipeline.files import read_json, write_text
from pipeline.paths import DatasetPaths
from pipeline.report import tradeoff
from pipeline.report.figure import (
    COSTS,
    FOLDER,
    WIDE,
    costs_of,
    draw_panel,
    draw_tradeoff,
    environment,
)
from pipeline.report.tradeoff import Row
from pipeline.report.verdict import accuracy_kept, verdict

HALF = (560, 380)  # of the figure where several data sets stand side by side
NARROW = (380, 360)  # of the figure on a phone, in the units of its drawing
EXAMPLE_BYTES = 4_000_000  # of all examples together: the page then stays under 5 MB
EXAMPLES_EACH = (3, 2, 1)  # of each reason, while there is room
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "pillow", "faiss-cpu")
REASONS = {
    "above_naive": "Where the student gains most over the teacher fed the same small image",
    "below_naive": "Where the teacher fed the same small image does better than the student",
    "below_teacher": "Where the student loses most to the teacher at full size",
    "at_random": "Drawn at random",
}


def read_part(paths: DatasetPaths, cells: Sequence[str]) -> dict[str, Any]:
    """What the page shows of one data set, from what its evaluations left for it.

    `rows` are those of the trade-off, `pack` the facts of the data set; `examples` hold for each
    student its queries, which refer to `images`.
    """
    read = {cell: read_json(paths.report_part(cell)) for cell in cells}
    rows = tradeoff.table_rows(part["rows"] for part in read.values())
    students = [(row["network"], row["query_px"]) for row in rows if row["role"] == "asymmetric"]
    images: dict[str, str] = {}
    for part in read.values():
        images |= part.get("images", {})
    return {
        "dataset": paths.dataset,
        "pack": read["teacher"]["pack"],
        "rows": rows,
        "examples": [
            {"student": name, "query_px": query_px, "queries": read[name]["queries"]}
            for name, query_px in students
        ],
        "images": images,
    }


def write_tradeoff(paths: DatasetPaths, rows: Sequence[Row]) -> None:
    """Write results/DATASET/tradeoff.csv, .md and .svg, and tradeoff_COST.svg for other `COSTS`
    that are known; one of a cost that is known no more is deleted.

    They are no outputs of a stage: the table holds the latencies, which no stage measures.
    """
    subset = " (subset)" if tradeoff.is_subset(rows) else ""
    title = f"{paths.dataset}{subset}: accuracy and cost of a query"
    timed = with_latencies(paths, rows)
    write_text(paths.results / "tradeoff.csv", tradeoff.csv_text(timed))
    words = f"{tradeoff.markdown_table(rows)}\n{verdict(rows)}\n"
    write_text(paths.results / "tradeoff.md", words)
    write_text(paths.results / "tradeoff.svg", draw_tradeoff(rows, title))
    for cost in COSTS.keys() - {"gmacs"}:
        file = paths.results / f"tradeoff_{cost}.svg"
        if cost in costs_of(timed):
            title = f"{paths.dataset}{subset}: accuracy and {COSTS[cost]}"
            write_text(file, draw_tradeoff(timed, title, cost))
        else:
            file.unlink(missing_ok=True)


def render_report(
    parts: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], confidence: float
) -> str:
    """The page, as HTML text.

    parts: one a data set, as `read_part` makes them. parameters: the values of the study that
    the page shows. confidence: level of the intervals, a fraction of 1.
    """
    numbers = count()  # by which the page refers to rows
    numbered = []
    for part in parts:
        rows = [{"headroom_closed": None} | row | {"number": next(numbers)} for row in part["rows"]]
        students = [row for row in rows if row["role"] == "asymmetric"]
        by = accuracy_of(rows[0])
        best = max(students, key=lambda row: (row[by.column], -row["gmacs"]), default=None)
        teacher = next(row for row in rows if row["role"] == "teacher")
        said = {"teacher": teacher, "best": best, "verdict": verdict(part["rows"]), "accuracy": by}
        said["threshold"] = tradeoff.threshold_note(rows)
        said["kept"] = accuracy_kept(rows, best)
        numbered.append({**part, "rows": rows, **said})
    rows = [row for part in numbered for row in part["rows"]]
    shown, left_out = fit_examples(numbered, EXAMPLE_BYTES)
    sizes = {"wide": WIDE if len(parts) == 1 else HALF, "narrow": NARROW}
    panels, of_training = (
        {
            part["dataset"]: {
                name: draw_panel(part["rows"], *size, cost) for name, size in sizes.items()
            }
            for part in numbered
            if cost == "gmacs" or cost in costs_of(part["rows"])
        }
        for cost in ("gmacs", "train_gmacs")
    )
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    # Times are no results: the mark is that of the page without them.
    results = json.dumps(
        [list(map(without_latencies, part["rows"])) for part in parts], sort_keys=True
    )
    versions = {name: version(name) for name in ("large-to-small", *PACKAGES)}
    template = environment().get_template("report.html.j2")
    return template.render(
        parts=shown,
        left_out=left_out,
        panels=panels,
        panels_of_training=of_training,
        others=any(not mark["own"] for p in panels.values() for mark in p["wide"]["marks"]),
        rows=rows,
        roles=tradeoff.roles_of(rows),
        reasons=REASONS,
        without_intervals=[
            f"{part['dataset']} has {note}"
            for part in parts
            if (note := tradeoff.interval_note(part["rows"]))
        ],
        subset_note=tradeoff.SUBSET_NOTE,
        parameters=_yaml(parameters),
        versions={"Python": platform.python_version()} | versions,
        results_mark=hashlib.sha256(results.encode()).hexdigest()[:16],
        confidence=confidence,
        script=Markup(script),  # noqa: S704  (our own file)
        # What the page's policy allows to run: this script and no other.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def fit_examples(
    parts: Sequence[Mapping[str, Any]], most_bytes: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The parts with as many queries as there is room for, and the students left out.

    Each reason keeps its first queries: as many for all students alike; where one each is too many,
    the last students of each data set have no examples.
    """
    most = max(len(part["examples"]) for part in parts)
    ways = [(each, most) for each in EXAMPLES_EACH]
    for each, students in ways + [(1, fewer) for fewer in reversed(range(most))]:
        fitted = [_with_examples(part, each, students) for part in parts]
        if len(json.dumps([[part["examples"], part["images"]] for part in fitted])) <= most_bytes:
            break
    return fitted, [one["student"] for part in parts for one in part["examples"][students:]]


def _with_examples(part: Mapping[str, Any], each: int, students: int) -> dict[str, Any]:
    examples = []
    for one in part["examples"][:students]:
        groups = groupby(one["queries"], key=lambda query: query["reason"])
        queries = [query for _, group in groups for query in list(group)[:each]]
        examples.append(one | {"queries": queries})
    shown = {str(row) for one in examples for query in one["queries"] for row in query["shown"]}
    images = {row: picture for row, picture in part["images"].items() if row in shown}
    return {**part, "examples": examples, "images": images}


def _yaml(values: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 100
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()
