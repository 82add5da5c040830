"""Resolution against architecture in one table: a student of another backbone at the full size.

The stages run in this process, one after the other, on a study of seconds.
"""

import csv
from pathlib import Path

import pytest

from pipeline.models.weights import read_card
from tests.integration.workspace import run_study

LIGHT = "timm/test_vit"
STUDENTS = {
    "small-16": {"dataset": "emblems", "query_px": 16},
    "light-32": {
        "dataset": "emblems",
        "query_px": 32,
        "network": {"backbone": LIGHT, "weights": "random", "batch_norm": "live", "dim": 16},
    },
}
Row = dict[str, str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"students": STUDENTS, "datasets.emblems.source.families": 8}
    return run_study(tmp_path_factory.mktemp("study"), own)


@pytest.fixture(scope="module")
def rows(study: Path) -> dict[tuple[str, str], Row]:
    with (study / "results/emblems/tradeoff.csv").open(encoding="utf-8") as file:
        return {(row["network"], row["role"]): row for row in csv.DictReader(file)}


def test_a_light_network_at_full_size_has_every_row_but_naive_and_adapter(
    rows: dict[tuple[str, str], Row],
) -> None:
    """Both would be the teacher: nothing is small about the query."""
    roles = {key: [role for network, role in rows if network == key] for key in STUDENTS}
    assert sorted(roles["light-32"]) == ["asymmetric", "baseline", "symmetric"]
    of_small = ["adapter", "asymmetric", "baseline", "naive", "symmetric"]
    assert sorted(roles["small-16"]) == of_small
    assert ("teacher", "teacher") in rows
    assert len(rows) == 9


def test_the_rows_say_which_network_sees_what(rows: dict[tuple[str, str], Row]) -> None:
    for (network, role), row in rows.items():
        assert row["backbone"] == (LIGHT if network == "light-32" else "timm/test_resnet")
        assert row["query_px"] == ("16" if network == "small-16" else "32")
        against_teacher = role in ("teacher", "asymmetric", "naive", "adapter")
        assert row["database_px"] == ("32" if against_teacher else row["query_px"])
        assert row["subset"] == "False"


def test_costs_are_those_of_the_light_network(rows: dict[tuple[str, str], Row]) -> None:
    light = [rows["light-32", role] for role in ("asymmetric", "symmetric", "baseline")]
    assert len({(row["gmacs"], row["parameters"]) for row in light}) == 1
    assert light[0]["parameters"] != rows["teacher", "teacher"]["parameters"]
    assert light[0]["input_bytes"] == rows["teacher", "teacher"]["input_bytes"] == str(3 * 32**2)


def test_gains_are_over_rows_that_there_are(rows: dict[tuple[str, str], Row]) -> None:
    small, light = (rows[key, "asymmetric"] for key in STUDENTS)
    for opponent in ("naive", "adapter", "baseline"):
        low, gain, high = (float(small[f"map_over_{opponent}{e}"]) for e in ("_low", "", "_high"))
        assert low <= gain <= high
    assert light["map_over_naive"] == light["map_over_adapter"] == ""
    assert light["map_over_baseline"]
    assert rows["light-32", "symmetric"]["map_over_baseline"]


def test_twelve_test_classes_give_intervals(rows: dict[tuple[str, str], Row]) -> None:
    for row in rows.values():
        assert row["classes"] == "12"
        assert float(row["map_low"]) <= float(row["map"]) <= float(row["map_high"])


def test_the_baseline_is_the_light_network_trained_with_labels(study: Path) -> None:
    for kind in ("students", "baselines"):
        card = read_card(study / "models/emblems" / kind / "light-32.safetensors")
        assert (card.backbone, card.size_px, card.dim) == (LIGHT, 32, 16)


def test_the_figure_tells_the_backbones_apart(study: Path) -> None:
    text = (study / "results/emblems/tradeoff.svg").read_text(encoding="utf-8")
    assert LIGHT in text
