"""Table, figure, verdict, recommendation and page of a data set whose images have no classes."""

import re
from typing import Any

import pytest

from pipeline.evaluation.accuracy import MAP, OVERLAP, accuracy_of
from pipeline.report.figure import draw_tradeoff
from pipeline.report.recommendation import Bounds, recommend
from pipeline.report.report import render_report
from pipeline.report.tradeoff import (
    csv_text,
    interval_note,
    main_opponent,
    markdown_table,
    pareto_front,
    table_rows,
)
from pipeline.report.verdict import verdict
from tests.made_report import PARAMETERS, part, without_intervals, without_labels

LATENCIES = dict.fromkeys(("latency_ms", "latency_p95_ms", "latency_ratio"))


@pytest.fixture
def made() -> dict[str, Any]:
    return without_labels(part("pictures", students=2))


def page_of(*parts: dict[str, Any]) -> str:
    return render_report(list(parts), PARAMETERS, 0.95)


def test_what_says_how_accurate_a_row_is(made: dict[str, Any]) -> None:
    assert accuracy_of({"map": 0.5, "overlap_at_10": 0.4}) is MAP
    assert accuracy_of({"map": None, "overlap_at_10": 0.4}) is OVERLAP
    assert {accuracy_of(row).column for row in made["rows"]} == {"overlap_at_10"}


def test_the_table_has_the_overlap_in_place_of_map(made: dict[str, Any]) -> None:
    head, _, *lines = markdown_table(made["rows"]).splitlines()
    assert head == (
        "| network | role | query px | overlap@10 % | overlap@1 % | self % | gain | closed % "
        "| MACs | front |"
    )
    assert lines[1].startswith(
        "| pictures-0 | asymmetric | 64 | 60.0 (58.0 to 62.0) | 30.0 | 90.0 "
        "| +10.0 over naive (+8.0 to +12.0) | 40.0 |"
    )
    text = "\n".join(lines)
    assert "share of the teacher's k nearest images that a query finds" in text
    assert "(overlap@10 - naive overlap@10) / (teacher overlap@10 - naive overlap@10)" in text
    assert "mAP" not in head + text


def test_the_front_and_the_opponents_go_by_the_overlap(made: dict[str, Any]) -> None:
    cells = [{row["role"]: row} for row in made["rows"]]
    rows = table_rows(cells)
    on = pareto_front([r["gmacs"] for r in rows], [r["overlap_at_10"] for r in rows])
    assert [row["pareto"] for row in rows] == on
    assert any(on)
    assert not all(on)
    opponents = {row["role"]: main_opponent(row) for row in rows}
    assert opponents["asymmetric"] == "naive"
    assert opponents["symmetric"] == "asymmetric"


def test_the_verdict_says_what_the_student_finds(made: dict[str, Any]) -> None:
    told = verdict(made["rows"])
    assert told.startswith("Every student is better than the teacher fed the same small images")
    assert "pictures-0, 44 % of the teacher's arithmetic: it finds 60.0 (58.0 to 62.0) % of" in told
    assert "of the teacher's ten nearest" in told
    assert "mAP" not in told


def test_ten_images_are_needed_for_an_interval(made: dict[str, Any]) -> None:
    rows = [row | {"queries": 8} for row in without_intervals(made)["rows"]]
    note = "no intervals: 8 test images say too little, 10 are needed"
    assert interval_note(rows) == note
    assert note in verdict(rows)


def recommended(made: dict[str, Any], **bounds: float) -> dict[str, Any]:
    rows = [row | LATENCIES for row in made["rows"]]
    return recommend(rows, Bounds(**bounds))


@pytest.mark.parametrize(
    ("bounds", "network"),
    [
        ({"min_overlap": 0.57}, "pictures-0"),  # its interval ends at 0.58
        ({"min_overlap": 0.59}, None),
        ({"min_overlap": 0.5}, "pictures-1"),  # the cheapest of both
        ({"max_drop": 12.0}, "pictures-0"),
        ({"max_gmacs": 1.0}, "pictures-0"),  # the most accurate
        ({"max_gmacs": 0.01}, "pictures-1"),
        ({"min_overlap": 0.57, "max_gmacs": 0.01}, None),
    ],
)
def test_choices_by_hand(
    made: dict[str, Any], bounds: dict[str, float], network: str | None
) -> None:
    chosen = recommended(made, **bounds)["chosen"]
    assert (chosen and chosen["network"]) == network


