"""The trade-off table, its Pareto front, its figure, and its rendering on a terminal."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.evaluation.latency import (
    COLUMNS,
    latency_note,
    measure_latencies,
    network_of,
    with_latencies,
)
from pipeline.files import read_json, write_json
from pipeline.paths import DatasetPaths
from pipeline.report.report import write_tradeoff
from pipeline.report.terminal import COLOURS, tradeoff_table
from pipeline.report.tradeoff import (
    HEADROOM_NOTE,
    ROLES,
    Row,
    gain_text,
    markdown_table,
    notes,
    pareto_front,
    percent,
    read_rows,
    table_rows,
)
from pipeline.report.verdict import verdict


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
        "map_drop": 0.7 - accuracy,
        "classes": 12,
        "seeds": 1,
        "gmacs": extra.pop("gmacs", query_px**2 / 1e6),
        **extra,
    }


GAIN = {
    "role": "asymmetric",
    "map_over_naive": 0.123,
    "map_over_naive_low": 0.1,
    "map_over_naive_high": 0.149,
}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetPaths:
    """A teacher, two students of one size and one backbone, and one of a dearer backbone."""
    monkeypatch.chdir(tmp_path)
    made = DatasetPaths("made")
    cells = {
        "teacher": [row("teacher", "teacher", 96, 0.7)],
        "s": [
            row("s", "naive", 32, 0.2),
            row("s", "adapter", 32, 0.25),
            row("s", "symmetric", 32, 0.45),
            row("s", "asymmetric", 32, 0.4) | GAIN | {"headroom_closed": 0.38},
            row("s", "baseline", 32, 0.39),
        ],
        "t": [
            row("t", "asymmetric", 32, 0.41),
            row("t", "naive", 32, 0.2),
            row("t", "adapter", 32, 0.25),
        ],
        "u": [
            row("u", "asymmetric", 32, 0.43, backbone="timm/b", gmacs=0.5),
            row("u", "naive", 32, 0.21, backbone="timm/b", gmacs=0.5),
        ],
    }
    for cell, rows in cells.items():
        write_json(made.cell(cell), {entry["role"]: entry for entry in rows})
    return made


def measure(paths: DatasetPaths, rows: Sequence[Row]) -> None:
    """Networks and their latencies, as `l2s latency` leaves them."""
    for file, _ in {network_of(paths, entry) for entry in rows}:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))
    encoder = SimpleNamespace(embed=lambda _: None)
    run = {"device": "cpu", "threads": 1, "load": 0.0}
    measure_latencies(paths, rows, lambda _: encoder, run)


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


def rows_of(paths: DatasetPaths, cells: Sequence[str] = CELLS) -> list[Row]:
    return table_rows(read_json(paths.cell(cell)) for cell in cells)


def test_rows_are_gathered_dearest_first_without_repeats(paths: DatasetPaths) -> None:
    rows = rows_of(paths)
    assert [(row["network"], row["role"]) for row in rows] == [
        ("u", "asymmetric"),
        ("u", "naive"),
        ("teacher", "teacher"),
        ("s", "asymmetric"),
        ("s", "symmetric"),
        ("s", "naive"),
        ("s", "adapter"),
        ("s", "baseline"),
        ("t", "asymmetric"),
    ]
    assert [row["network"] for row in rows if row["pareto"]] == ["teacher", "s"]
    assert not any(column in row for row in rows for column in COLUMNS)
    assert [row["map_over_naive"] for row in rows] == [None] * 3 + [0.123] + [None] * 5


def test_the_order_of_the_cells_does_not_matter(paths: DatasetPaths) -> None:
    first, cases = rows_of(paths), 0
    for order in itertools.islice(itertools.permutations(CELLS), 1, 24, 5):
        # Which of two cells lends the shared naive row hangs on the name, not on the order.
        assert rows_of(paths, order) == first
        cases += 1
    assert cases == 5


def test_latencies_stand_in_the_written_table_where_they_were_measured(
    paths: DatasetPaths,
) -> None:
    rows = rows_of(paths)
    write_tradeoff(paths, rows)
    fresh = pd.read_csv(paths.results / "tradeoff.csv")
    assert fresh[[*COLUMNS]].isna().all(axis=None)  # no study measures them
    measure(paths, rows)
    paths.student("u").write_text("trained again")
    write_tradeoff(paths, rows)
    read = pd.read_csv(paths.results / "tradeoff.csv")
    assert list(read["role"]) == [row["role"] for row in rows]
    own = read.set_index(["network", "role"])[[*COLUMNS]]
    assert list(own.index[own.isna().any(axis=1)]) == [("u", "asymmetric")]
    assert own.loc[("teacher", "teacher"), "latency_ratio"] == 1
    assert (own["latency_p95_ms"].dropna() >= own["latency_ms"].dropna()).all()
    for column in ("dataset", "network", "backbone", "query_px", "role", "map", "gmacs"):
        assert column in read
    assert list(read["map"]) == [row["map"] for row in rows]  # to the last digit
    written = (paths.results / "tradeoff.md").read_text()
    assert written == f"{markdown_table(rows)}\n{verdict(rows)}\n"
    figure = (paths.results / "tradeoff.svg").read_text(encoding="utf-8")
    assert figure.startswith("<svg")


def test_the_figure_of_a_cost_that_is_known_no_more_goes(paths: DatasetPaths) -> None:
    rows = rows_of(paths)
    file = paths.results / "tradeoff_training_s.svg"
    write_tradeoff(paths, [row | {"training_s": 8.0} for row in rows])
    assert file.read_text(encoding="utf-8").startswith("<svg")
    write_tradeoff(paths, rows)
    assert not file.exists()


def test_reading_the_rows_writes_nothing(paths: DatasetPaths) -> None:
    measure(paths, rows_of(paths))
    before = sorted(paths.results.rglob("*"))
    rows = read_rows(paths, CELLS)
    assert all(row["latency_ms"] > 0 for row in rows)
    assert sorted(paths.results.rglob("*")) == before


def test_what_is_not_evaluated_is_named(paths: DatasetPaths) -> None:
    with pytest.raises(ValueError, match="made: not evaluated yet: absent, other; run `l2s study`"):
        read_rows(paths, [*CELLS, "absent", "other"])


def test_markdown_by_hand(paths: DatasetPaths) -> None:
    lines = markdown_table(rows_of(paths)).splitlines()
    assert lines[11:] == ["", HEADROOM_NOTE]
    assert len({line.count("|") for line in lines[:11]}) == 1
    assert lines[1] == "| --- | --- | --: | --: | --: | --: | --- | --: | --: | --- |"
    assert lines[5] == (
        "| s | asymmetric | 32 | 40.0 (38.0 to 43.0) | 20.0 | 50.0 "
        "| +12.3 over naive (+10.0 to +14.9) | 38.0 | 1.02 M |  |"
    )
    assert lines[4].endswith("|  | 9.22 M | * |")


def test_seeds_stand_beside_with_their_range_while_they_are_few(paths: DatasetPaths) -> None:
    one = rows_of(paths)
    assert "seeds" not in markdown_table(one)
    few = [
        row | {"seeds": 3, "map_seed_low": row["map"] - 0.01, "map_seed_high": row["map"] + 0.04}
        if row["role"] != "naive"
        else row
        for row in one
    ]
    text = markdown_table(few)
    assert "| s | asymmetric | 32 | 40.0 (38.0 to 43.0) | 3 (39.0 to 44.0) | 20.0 | 50.0 |" in text
    assert "| naive | 32 | 20.0 (18.0 to 23.0) | 1 | 10.0 | 30.0 |" in text
    assert "intervals draw seeds as well as classes, and under 5 seeds, which say too" in text
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(tradeoff_table("made", with_latencies(paths, few), "no latencies"))
    shown = console.export_text()
    assert "3 (39.0 to 44.0)" in shown
    assert "+12.3 over" in shown
    many = markdown_table([row | {"seeds": 7} for row in one])
    assert "| 40.0 (38.0 to 43.0) | 7 | 20.0 |" in many


def test_without_intervals_the_table_says_why(paths: DatasetPaths) -> None:
    ends = {
        f"{column}_{end}": None for column in ("map", "map_over_naive") for end in ("low", "high")
    }
    rows = [row | ends | {"classes": 9} for row in rows_of(paths)]
    text = markdown_table(rows)
    assert "| s | asymmetric | 32 | 40.0 | 20.0 | 50.0 | +12.3 over naive | 38.0 |" in text
    assert text.endswith("no intervals: 9 test classes say too little, 10 are needed\n")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(tradeoff_table("made", with_latencies(paths, rows), "no latencies"))
    assert "no intervals: 9 test classes" in console.export_text()
    write_tradeoff(paths, rows)
    assert "nan" not in (paths.results / "tradeoff.csv").read_text().lower()
    table = pd.read_csv(paths.results / "tradeoff.csv")
    assert table["map"].notna().all()
    assert table[["map_low", "map_high"]].isna().all(axis=None)


def test_what_a_threshold_passes_stands_below_the_table(paths: DatasetPaths) -> None:
    passed = {"false_matches_passed": 0.0028, "false_matches_passed_calibrated": 0.0108}
    rows = [one | passed if one["network"] == "s" else one for one in rows_of(paths)]
    rows = [one if one["role"] == "asymmetric" else one | dict.fromkeys(passed) for one in rows]
    note = (
        "false matches that pass a threshold which lets 1 % of the teacher's pass: s 0.28 %, "
        "calibrated 1.08 %"
    )
    assert notes(rows)[-1] == note
    assert f"{note}\n" in markdown_table(rows)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tradeoff_table("made", with_latencies(paths, rows), "no latencies"))
    assert note in " ".join(console.export_text().split())
    assert not any("false matches" in one for one in notes(rows_of(paths)))


def test_texts_of_absent_values() -> None:
    assert percent({}, "map") == ""
    assert percent({"map": None}, "map") == ""
    assert percent({"map": 0.12345}, "map") == "12.3"
    assert gain_text({"role": "asymmetric", "map_over_naive": None}) == ""
    assert gain_text(GAIN) == "+12.3 over naive (+10.0 to +14.9)"
    negative = GAIN | {"map_over_naive": -0.01, "map_over_naive_low": -0.02}
    assert gain_text(negative).startswith("-1.0 over naive (-2.0 to ")
    assert gain_text(GAIN | {"map_over_naive_low": None}) == "+12.3 over naive"
    full_size = {"role": "asymmetric", "map_over_baseline": 0.1}
    assert gain_text(full_size) == "+10.0 over baseline"


def shown_table(paths: DatasetPaths) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    rows = read_rows(paths, CELLS)
    console.print(tradeoff_table("made", rows, latency_note(paths, rows)))
    return console.export_text()


def test_ratios_stand_beside_the_milliseconds(paths: DatasetPaths) -> None:
    assert "no latencies of this machine and the present networks" in shown_table(paths)
    measure(paths, rows_of(paths))
    paths.student("u").write_text("trained again")
    shown = shown_table(paths)
    assert shown.count("(1.00)") >= 1  # the teacher's
    assert len(re.findall(r"\d \(\d+\.\d\d\)", shown)) == 8  # of nine rows
    assert "changed since, without: u: measure again: l2s latency" in " ".join(shown.split())


def test_the_terminal_shows_every_row(paths: DatasetPaths) -> None:
    shown = shown_table(paths)
    for part in ("made: accuracy", "40.0", "38.0 to 43.0", "+12.3 over naive", "baseline"):
        assert part in shown
    assert shown.count("asymmetric") == 3
    assert shown.count("*") == 3  # with the one that its note begins with
    assert list(COLOURS) == list(ROLES)
