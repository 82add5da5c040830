"""Latencies: all networks in turns, in one file, shown only where machine and networks are same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import latency
from pipeline.evaluation.latency import (
    COLUMNS,
    REMEDY,
    busy_note,
    interleaved_ms,
    latency_note,
    measure_latencies,
    read_latencies,
    this_machine,
    with_latencies,
)
from pipeline.files import file_md5, read_json, write_json
from pipeline.paths import DatasetPaths

RUN = {"device": "cpu", "threads": 1, "load": 0.0}


class FakeEncoder:
    """Notes each query, and takes no time: the clock is another fake."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        self.name = name
        self.calls = calls

    def embed(self, views: np.ndarray) -> None:
        assert (views.shape[0], views.shape[3], views.dtype) == (1, 3, np.uint8)
        self.calls.append((self.name, views.shape[1]))


def row(network: str, role: str, query_px: int) -> dict[str, Any]:
    return {"network": network, "role": role, "query_px": query_px}


ROWS = [  # the student before the teacher, as a dearer student stands in a table
    row("s", "asymmetric", 32),
    row("s", "symmetric", 32),
    row("s", "naive", 32),
    row("s", "adapter", 32),
    row("s", "baseline", 32),
    row("teacher", "teacher", 96),
]
# Rows of one network at one size share its queries.
ROUND = [("teacher", 96), ("students/s", 32), ("teacher", 32), ("baselines/s", 32)]


@pytest.fixture
def calls() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
) -> DatasetPaths:
    """Measured networks of a teacher, a student and its baseline: the n-th query takes n ms."""
    monkeypatch.chdir(tmp_path)
    paths = DatasetPaths("made")
    for file in (paths.teacher, paths.student("s"), paths.baseline("s")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))

    def opened(file: Path) -> FakeEncoder:
        name = file.with_suffix("").relative_to("models/made").as_posix()
        return FakeEncoder(name, calls)

    def time_s(query: Callable[[], object], number: int) -> float:
        assert number == 1
        query()
        return len(calls) / 1000

    monkeypatch.setattr(latency, "timeit", time_s)
    monkeypatch.setattr(latency, "WARM_UP", 2)
    monkeypatch.setattr(latency, "ROUNDS", 5)
    measure_latencies(paths, ROWS, opened, RUN)
    return paths


def test_a_round_holds_one_query_of_each_network(
    measured: DatasetPaths, calls: list[tuple[str, int]]
) -> None:
    assert calls == ROUND * 7
    entries = read_json(measured.results / "latency.json")["networks"]
    assert [Path(one["file"]).stem for one in entries] == ["teacher", "s", "teacher", "s"]
    for one in entries:
        assert one["md5"] == file_md5(Path(one["file"]))


def test_figures_by_hand_without_the_warm_up(measured: DatasetPaths) -> None:
    # The teacher's queries are the 1st, 5th, ... of all: after two rounds 9, 13, 17, 21, 25 ms.
    found = {one["role"]: one for one in with_latencies(measured, ROWS)}
    assert [found["teacher"][column] for column in COLUMNS] == pytest.approx([17, 24.2, 1])
    assert [found["asymmetric"][column] for column in COLUMNS] == pytest.approx([18, 25.2, 18 / 17])
    assert [found["naive"][column] for column in COLUMNS] == pytest.approx([19, 26.2, 19 / 17])
    assert found["baseline"]["latency_ms"] == pytest.approx(20)
    for one, other in (("asymmetric", "symmetric"), ("naive", "adapter")):
        assert found[one]["latency_ms"] == found[other]["latency_ms"]


def test_the_file_says_which_machine_when_and_how(measured: DatasetPaths) -> None:
    run = read_json(measured.results / "latency.json")
    assert {key: run[key] for key in RUN} == RUN
    assert run["machine"] == this_machine()
    assert run["machine"]["cpu"]
    assert run["machine"]["cores"] >= 1
    note = latency_note(measured, with_latencies(measured, ROWS))
    assert run["moment"] in note
    assert "cpu, threads 1" in note
    assert REMEDY not in note