def test_what_is_missed_is_told(made: dict[str, Any]) -> None:
    answer = recommended(made, min_overlap=0.9)
    assert "at least 90 % of the teacher's ten nearest" in answer["why"]
    assert "pictures-0 (asymmetric) comes closest: it may miss 42.0 % of the ten" in answer["why"]
    assert answer["closest"]["map"] is None
    assert answer["closest"]["overlap_at_10_low"] == pytest.approx(0.58)
    (other,) = answer["alternatives"]
    assert other["why"] == "not within the bounds: it may miss 47.0 % of the ten nearest"
    within = recommended(made, max_gmacs=1.0)["alternatives"][0]["why"]
    assert within.endswith("times the arithmetic, an overlap@10 5.0 points lower")


def test_a_bound_of_the_overlap_is_a_fraction_and_needs_overlaps() -> None:
    with pytest.raises(
        ValueError, match=r"--min-overlap 90: must be a fraction of 1, such as 0\.9"
    ):
        Bounds(min_overlap=90)
    labelled = [row | LATENCIES for row in part("made")["rows"]]
    with pytest.raises(ValueError, match="evaluated by an older version"):
        recommend(labelled, Bounds(min_overlap=0.5))
    labelled = [row | {"overlap_at_10": 0.5, "overlap_at_10_low": 0.4} for row in labelled]
    assert recommend(labelled, Bounds(min_overlap=0.4))["chosen"]["overlap_at_10"] == 0.5
    assert recommend(labelled, Bounds(min_overlap=0.41))["chosen"] is None


def test_the_page_speaks_of_the_teachers_ten_nearest(made: dict[str, Any]) -> None:
    page = page_of(made).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    said = page.replace("&#39;", "'")
    assert "A query of 64 px keeps 86 % of the teacher's ten nearest for 44 % of its" in said
    assert "without the method it keeps 71 %." in said
    assert "it finds 60.0 (58.0 to 62.0) % of the teacher's ten nearest" in said
    assert '<th scope="col" class="n">overlap@10 %</th>' in page
    assert "one of the teacher's ten nearest" in page
    assert "bootstrap intervals over test images" in page
    for word in ("mAP", "same class", "average precision", "None", "nan"):
        assert word not in page
    columns = len(re.findall(r"<th ", page.partition('class="rows"')[2].partition("</thead>")[0]))
    body = page.partition('class="rows"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = body.split("</tr>")[:-1]
    assert len(rows) == len(made["rows"])
    assert {len(re.findall(r"<t[hd]", row)) for row in rows} == {columns}


def test_a_page_of_both_kinds_keeps_its_columns_in_line(made: dict[str, Any]) -> None:
    page = page_of(part("birds", students=1), made)
    table = page.partition('class="rows"')[2]
    columns = len(re.findall(r"<th ", table.partition("</thead>")[0]))
    rows = table.partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")[:-1]
    assert len(rows) == 6 + len(made["rows"])
    assert {len(re.findall(r"<t[hd]", row)) for row in rows} == {columns}
    assert '<th scope="col" class="n">accuracy %</th>' in page
    assert "same class as the query" in page
    assert "Without classes:" in page


def test_the_figure_names_its_axis(made: dict[str, Any]) -> None:
    drawn = draw_tradeoff(made["rows"], "pictures")
    assert ">overlap@10 %</text>" in drawn
    assert "pictures-0, timm/made, 64 px: overlap@10 60.0 %, interval 58.0 to 62.0" in drawn


def test_a_teacher_whose_cost_nobody_knows(made: dict[str, Any]) -> None:
    unknown = {"gmacs": None, "parameters": None}
    rows = [row | unknown if row["role"] == "teacher" else row for row in made["rows"]]
    cells = [{row["role"]: row} for row in rows if row["role"] not in ("naive", "adapter")]
    rows = table_rows(cells)
    assert rows[0]["role"] == "teacher"
    assert "| unknown |" in markdown_table(rows)
    assert "MMACs (the teacher's are unknown): it finds 60.0" in verdict(rows)
    page = page_of(made | {"rows": rows})
    assert "for 16.4 MMACs" in page
    assert ">unknown</td>" in page
    assert draw_tradeoff(rows, "pictures").count('<g class="mark') == len(rows) - 1
    timed = draw_tradeoff([row | {"training_s": 8.0} for row in rows], "pictures", "training_s")
    assert timed.count("; cost unknown") == 1
    assert timed.count('<g class="mark') == len(rows)
    answer = recommend([row | LATENCIES for row in rows], Bounds(min_overlap=0.5))
    assert answer["chosen"]["network"] == "pictures-1"
    assert "of the teacher's arithmetic" not in answer["why"]
    assert csv_text(rows).count("\n") == len(rows) + 1
