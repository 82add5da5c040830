"""The network to take: within the bounds by its interval, the cheapest, and why."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.evaluation.latency import COLUMNS, network_of, this_machine
from pipeline.files import file_md5, write_json
from pipeline.paths import DatasetPaths
from pipeline.report.recommendation import Bounds, recommend
from tests.made_params import edited_params

ROOT = Path(__file__).resolve().parents[3]

NAN = float("nan")


def row(
    network: str, role: str, gmacs: float, drop: float, latency_ms: float = 1.0, **extra: Any
) -> dict[str, Any]:
    """A row that drops from 70 % by `drop`, with an interval of a point on both sides."""
    spread = 0 if role == "teacher" else 0.01
    accuracy = 0.7 - drop
    return {
        "dataset": "emblems",
        "network": network,
        "role": role,
        "backbone": "timm/made",
        "query_px": 64,
        "database_px": 96,
        "gmacs": gmacs,
        "latency_ms": latency_ms,
        "latency_p95_ms": 2 * latency_ms,
        "latency_ratio": latency_ms / 40,
        "map": accuracy,
        "map_low": accuracy - 0.015,
        "map_high": accuracy + 0.015,
        "map_at_r": accuracy / 2,
        "recall_at_1": accuracy,
        "map_drop": drop,
        "map_drop_low": drop - spread,
        "map_drop_high": drop + spread,
        "classes": 30,
        "seeds": 1,
        **extra,
    }


ROWS = [
    row("teacher", "teacher", 4.0, 0.0, 40.0),
    row("l", "asymmetric", 2.0, 0.01, 20.0),
    row("m", "asymmetric", 1.0, 0.03, 12.0),
    row("s", "asymmetric", 0.5, 0.08, 6.0),
    row("s", "symmetric", 0.5, 0.005, 6.0),
    row("s", "naive", 0.5, 0.3, 6.0),
]


def chosen(bounds: Bounds, roles: tuple[str, ...] = ("asymmetric",)) -> str | None:
    found = recommend(ROWS, bounds, roles)["chosen"]
    return found and found["network"]


@pytest.mark.parametrize(
    ("bounds", "network"),
    [
        (Bounds(max_drop=2.01), "l"),  # the drop of m is 3 points
        (Bounds(max_drop=3.5), "l"),  # of m it may be 4
        (Bounds(max_drop=4.01), "m"),
        (Bounds(max_drop=50), "s"),
        (Bounds(max_drop=1.9), None),  # the drop of l is 1 point, but may be 2
        (Bounds(max_gmacs=1.0), "m"),  # the most accurate that is within
        (Bounds(max_gmacs=0.7), "s"),
        (Bounds(max_gmacs=0.4), None),
        (Bounds(max_latency_ms=12), "m"),
        (Bounds(max_latency_ms=100), "l"),
        (Bounds(max_drop=5, max_latency_ms=12), "m"),
        (Bounds(max_drop=5, max_gmacs=0.7), None),
        (Bounds(max_drop=10, max_gmacs=0.7, max_latency_ms=6), "s"),
        (Bounds(max_drop=0), None),
    ],
)
def test_choices_by_hand(bounds: Bounds, network: str | None) -> None:
    assert chosen(bounds) == network


def test_only_the_roles_asked_for_are_candidates() -> None:
    assert chosen(Bounds(max_drop=2.01)) == "l"
    found = recommend(ROWS, Bounds(max_drop=2.01), ("asymmetric", "symmetric"))
    assert found["chosen"] is not None
    assert (found["chosen"]["network"], found["chosen"]["role"]) == ("s", "symmetric")
    assert chosen(Bounds(max_drop=0), ("teacher",)) == "teacher"


def test_the_order_of_the_rows_does_not_matter() -> None:
    for first in range(1, len(ROWS)):
        mixed = [*ROWS[first:], *reversed(ROWS[:first])]
        for bounds in (Bounds(max_drop=4.01), Bounds(max_gmacs=1)):
            assert recommend(mixed, bounds)["chosen"] == recommend(ROWS, bounds)["chosen"]


def test_of_equally_cheap_rows_the_more_accurate_and_the_other_way_round() -> None:
    twin = [*ROWS, row("n", "asymmetric", 1.0, 0.02)]
    found = recommend(twin, Bounds(max_drop=4.01))["chosen"]
    assert found is not None
    assert found["network"] == "n"
    dearer = [*ROWS, row("a", "asymmetric", 1.5, 0.03)]
    found = recommend(dearer, Bounds(max_gmacs=1.5))["chosen"]
    assert found is not None
    assert found["network"] == "m"


def test_every_other_candidate_is_given_a_reason() -> None:
    found = recommend(ROWS, Bounds(max_drop=4.01))
    assert "the cheapest of 2 within the bounds (at most 4.01 points" in found["why"]
    assert "of 3 in all; 25 % of the teacher's arithmetic" in found["why"]
    why = {other["network"]: (other["within"], other["why"]) for other in found["alternatives"]}
    assert why == {
        "l": (
            True,
            "within the bounds: 2 times the arithmetic, a mAP 2.0 points higher, "
            "not told apart by the intervals",
        ),
        "s": (False, "not within the bounds: its drop may be 9.0 points"),
    }
    assert found["closest"] is None


def test_what_comes_closest_is_told_when_nothing_is_within() -> None:
    found = recommend(ROWS, Bounds(max_drop=1, max_latency_ms=15))
    assert found["chosen"] is None
    assert found["closest"] is not None
    # l misses by 1 point of 1 and 5 ms of 15; m by 3 points of 1.
    assert found["closest"]["network"] == "l"
    assert found["why"].endswith(
        "l (asymmetric) comes closest: its drop may be 2.0 points and it takes 20 ms"
    )
    assert {other["network"] for other in found["alternatives"]} == {"m", "s"}
    assert not any(other["within"] for other in found["alternatives"])


def test_a_latency_that_was_not_measured_is_within_no_bound() -> None:
    table = [r | {"latency_ms": None} if r["network"] == "s" else r for r in ROWS]
    found = recommend(table, Bounds(max_drop=50, max_latency_ms=30))
    assert found["chosen"] is not None
    assert found["chosen"]["network"] == "m"
    (unmeasured,) = [other for other in found["alternatives"] if other["network"] == "s"]
    assert unmeasured["why"].endswith(
        "it changed after the measurement: measure again: l2s latency"
    )
    assert recommend(table, Bounds(max_drop=50))["chosen"]["network"] == "s"


def test_a_bound_of_the_latency_needs_latencies() -> None:
    table = [r | {"latency_ms": None} if r["role"] == "asymmetric" else r for r in ROWS]
    with pytest.raises(ValueError, match=r"--max-latency-ms: .*; measure again: l2s latency"):
        recommend(table, Bounds(max_latency_ms=30))
    assert recommend(table, Bounds(max_latency_ms=30), ("naive",))["chosen"] is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_drop", -1.0), ("max_gmacs", NAN), ("max_latency_ms", float("inf"))],
)
def test_bounds_are_numbers_of_zero_or_more(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} .*0 or more"):
        Bounds(**{name: value})


def test_bad_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="no bound"):
        Bounds()
    with pytest.raises(ValueError, match="--roles foo: must be some of teacher, asymmetric"):
        recommend(ROWS, Bounds(max_drop=1), ("foo",))
    with pytest.raises(ValueError, match="no row of role baseline"):
        recommend(ROWS, Bounds(max_drop=1), ("baseline",))
    with pytest.raises(ValueError, match="older version"):
        recommend([r | {"map_drop": None} for r in ROWS], Bounds(max_drop=1))
    ends = dict.fromkeys(f"{c}_{end}" for c in ("map", "map_drop") for end in ("low", "high"))
    few = [r | ends | {"classes": 9} for r in ROWS]
    with pytest.raises(ValueError, match="--max-drop 1: emblems has no intervals: 9 test classes"):
        recommend(few, Bounds(max_drop=1))
    assert Bounds(max_drop=50).broken(few[1]) == [(float("inf"), "its drop has no interval")]
    found = recommend(few, Bounds(max_gmacs=1))
    assert found["chosen"]["network"] == "m"
    within = [one["why"] for one in found["alternatives"] if one["within"]]
    assert within == [
        "within the bounds: 0.5 times the arithmetic, a mAP 5.0 points lower, without intervals"
    ]
    json.dumps(found, allow_nan=False)


def failed_distillation(low: float, high: float) -> list[dict[str, Any]]:
    """A student whose gain over naive has that interval; both are 16 points below the teacher."""
    gain = {"map_over_naive": (low + high) / 2, "map_over_naive_low": low}
    student = row("s", "asymmetric", 0.5, 0.164) | gain | {"map_over_naive_high": high}
    return [ROWS[0], student, row("s", "naive", 0.5, 0.16), row("s", "symmetric", 0.5, 0.3)]


def test_a_cheaper_row_of_equal_accuracy_is_not_hidden() -> None:
    found = recommend(failed_distillation(-0.02, 0.012), Bounds(max_drop=20))
    assert found["chosen"]["network"] == "s"
    (naive,) = found["as_good"]  # not the symmetric one, which is less accurate
    assert (naive["role"], naive["gmacs"]) == ("naive", 0.5)
    assert naive["why"] == (
        "1 times the arithmetic, a mAP 0.4 points higher, not told apart by the intervals; "
        "needs no training; `l2s export` does not write it"
    )
    assert "s is not told apart from the teacher fed the same small images" in found["verdict"]
    assert "Deploy no student" in found["verdict"]
    better = recommend(failed_distillation(0.001, 0.012), Bounds(max_drop=20))
    assert better["as_good"] == []
    worse = recommend(failed_distillation(-0.02, -0.001), Bounds(max_drop=20))["as_good"]
    assert worse[0]["why"].startswith("1 times the arithmetic, a mAP 0.4 points higher; needs no")


def test_what_cannot_be_exported_is_named_as_such() -> None:
    found = recommend(ROWS, Bounds(max_gmacs=1), ("naive",))
    assert found["chosen"]["role"] == "naive"
    assert found["why"].endswith("needs no training; `l2s export` does not write it")
    assert [(one["network"], one["role"]) for one in found["as_good"]] == [
        ("s", "asymmetric"),
        ("s", "symmetric"),
    ]


def test_a_share_has_no_exponent() -> None:
    dear = [ROWS[0], row("l", "asymmetric", 4.0, 0.01)]
    assert "; 100 % of the teacher's arithmetic" in recommend(dear, Bounds(max_drop=5))["why"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study of one data set, whose networks are no networks."""
    monkeypatch.chdir(tmp_path)
    students = {name: {"dataset": "emblems", "query_px": 64} for name in "lms"}
    edited_params(tmp_path, {"students": students})
    (tmp_path / "dvc.yaml").touch()
    paths = DatasetPaths("emblems")
    for cell in ("teacher", *students):
        own = [entry for entry in ROWS if entry["network"] == cell]
        rows = [{k: v for k, v in entry.items() if k not in COLUMNS} for entry in own]
        write_json(paths.cell(cell), {entry["role"]: entry for entry in rows})
    networks = {}
    for entry in ROWS:
        file, px = network_of(paths, entry)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))
        networks[file, px] = {
            "file": str(file),
            "md5": file_md5(file),
            "query_px": px,
            "figures": {column: entry[column] for column in COLUMNS},
        }
    run = {"machine": this_machine(), "moment": "now", "device": "cpu", "threads": 1, "load": 0.0}
    write_json(paths.results / "latency.json", run | {"networks": [*networks.values()]})
    return tmp_path


