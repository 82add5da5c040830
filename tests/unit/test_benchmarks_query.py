"""The benchmarks of the query path run, at toy size, and print what they promise."""

import re
from pathlib import Path

import pytest

from benchmarks import indexes, query, reduced_decode
from tests.made_study import make_finished_study


def test_a_query_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    query.main(
        ["--backbone", "timm/test_resnet", "--dim", "16", "--student-px", "32"]
        + ["--teacher-px", "64", "--sides", "160", "120", "--database", "20", "--batches", "1", "2"]
        + ["--repeats", "1", "--calibration", "2"]
    )
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if re.match(r"(PyTorch|ONNX).* student ", line)]
    # Two batches, three engines; 120 px are reduced at a margin of 1 (37 px needed), not of 2.
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        decode, view, embed, search, total, cpu = map(float, row.split()[-6:])
        assert total == pytest.approx(decode + view + embed + search, abs=0.03)
        assert cpu > 0


def test_what_a_reduced_decode_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_finished_study(tmp_path / "study")
    capsys.readouterr()
    reduced_decode.main(["--workspace", str(study), "--calibration", "4"])
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny-16 of emblems: 30 queries")
    assert [row.split()[:-4] for row in rows] == [
        ["decoded", "in", "full"],
        ["decoded", "to", "x2"],
        ["decoded", "to", "x1"],
        ["in", "full,", "int8"],
    ]
    # 40 px for a view of 16 px, which needs 18: halved where 1 x 18 are enough, not 2 x 18.
    assert [row.split()[-2] for row in rows] == ["0%", "0%", "100%", "0%"]
    assert rows[0].split()[-4:-2] == rows[1].split()[-4:-2]
    assert rows[0].split()[-1] == "1.0000"
    assert all(0.5 < float(row.split()[-1]) <= 1.0001 for row in rows)


def test_large_indexes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps in this process: a fresh one each takes most of the time, and is done once."""
    indexes.make_vectors(tmp_path, rows=700, dim=8, per_class=20, noise=0.8)
    indexes.make_queries(tmp_path, queries=10, noise=0.8)
    found = {}
    for kind in ("hnsw", "ivfpq"):
        assert indexes.build(tmp_path, kind, threads=1)["s"] > 0
        found[kind] = indexes.search(tmp_path, kind)
    for told in found.values():
        assert told["index_recall"] <= told["database_recall"] + 0.05
        assert told["database_recall"] > 0.8
    capsys.readouterr()
    indexes.main(
        ["--vectors", "300", "--dim", "8", "--queries", "4", "--kinds", "exact", "--threads", "1"]
        + ["--folder", str(tmp_path / "kept")]
    )
    told = capsys.readouterr().out
    assert len(re.findall(r"recall@10 1\.0000", told)) == 2
    assert "opened again" in told
    assert (tmp_path / "kept" / "exact.faiss").exists()
