"""What the figures say in words: nothing is better than its interval carries."""

from typing import Any

import pytest

from pipeline.report.verdict import stands, stands_to_row, verdict
from tests.made_report import part, row, without_intervals

TEACHER = row("made", "teacher", "teacher", 96, 0.7)
UNTRAINED = [
    row("made", "a", role, px, 0.2) for role in ("naive", "adapter") for px in (64, 48, 32)
]
TO_DEPLOY = "To deploy in the teacher's database: "


def student(name: str = "a", accuracy: float = 0.6, px: int = 64, **gains: Any) -> dict[str, Any]:
    """A student; of each opponent the gain and the half of its interval's width, in points."""
    made = row("made", name, "asymmetric", px, accuracy)
    for opponent, given in (
        {"naive": (10, 2), "adapter": (8, 2), "baseline": (5, 2)} | gains
    ).items():
        gain, half = given or (None, None)
        ends = (gain, gain - half, gain + half) if given else (None, None, None)
        for end, value in zip(("", "_low", "_high"), ends, strict=True):
            made[f"map_over_{opponent}{end}"] = None if value is None else value / 100
    return made


def test_a_student_that_beats_everything_is_to_be_deployed() -> None:
    assert verdict([TEACHER, student(), *UNTRAINED]) == (
        "a is better than the teacher fed the same small images (naive), +10.0 (+8.0 to +12.0) "
        "points; a is better than that teacher with its embeddings turned (adapter), +8.0 "
        "(+6.0 to +10.0) points; a is better than a network with labels and a database of its own "
        "(baseline), +5.0 (+3.0 to +7.0) points. To deploy in the teacher's database: a, 44 % of "
        "the teacher's arithmetic, 10.0 (9.0 to 11.0) points of mAP below it."
    )


def test_the_best_of_several_of_a_size_is_called_a_choice() -> None:
    rivals = [student(f"r{number}", 0.5) for number in range(4)]
    said = verdict([TEACHER, student(), *rivals, student("small", 0.4, 48), *UNTRAINED])
    assert "a, 44 % of the teacher's arithmetic" in said
    choice = "(the first of 5 of its size, a choice that its interval does not count)"
    assert said.endswith(f" points of mAP below it {choice}.")


def test_means_of_seeds_are_called_so() -> None:
    rows = [TEACHER, student(), *UNTRAINED]
    said = verdict([one | {"seeds": 3} for one in rows])
    assert said == f"{verdict(rows)} Figures are means of 3 seeds."


@pytest.mark.parametrize("opponent", ["naive", "adapter"])
@pytest.mark.parametrize(
    ("gain", "word"),
    [((0.4, 1), "not told apart from"), ((-3, 1), "worse than"), ((1, 1), "not told apart from")],
)
def test_a_failed_distillation_is_called_one(
    opponent: str, gain: tuple[float, float], word: str
) -> None:
    said = verdict([TEACHER, student(**{opponent: gain}), *UNTRAINED])
    assert f"a is {word} " in said
    assert said.endswith(
        "Deploy no student: none is both cheaper than the teacher and better than what needs no "
        "training."
    )


def test_several_students_are_told_apart() -> None:
    rows = [
        TEACHER,
        student("a", 0.6),
        student("b", 0.5, 48, naive=(0.5, 1), baseline=(-4, 1)),
        student("c", 0.4, 32, baseline=(0, 1)),
    ]
    said = verdict([*rows, *UNTRAINED])
    assert said.startswith("a and c are better than the teacher fed the same small images (naive)")
    assert (
        "+10.0 to +10.0 points, b is not told apart, +0.5 (-0.5 to +1.5) points; every student"
        in said
    )
    assert (
        "(baseline), +5.0 (+3.0 to +7.0) points, c is not told apart, +0.0 (-1.0 to +1.0) points, b"
        in said
    )
    assert f"{TO_DEPLOY}a," in said
    assert verdict([TEACHER, *map(student, "ab")]).startswith("Every student is better than the")