def ask(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, ["recommend", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.usefixtures("study")
def test_the_command_says_which_and_why() -> None:
    code, told, errors = ask("--max-drop", "4.01")
    assert (code, errors) == (0, "")
    assert told.splitlines()[0] == "emblems: m"
    assert (
        "asymmetric, 64 px, 1 GMACs, 12 ms (0.30 of the teacher's), mAP 67.0 % (65.5 to 68.5)"
        in told
    )
    assert "3.0 points (2.0 to 4.0) below the teacher" in told
    assert "not s (asymmetric, 64 px): not within the bounds" in told
    assert (
        "not s (symmetric, 64 px): 0.5 times the arithmetic, a mAP 2.5 points higher, not" in told
    )
    assert told.splitlines()[-1].startswith("  verdict: ")


def test_the_table_is_shown_and_nothing_is_written(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    done = CliRunner().invoke(cli.app, ["table"])
    assert done.exit_code == 0
    assert "67.0 (65.5 to 68.5)" in done.stdout
    assert "\nverdict " in done.stdout
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


@pytest.mark.parametrize("command", [["table"], ["recommend", "--max-drop", "50"]])
def test_neither_command_loads_a_heavy_library(study: Path, command: list[str]) -> None:
    program = (
        "import sys\n"
        "from pipeline.cli.__main__ import app\n"
        f"app({command}, standalone_mode=False)\n"
        "print(sorted({'torch', 'timm', 'pandas', 'mlflow', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=study,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("study")
def test_the_command_gives_json() -> None:
    code, told, _ = ask("--max-gmacs", "1", "--dataset", "emblems", "--json")
    assert code == 0
    answer = json.loads(told)
    unbound = dict.fromkeys(("max_drop", "max_latency_ms", "min_overlap"))
    assert answer["bounds"] == {**unbound, "max_gmacs": 1.0}
    found = answer["datasets"]["emblems"]
    assert found["chosen"]["network"] == "m"
    assert [other["network"] for other in found["alternatives"]] == ["l", "s"]


@pytest.mark.usefixtures("study")
def test_nothing_within_the_bounds_is_an_answer_with_exit_code_1() -> None:
    code, told, errors = ask("--max-drop", "1")
    assert (code, errors) == (1, "")
    assert told.startswith("emblems: no network\n")
    assert "l (asymmetric) comes closest" in told
    code, told, _ = ask("--max-drop", "1", "--json")
    assert code == 1
    assert json.loads(told)["datasets"]["emblems"]["chosen"] is None


@pytest.mark.usefixtures("study")
def test_json_has_null_for_a_latency_that_was_not_measured() -> None:
    DatasetPaths("emblems").student("m").write_text("trained again")
    code, told, _ = ask("--max-drop", "4.01", "--json")
    assert code == 0
    assert json.loads(told)["datasets"]["emblems"]["chosen"]["latency_ms"] is None
    assert " ms (" not in ask("--max-drop", "4.01")[1]


def test_without_a_fitting_measurement_a_bound_of_the_latency_is_refused(study: Path) -> None:
    assert ask("--max-latency-ms", "13")[1].startswith("emblems: m\n")
    DatasetPaths("emblems").student("m").write_text("trained again")
    code, told, _ = ask("--max-latency-ms", "13")
    assert (code, told.splitlines()[0]) == (0, "emblems: s")
    assert "not m (asymmetric, 64 px): not within the bounds: it changed after the meas" in told
    (study / "results/emblems/latency.json").unlink()
    code, told, errors = ask("--max-latency-ms", "13")
    assert (code, told) == (2, "")
    assert errors.startswith("error: --max-latency-ms")
    assert errors.endswith("; measure again: l2s latency\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no bound"),
        (["--max-drop", "-1"], "--max-drop -1: must be a number, 0 or more"),
        (["--max-drop", "nan"], "--max-drop nan"),
        (["--max-latency-ms", "inf"], "--max-latency-ms inf"),
        (["--max-drop", "1", "--dataset", "birds"], "no such data set; known: emblems"),
        (["--max-drop", "1", "--roles", "student"], "--roles student: must be some of"),
        (["--max-drop", "1", "--roles", ","], "--roles"),
    ],
)
@pytest.mark.usefixtures("study")
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    code, told, errors = ask(*arguments)
    assert (code, told) == (2, "")
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_without_a_study_the_command_says_what_to_run(study: Path) -> None:
    DatasetPaths("emblems").cell("m").unlink()
    code, _, errors = ask("--max-drop", "1")
    assert (code, errors) == (2, "error: emblems: not evaluated yet: m; run `l2s study`\n")
    (study / "dvc.yaml").unlink()
    code, _, errors = ask("--max-drop", "1")
    assert code == 2
    assert "no params.yaml and dvc.yaml" in errors
