"""Where the marks of the figure stand, and the figure as a file."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from pipeline.report.figure import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    cost_ticks,
    draw_panel,
    draw_tradeoff,
    figures,
    percent_ticks,
    scale,
)
from pipeline.report.tradeoff import ROLES
from tests.made_report import part, row, without_intervals


def numbered(rows: list[dict]) -> list[dict]:
    return [{"pareto": False} | entry | {"number": number} for number, entry in enumerate(rows)]


def test_scales_by_hand() -> None:
    place = scale(0, 80, 300, 20)
    assert (place(0), place(80), place(40), place(1)) == (300, 20, 160, 296.5)


def test_the_axis_of_costs_is_logarithmic() -> None:
    costs = (0.01, 0.1, 1, 10)
    rows = [row("made", str(c), "asymmetric", 64, 0.5) | {"gmacs": c} for c in costs]
    places = [mark["x"] for mark in draw_panel(numbered(rows), 980, 460)["marks"]]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.02)
    assert steps[0] > 100


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (0.003, 0.05, [0.003, 0.005, 0.01, 0.02, 0.03, 0.05]),
        (0.25, 20, [0.5, 1, 2, 5, 10, 20]),
        (0.001, 1.5, [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]),
        (0.00001, 90, [0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10]),
    ],
)
def test_ticks_of_costs(first: float, last: float, ticks: list[float]) -> None:
    assert cost_ticks(first, last) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (15.6, 74.5, [0, 10, 20, 30, 40, 50, 60, 70, 80]),
        (40.2, 44.9, [40, 41, 42, 43, 44, 45]),
        (61.0, 78.0, [60, 65, 70, 75, 80]),
        (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
        (-44.0, 100.0, [0, 50, 100]),  # of an interval that is wider than a share can be
        (50.0, 50.0, [50, 51]),
    ],
)
def test_ticks_of_percent(low: float, high: float, ticks: list[float]) -> None:
    assert percent_ticks(low, high) == ticks


def test_a_panel_keeps_every_mark_inside_and_in_order() -> None:
    rows = numbered(part("made")["rows"])
    for width, height in ((980, 460), (380, 360)):
        panel = draw_panel(rows, width, height)
        assert len(panel["marks"]) == len(rows) == 16
        assert sorted(mark["number"] for mark in panel["marks"]) == list(range(16))
        for mark in panel["marks"]:
            assert LEFT < mark["x"] < width - RIGHT
            assert TOP <= mark["high_y"] < mark["y"] < mark["low_y"] <= height - BOTTOM
        places = [mark["x"] for mark in panel["marks"]]
        assert places == sorted(places)
        by_number = {mark["number"]: mark for mark in panel["marks"]}
        for first in rows:
            for second in rows:
                if first["map"] > second["map"] + 1e-6:
                    assert by_number[first["number"]]["y"] < by_number[second["number"]]["y"]


def test_curves_join_a_role_and_the_front_is_a_staircase() -> None:
    text = draw_tradeoff(part("made")["rows"], "made")
    curves = dict(re.findall(r'<path class="curve (\w+)" d="([^"]*)"', text))
    assert list(curves) == ["adapter", "asymmetric", "baseline", "naive", "symmetric"]
    assert all(re.fullmatch(r"M[\d. ]+( L[\d. ]+){2}", path) for path in curves.values())
    (front,) = re.findall(r'<path class="front" d="([^"]*)"', text)
    assert re.fullmatch(r"M[\d.]+ [\d.]+( H[\d.]+ V[\d.]+){3}", front)


def test_another_backbone_has_marks_of_its_own_and_no_label() -> None:
    rows = numbered(
        [
            row("made", "teacher", "teacher", 96, 0.7),
            row("made", "a", "asymmetric", 64, 0.6),
            row("made", "b", "asymmetric", 96, 0.5) | {"backbone": "timm/light", "gmacs": 0.001},
        ]
    )
    panel = draw_panel(rows, 560, 380)
    assert {mark["number"]: mark["own"] for mark in panel["marks"]} == {0: True, 1: True, 2: False}
    assert 'class="curve' not in draw_tradeoff(rows, "made")
    assert [text for _, text in panel["size_ticks"]] == ["96 px", "64 px"]


def test_labels_of_sizes_do_not_run_together() -> None:
    rows = numbered([row("made", str(px), "asymmetric", px, 0.5) for px in (96, 95, 94, 32)])
    rows[0] |= {"role": "teacher"}
    assert [text for _, text in draw_panel(rows, 380, 360)["size_ticks"]] == ["96 px", "32 px"]


def test_marks_without_intervals_have_no_whiskers() -> None:
    rows = without_intervals(part("made"))["rows"]
    marks = draw_panel(numbered(rows), 980, 460)["marks"]
    assert [mark["low_y"] for mark in marks] == [None] * 16
    text = draw_tradeoff(rows, "made")
    assert 'class="whisker"' not in text
    assert "interval" not in text
    assert draw_tradeoff(part("made")["rows"], "made").count('class="whisker"') == 16


def test_a_single_row_is_drawn() -> None:
    panel = draw_panel(numbered([row("made", "teacher", "teacher", 96, 0.7)]), 560, 380)
    (mark,) = panel["marks"]
    left, right, _, _ = panel["edges"]
    assert left < mark["x"] < right


def test_a_teacher_of_unknown_cost_alone_leaves_axes() -> None:
    teacher = row("made", "teacher", "teacher", 96, 0.7) | {"gmacs": None}
    panel = draw_panel([teacher], 400, 300)
    assert panel["marks"] == []
    assert "<svg" in draw_tradeoff([teacher], "made")


def test_the_figure_as_a_file_shows_every_row_and_repeats_byte_by_byte() -> None:
    rows = part("made")["rows"]
    text = draw_tradeoff(rows, "made & shown: accuracy and cost of a query")
    assert text == draw_tradeoff(rows, "made & shown: accuracy and cost of a query")
    root = ElementTree.fromstring(text)  # noqa: S314  (our own text)
    names = [element.tag.partition("}")[2] for element in root.iter()]
    assert names.count("svg") == 1
    marks = [e for e in root.iter() if re.match(r"mark \w+$", e.get("class", ""))]
    assert len(marks) == len(rows) == 16
    words = " ".join(root.itertext())
    for word in ("made & shown", "96 px", "32 px", "mAP %", "Pareto front", *ROLES.values()):
        assert word in words
    assert "Hollow marks" not in words
    assert "var(" not in text  # viewers other than browsers do not know it


def test_the_figure_of_a_single_row_and_of_another_backbone() -> None:
    rows = part("made")["rows"]
    alone = draw_tradeoff(rows[:1], "one")
    assert ROLES["teacher"] in alone.replace("&#39;", "'")
    assert "without the method" not in alone
    other = [rows[0], rows[1] | {"backbone": "timm/light"}]
    assert "Hollow marks" in draw_tradeoff(other, "two")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00411, "0.00411"),
        (0.0000123, "0.0000123"),
        (16.35, "16.4"),
        (1234.0, "1230"),
        (0.5, "0.5"),
        (100, "100"),
        (0, "0"),
        (112.0, "112"),
    ],
)
def test_figures_have_no_exponent(value: float, text: str) -> None:
    assert figures(value) == text
