"""The trade-off between accuracy and the cost of a query: the table of a study."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files import write_text
from pipeline.paths import DatasetPaths

SUBSET_NOTE = "subset: a part of the data set only; not comparable with published figures"
ROLES = ("teacher", "asymmetric", "symmetric", "naive", "baseline")


def collect_rows(paths: DatasetPaths, cells: Sequence[str]) -> pd.DataFrame:
    """The rows of the cells, dearest query first, without any figure that depends on the machine.

    Rows that several cells share (naive at one size with one backbone) are kept once.
    """
    rows = [row for cell in cells for row in _read(paths.cell(cell)).values()]
    table = pd.DataFrame(rows)
    table["role"] = pd.Categorical(table["role"], ROLES, ordered=True)
    table = table.sort_values(["gmacs", "network", "role"], ascending=[False, True, True])
    is_naive = table["role"] == "naive"
    repeated = table.duplicated(["role", "backbone", "query_px"]) & is_naive
    table = table[~repeated].reset_index(drop=True)
    table["pareto"] = pareto_front(table["gmacs"].tolist(), table["map"].tolist())
    return table


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> list[bool]:
    """For each row, whether no other costs at most as much and is at least as accurate.

    Of rows equal in both, all are on the front.
    """
    points = list(zip(cost, accuracy, strict=True))
    return [
        not any(other[0] <= own[0] and other[1] >= own[1] and other != own for other in points)
        for own in points
    ]


def measured_rows(paths: DatasetPaths, cells: Sequence[str]) -> pd.DataFrame:
    """The rows of the cells with the latencies measured on this machine.

    A latency that was not measured here (the evaluation came from a cache) is NaN.
    """
    table = collect_rows(paths, cells)
    timings = {cell: _read(paths.timings(cell)) for cell in cells if paths.timings(cell).exists()}
    table["latency_ms"] = [
        timings.get(network, {}).get(role)
        for network, role in zip(table["network"], table["role"], strict=True)
    ]
    table["latency_ms"] = table["latency_ms"].astype(float)
    return table


def write_tradeoff(paths: DatasetPaths, cells: Sequence[str]) -> pd.DataFrame:
    """Write results/DATASET/tradeoff.csv: the rows with the latencies measured on this machine."""
    table = measured_rows(paths, cells)
    write_text(paths.results / "tradeoff.csv", table.to_csv(index=False))
    return table


def markdown_table(table: pd.DataFrame) -> str:
    """The columns that people compare, in percent and GMACs, as a Markdown table."""
    columns = {
        "network": "---",
        "role": "---",
        "query px": "--:",
        "mAP %": "--:",
        "mAP@R %": "--:",
        "R@1 %": "--:",
        "mAP gain": "---",
        "GMACs": "--:",
        "front": ":-:",
    }
    cells = [list(columns), list(columns.values()), *map(_markdown_cells, table.to_dict("records"))]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in cells)
    return f"{lines}\n{SUBSET_NOTE}\n" if is_subset(table) else lines


def is_subset(table: pd.DataFrame) -> bool:
    """Whether the figures are of a part of a published data set."""
    return "subset" in table and bool(table["subset"].any())


def _markdown_cells(row: Mapping[Any, Any]) -> list[str]:
    return [
        row["network"],
        row["role"],
        str(row["query_px"]),
        f"{percent(row, 'map')} ({percent(row, 'map_low')} to {percent(row, 'map_high')})",
        percent(row, "map_at_r"),
        percent(row, "recall_at_1"),
        gain_text(row),
        f"{row['gmacs']:.4g}",
        "x" if row["pareto"] else "",
    ]


def gain_text(row: Mapping[Any, Any]) -> str:
    if not isinstance(row.get("gain_over"), str):
        return ""
    return (
        f"{100 * row['map_gain']:+.1f} over {row['gain_over']} "
        f"({100 * row['map_gain_low']:+.1f} to {100 * row['map_gain_high']:+.1f})"
    )


def percent(row: Mapping[Any, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None or pd.isna(value) else f"{100 * value:.1f}"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