def test_a_better_network_with_a_second_database_is_named() -> None:
    labelled = row("made", "a", "baseline", 64, 0.65)
    said = verdict([TEACHER, student(baseline=(-5, 2)), labelled])
    assert "a is worse than a network with labels" in said
    assert said.endswith(
        "with a second database a (baseline) is more accurate, 65.0 against 60.0 %."
    )
    said = verdict([TEACHER, student(baseline=(-5, 6)), labelled])
    assert "second database" not in said


def test_a_student_as_dear_as_the_teacher_is_not_deployed() -> None:
    dear = student(px=96) | {"gmacs": TEACHER["gmacs"]}
    assert "Deploy no student" in verdict([TEACHER, dear])


def test_a_student_of_the_full_size_has_no_naive_row_to_beat() -> None:
    light = student(naive=None, adapter=None, baseline=(1, 2), px=96) | {"gmacs": 0.01}
    said = verdict([TEACHER, light, *UNTRAINED])
    assert said.startswith(
        "a is not told apart from a network with labels and a database of its own"
    )
    assert f"{TO_DEPLOY}a," in said


def test_a_student_that_a_cheaper_untrained_row_beats_is_not_deployed() -> None:
    light = student("a", 0.15, 96, naive=None, adapter=None) | {"gmacs": 0.02}
    assert verdict([TEACHER, light, *UNTRAINED]).endswith("better than what needs no training.")
    dearer = [one | {"gmacs": 0.03} for one in UNTRAINED]
    assert f"{TO_DEPLOY}a," in verdict([TEACHER, light, *dearer])


def test_rows_of_an_older_version_are_told_apart_by_their_intervals() -> None:
    old = student(naive=None, adapter=None, baseline=None)
    assert verdict([TEACHER, old, *UNTRAINED]).startswith(f"{TO_DEPLOY}a,")
    assert verdict([TEACHER, old | {"map_low": 0.21}, *UNTRAINED]).startswith("Deploy no student")


def test_without_intervals_nothing_is_better() -> None:
    assert verdict(without_intervals(part("made"))["rows"]) == (
        "Nothing here can be called better or worse, for there are no intervals: 8 test classes "
        "say too little, 10 are needed."
    )


def test_without_students_there_is_nothing_to_say() -> None:
    assert verdict([TEACHER]).startswith("No student is evaluated")


def test_how_rows_stand_to_one_another() -> None:
    one = student(naive=(0.4, 1), adapter=(3, 1), baseline=(-3, 1))
    assert [stands(one, o) for o in ("naive", "adapter", "baseline", "none")] == [
        "not told apart",
        "better",
        "worse",
        "",
    ]
    of_cell = {role: row("made", "a", role, 64, 0.2) for role in ("naive", "adapter", "baseline")}
    assert (
        stands_to_row(one, of_cell["naive"]) == "not told apart"
    )  # though their intervals lie apart
    assert stands_to_row(of_cell["naive"], one) == "not told apart"
    assert stands_to_row(of_cell["adapter"], one) == "worse"
    assert stands_to_row(of_cell["baseline"], one) == "better"
    # The naive row is shared by the students of a size, and bears one's name; others are not.
    assert stands_to_row(student("b", naive=(-3, 1)), of_cell["naive"]) == "worse"
    assert stands_to_row(student("b", 0.6), of_cell["baseline"]) == "better"
    assert stands_to_row(student("b", 0.23), of_cell["baseline"]) == "not told apart"
    # The teacher is paired with all: their intervals overlap, the drop's does not hold zero.
    near = TEACHER | {"map": 0.61, "map_low": 0.55, "map_high": 0.67}
    drop = {"map_drop": 0.01, "map_drop_low": 0.005, "map_drop_high": 0.015}
    assert stands_to_row(one | drop, near) == "worse"
    assert stands_to_row(near, one | drop) == "better"
    lean = without_intervals({"rows": [student("b"), of_cell["baseline"]]})["rows"]
    assert stands_to_row(*lean) == ""
