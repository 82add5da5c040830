"""How long a single query takes: all networks of a table in one run, in turns.

Times of different moments do not compare, for the load of a machine changes. So one file holds one
run of `l2s latency`, and is read only on the machine, and for the networks, that it was made with.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.files import known_md5, read_json, write_json
from pipeline.paths import DatasetPaths
from pipeline.progress import track
from pipeline.teachers.stored_vectors import BACKBONE

WARM_UP, ROUNDS = 5, 100  # queries of each network whose time is not counted, and is
FILE = "latency.json"  # in results/DATASET: no output of any stage
# Of a row: the median, the 95th percentile, and the median over the teacher's at full size, None
# where the teacher has no network.
COLUMNS = ("latency_ms", "latency_p95_ms", "latency_ratio")
REMEDY = "measure again: l2s latency"

Row = Mapping[str, Any]


def this_machine() -> dict[str, Any]:
    """What times must have in common to be compared: processor, cores, version of torch."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    cpu = text.partition("model name\t: ")[2].partition("\n")[0] or os.uname().machine
    return {"cpu": cpu, "cores": os.cpu_count() or 1, "torch": version("torch")}


def busy_note(load: float) -> str:
    """In words that others compute here: a load average of a quarter of the cores, or more."""
    busy = (cores := os.cpu_count() or 1) <= 4 * load
    return f"; busy machine, so too slow (load average {load:.2f}, {cores} cores)" * busy


def network_of(paths: DatasetPaths, row: Row) -> tuple[Path, int]:
    """The file of the network that embeds the queries of a row, and the side of their views."""
    own = paths.baseline if row["role"] == "baseline" else paths.student
    is_teacher = row["role"] in ("teacher", "naive", "adapter")
    return paths.teacher if is_teacher else own(row["network"]), row["query_px"]


def embeds_queries(row: Row) -> bool:
    """Whether a row has a network: a teacher that is nothing but stored vectors has none."""
    return row.get("backbone") != BACKBONE


def interleaved_ms(queries: Sequence[Callable[[], object]]) -> Float[np.ndarray, "round query"]:
    """The time of each query in each round, in which all are made, one after the other."""
    rounds = track(range(WARM_UP + ROUNDS), "single queries", WARM_UP + ROUNDS, "rounds")
    times_s = np.array([[timeit(query, number=1) for query in queries] for _ in rounds])
    return 1000 * times_s[WARM_UP:]


def measure_latencies(
    paths: DatasetPaths, rows: Sequence[Row], opened: Callable[[Path], Any], run: Row
) -> None:
    """Time single queries by every network of the rows; writes results/DATASET/latency.json.

    opened: makes of a network's file an encoder, whose `embed` takes an evaluation view, uint8 [1,
    height, width, 3]: here a black one. run: what else the file is to say of the run: `device`,
    `threads`, and `load`, the load average before it.
    """
    rows = [row for row in rows if embeds_queries(row)]
    teacher_first = sorted(rows, key=lambda row: row["role"] != "teacher")
    networks = dict.fromkeys(network_of(paths, row) for row in teacher_first)
    md5s = {file: known_md5(file) for file, _ in networks}
    views = {px: np.zeros((1, px, px, 3), np.uint8) for _, px in networks}
    # Each its own copy: weights that are used at several sizes would lie in the caches.
    queries = [partial(opened(file).embed, views[px]) for file, px in networks]
    p50_ms, p95_ms = np.percentile(interleaved_ms(queries), (50, 95), axis=0)
    is_timed = any(row["role"] == "teacher" for row in rows)
    ratios = p50_ms / p50_ms[0] if is_timed else np.full(len(p50_ms), None)
    figures = zip(p50_ms.tolist(), p95_ms.tolist(), ratios.tolist(), strict=True)
    measured = []
    for (file, px), own in zip(networks, figures, strict=True):
        facts = {"file": str(file), "md5": md5s[file], "query_px": px}
        measured.append({**facts, "figures": dict(zip(COLUMNS, own, strict=True))})
    when = {"machine": this_machine(), "moment": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    write_json(paths.results / FILE, {**run, **when, "networks": measured})


def read_latencies(paths: DatasetPaths) -> dict[str, Any]:
    """The run, if it was made on this machine and the teacher, if it has a network, is the same;
    else nothing. Of its `networks` those whose files are the same.
    """
    with suppress(OSError, ValueError, LookupError):  # there is no file, or another
        run = read_json(paths.results / FILE)
        present = [one for one in run["networks"] if Path(one["file"]).exists()]
        same = [one for one in present if known_md5(Path(one["file"])) == one["md5"]]
        first = run["networks"][0]
        has_ratios = first["figures"]["latency_ratio"] is not None  # to the first, the teacher
        if run["machine"] == this_machine() and (first in same or not has_ratios):
            return {**run, "networks": same}
    return {}


def with_latencies(paths: DatasetPaths, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with `COLUMNS`, None where `read_latencies` has none of their network."""
    networks = read_latencies(paths).get("networks", [])
    found = {(Path(one["file"]), one["query_px"]): one["figures"] for one in networks}
    return [{**row, **found.get(network_of(paths, row), dict.fromkeys(COLUMNS))} for row in rows]


def without_latencies(row: Row) -> dict[str, Any]:
    """The row without `COLUMNS`."""
    return {column: value for column, value in row.items() if column not in COLUMNS}


def latency_note(paths: DatasetPaths, rows: Sequence[Row]) -> str:
    """How the latencies of the rows were measured, and why they, or those of some, are missing."""
    run = read_latencies(paths)
    if not run:
        return f"no latencies of this machine and the present networks; {REMEDY}"
    without = [row for row in rows if row["latency_ms"] is None and embeds_queries(row)]
    changed = dict.fromkeys(row["network"] for row in without)
    since = f"; changed since, without: {', '.join(changed)}: {REMEDY}" if changed else ""
    how = f"{run['moment']}, {run['device']}, threads {run['threads']}{busy_note(run['load'])}"
    return f"ms: median of a single query, and its ratio to the teacher's; {how}{since}"