def test_real_times_are_positive_milliseconds() -> None:
    times_ms = interleaved_ms([lambda: sum(range(100)), lambda: sum(range(100_000))])
    assert times_ms.shape == (100, 2)
    assert (times_ms > 0).all()
    assert np.median(times_ms[:, 0]) < np.median(times_ms[:, 1]) < 1000


def test_a_network_that_has_changed_has_no_latency_and_is_named(measured: DatasetPaths) -> None:
    measured.student("s").write_text("trained again")
    rows = with_latencies(measured, ROWS)
    assert [one["role"] for one in rows if one["latency_ms"] is None] == ["asymmetric", "symmetric"]
    assert all(one[column] is None for one in rows[:2] for column in COLUMNS)
    assert latency_note(measured, rows).endswith(f"; changed since, without: s: {REMEDY}")
    measured.student("s").unlink()  # while its training runs
    assert with_latencies(measured, ROWS) == rows


def test_a_new_row_has_no_latency(measured: DatasetPaths) -> None:
    new = row("t", "asymmetric", 24)
    assert with_latencies(measured, [new]) == [new | dict.fromkeys(COLUMNS)]


def test_another_teacher_takes_all_latencies_away(measured: DatasetPaths) -> None:
    measured.teacher.write_text("another")
    assert read_latencies(measured) == {}
    rows = with_latencies(measured, ROWS)
    assert all(one["latency_ms"] is None for one in rows)
    assert latency_note(measured, rows).endswith(REMEDY)


@pytest.mark.parametrize("fact", ["cpu", "cores", "torch"])
def test_latencies_of_another_machine_are_refused(measured: DatasetPaths, fact: str) -> None:
    file = measured.results / "latency.json"
    run = read_json(file)
    write_json(file, run | {"machine": run["machine"] | {fact: "another"}})
    rows = with_latencies(measured, ROWS)
    assert all(one[column] is None for one in rows for column in COLUMNS)
    assert latency_note(measured, rows).startswith("no latencies of this machine")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"networks": []}'])
def test_a_file_that_is_missing_or_damaged_gives_none(
    measured: DatasetPaths, content: str | None
) -> None:
    file = measured.results / "latency.json"
    file.unlink() if content is None else file.write_text(content)
    assert all(one["latency_ms"] is None for one in with_latencies(measured, ROWS))
    assert latency_note(measured, ROWS).endswith(REMEDY)


def test_a_busy_machine_is_told(measured: DatasetPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert busy_note(1.99) == ""
    assert "busy machine" in busy_note(2.0)
    assert "load average 7.25, 8 cores" in busy_note(7.25)
    file = measured.results / "latency.json"
    run = read_json(file)
    write_json(file, run | {"load": 7.25, "machine": this_machine()})
    assert "busy machine" in latency_note(measured, with_latencies(measured, ROWS))


def test_stored_vectors_take_no_time_and_students_have_no_ratio_to_them(
    measured: DatasetPaths, calls: list[tuple[str, int]]
) -> None:
    rows = [ROWS[0], ROWS[-1] | {"backbone": "stored vectors"}]
    calls.clear()
    opened = lambda file: FakeEncoder(file.stem, calls)  # noqa: E731
    measure_latencies(measured, rows, opened, RUN)
    assert set(calls) == {("s", 32)}
    student, teacher = with_latencies(measured, rows)
    assert student["latency_ms"] > 0
    assert student["latency_ratio"] is teacher["latency_ms"] is None
    assert "teacher: measure" not in latency_note(measured, [student, teacher])


def test_without_a_network_of_the_teacher_a_changed_student_takes_no_other_latency_away(
    measured: DatasetPaths, calls: list[tuple[str, int]]
) -> None:
    measured.student("t").write_text("t")
    rows = [row("s", "asymmetric", 32), row("t", "asymmetric", 16)]
    measure_latencies(measured, rows, lambda file: FakeEncoder(file.stem, calls), RUN)
    measured.student("s").write_text("trained again")
    changed, same = with_latencies(measured, rows)
    assert changed["latency_ms"] is None
    assert same["latency_ms"] > 0
