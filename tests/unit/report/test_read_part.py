"""What the page shows of one data set, from what its evaluations left."""

import json
from pathlib import Path

import pytest

from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.report.report import read_part
from tests.made_report import PACK, part, row


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetPaths:
    """A teacher, and students of 32 and 64 px that show some of the same pictures."""
    monkeypatch.chdir(tmp_path)
    found = DatasetPaths("32")  # a data set may be called so, and a network null
    teacher = row("32", "teacher", "teacher", 96, 0.7)
    write_json(found.report_part("teacher"), {"rows": {"teacher": teacher}, "pack": PACK})
    for name, px in (("null", 32), ("made-64", 64)):
        own = {role: row("32", name, role, px, 0.5) for role in ("asymmetric", "naive")}
        images = {"7": "data:,seven", str(px): f"data:,{px}"}
        drawn = {"queries": part("made", students=1)["examples"][0]["queries"], "images": images}
        write_json(found.report_part(name), {"rows": own, **drawn})
    return found


def test_a_part_holds_rows_facts_and_pictures(paths: DatasetPaths) -> None:
    found = read_part(paths, ["teacher", "null", "made-64"])
    json.dumps(found, allow_nan=False)
    assert found["dataset"] == "32"
    assert found["pack"] == PACK
    names = [(entry["network"], entry["role"]) for entry in found["rows"]]
    assert names == [
        ("teacher", "teacher"),
        ("made-64", "asymmetric"),
        ("made-64", "naive"),
        ("null", "asymmetric"),
        ("null", "naive"),
    ]
    assert found["rows"][0]["map_over_naive"] is None
    assert found["rows"][0]["pareto"] is True
    students = [(one["student"], one["query_px"]) for one in found["examples"]]
    assert students == [("made-64", 64), ("null", 32)]
    assert [len(one["queries"]) for one in found["examples"]] == [12, 12]
    assert set(found["images"]) == {"7", "32", "64"}


def test_a_damaged_part_is_named(paths: DatasetPaths) -> None:
    paths.report_part("null").write_text("{")
    with pytest.raises(ValueError, match=r"report/parts/32/null\.json: is damaged"):
        read_part(paths, ["teacher", "null"])
