"""The trade-off table, its Pareto front, its figure, and its rendering on a terminal."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.report.figures import STYLES, draw_tradeoff
from pipeline.report.terminal import tradeoff_table
from pipeline.report.tradeoff import (
    ROLES,
    collect_rows,
    gain_text,
    markdown_table,
    pareto_front,
    percent,
    write_tradeoff,
)


def row(network: str, role: str, query_px: int, accuracy: float, **extra: Any) -> dict[str, Any]:
    return {
        "dataset": "made",
        "network": network,
        "role": role,
        "backbone": extra.pop("backbone", "timm/a"),
        "query_px": query_px,
        "map": accuracy,
        "map_low": accuracy - 0.02,
        "map_high": accuracy + 0.03,
        "map_at_r": accuracy / 2,
        "recall_at_1": accuracy + 0.1,
        "gmacs": extra.pop("gmacs", query_px**2 / 1e6),
        **extra,
    }


GAIN = {"gain_over": "naive", "map_gain": 0.123, "map_gain_low": 0.1, "map_gain_high": 0.149}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetPaths:
    """A teacher, two students of one size and one backbone, and one of a dearer backbone."""
    monkeypatch.chdir(tmp_path)
    made = DatasetPaths("made")
    cells = {
        "teacher": [row("teacher", "teacher", 96, 0.7)],
        "s": [
            row("s", "naive", 32, 0.2),
            row("s", "symmetric", 32, 0.45),
            row("s", "asymmetric", 32, 0.4, **GAIN),
            row("s", "baseline", 32, 0.39),
        ],
        "t": [row("t", "asymmetric", 32, 0.41), row("t", "naive", 32, 0.2)],
        "u": [
            row("u", "asymmetric", 32, 0.43, backbone="timm/b", gmacs=0.5),
            row("u", "naive", 32, 0.21, backbone="timm/b", gmacs=0.5),
        ],
    }
    for cell, rows in cells.items():
        write_json(made.cell(cell), {entry["role"]: entry for entry in rows})
    write_json(made.timings("s"), {"asymmetric": 1.5, "naive": 2.5})
    return made


CELLS = ["teacher", "s", "t", "u"]


def loop_front(cost: list[float], accuracy: list[float]) -> list[bool]:
    front = []
    for own in range(len(cost)):
        beaten = False
        for other in range(len(cost)):
            as_good = cost[other] <= cost[own] and accuracy[other] >= accuracy[own]
            better = cost[other] < cost[own] or accuracy[other] > accuracy[own]
            beaten |= as_good and better
        front.append(not beaten)
    return front


def test_front_by_hand() -> None:
    #         best    beaten by it   cheapest  equal twins
    cost = [5.0, 6.0, 1.0, 3.0, 3.0]
    accuracy = [0.9, 0.9, 0.1, 0.5, 0.5]
    assert pareto_front(cost, accuracy) == [True, False, True, True, True]
    assert pareto_front([2.0, 2.0], [0.1, 0.2]) == [False, True]
    assert pareto_front([1.0], [0.0]) == [True]
    assert pareto_front([], []) == []


def test_front_equals_plain_loops_and_order_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    cases = 0
    for _ in range(200):
        cost = generator.integers(0, 4, 7).astype(float).tolist()
        accuracy = generator.integers(0, 4, 7).astype(float).tolist()
        front = pareto_front(cost, accuracy)
        assert front == loop_front(cost, accuracy)
        order = generator.permutation(7)
        moved = pareto_front([cost[i] for i in order], [accuracy[i] for i in order])
        assert moved == [front[i] for i in order]
        cases += sum(front)
    assert 200 < cases < 1400


def test_front_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pareto_front([1.0, 2.0], [0.5])


def test_rows_are_gathered_dearest_first_without_repeats(paths: DatasetPaths) -> None:
    table = collect_rows(paths, CELLS)
    found = list(zip(table["network"], table["role"], strict=True))
    assert found == [
        ("u", "asymmetric"),
        ("u", "naive"),
        ("teacher", "teacher"),
        ("s", "asymmetric"),
        ("s", "symmetric"),
        ("s", "naive"),
        ("s", "baseline"),
        ("t", "asymmetric"),
    ]
    assert list(table.loc[table["pareto"], "network"]) == ["teacher", "s"]
    assert "latency_ms" not in table
    assert list(table.index) == list(range(8))


def test_the_order_of_the_cells_does_not_matter(paths: DatasetPaths) -> None:
    first = collect_rows(paths, CELLS)
    for order in itertools.islice(itertools.permutations(CELLS), 1, 24, 5):
        other = collect_rows(paths, order)
        # Which of two cells lends the shared naive row hangs on the name, not on the order.
        pd.testing.assert_frame_equal(first, other[first.columns])


def test_latencies_stand_in_the_written_table_where_they_were_measured(
    paths: DatasetPaths,
) -> None:
    table = write_tradeoff(paths, CELLS)
    read = pd.read_csv(paths.results / "tradeoff.csv")
    assert list(read["role"]) == list(table["role"])
    measured = read.set_index(["network", "role"])["latency_ms"]
    assert measured[("s", "asymmetric")] == 1.5
    assert measured[("s", "naive")] == 2.5
    assert measured.drop([("s", "asymmetric"), ("s", "naive")]).isna().all()
    for column in ("dataset", "network", "backbone", "query_px", "role", "map", "gmacs"):
        assert column in read


def test_a_missing_cell_is_an_error(paths: DatasetPaths) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        collect_rows(paths, [*CELLS, "absent"])


def test_markdown_by_hand(paths: DatasetPaths) -> None:
    lines = markdown_table(collect_rows(paths, CELLS)).splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1
    assert lines[5] == (
        "| s | asymmetric | 32 | 40.0 (38.0 to 43.0) | 20.0 | 50.0 "
        "| +12.3 over naive (+10.0 to +14.9) | 0.001024 |  |"
    )
    assert lines[4].endswith("| 0.009216 | x |")


def test_texts_of_absent_values() -> None:
    assert percent({}, "map") == ""
    assert percent({"map": float("nan")}, "map") == ""
    assert percent({"map": 0.12345}, "map") == "12.3"
    assert gain_text({"gain_over": float("nan")}) == ""
    assert gain_text(GAIN) == "+12.3 over naive (+10.0 to +14.9)"
    negative = GAIN | {"map_gain": -0.01, "map_gain_low": -0.02}
    assert gain_text(negative).startswith("-1.0 over naive (-2.0 to ")


def test_the_terminal_shows_every_row(paths: DatasetPaths) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tradeoff_table("made", write_tradeoff(paths, CELLS)))
    shown = console.export_text()
    for part in ("made: accuracy", "40.0", "38.0 to 43.0", "+12.3 over naive", "1.50", "baseline"):
        assert part in shown
    assert shown.count("asymmetric") == 3
    assert shown.count("*") == 3  # with the one that its note begins with


def test_the_figure_shows_every_role_and_repeats_byte_by_byte(paths: DatasetPaths) -> None:
    table = collect_rows(paths, CELLS)
    first, second = paths.results / "a.svg", paths.results / "b.svg"
    draw_tradeoff(first, table, "made: accuracy and cost of a query")
    draw_tradeoff(second, table, "made: accuracy and cost of a query")
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text(encoding="utf-8")
    for part in ("made: accuracy and cost", "96 px", "32 px", "mAP in %", "Pareto front"):
        assert part in text
    for _, _, label in STYLES.values():
        assert label in text
    assert set(STYLES) == set(ROLES)


def test_a_figure_of_a_single_row(paths: DatasetPaths) -> None:
    draw_tradeoff(paths.results / "one.svg", collect_rows(paths, ["teacher"]), "one")
    text = (paths.results / "one.svg").read_text(encoding="utf-8")
    assert STYLES["teacher"][2] in text
    assert STYLES["naive"][2] not in text
