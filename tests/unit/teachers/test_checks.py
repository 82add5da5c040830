"""Stored vectors that cannot be used are told before anything runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.params import Params, load_params
from pipeline.teachers.checks import teacher_faults
from tests.made_params import edited_params


def params_with(folder: Path, vectors: Path) -> Params:
    changes = {
        "datasets.emblems.teacher": {"kind": "vectors", "view": "cropped"},
        "vectors.emblems": str(vectors),
        "students": {"own": {"dataset": "emblems", "query_px": 64}},
    }
    return load_params(edited_params(folder, changes))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": ["a"], "vector": [[1.0]]}, "has no column 'id'"),
        ({"id": ["a"], "vector": [[np.nan]]}, "not finite: a"),
        ({"id": ["a", "a"], "vector": [[1.0], [2.0]]}, "come twice: a"),
    ],
)
def test_faults_of_stored_vectors(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    (fault,) = teacher_faults(params_with(tmp_path, tmp_path / "v.parquet"))
    assert fault.startswith("vectors.emblems: ")
    assert words in fault


def test_vectors_that_will_do_and_those_that_others_miss(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0, 2.0]]}), tmp_path / "v.parquet")
    assert not list(teacher_faults(params_with(tmp_path, tmp_path / "v.parquet")))
    assert not list(teacher_faults(params_with(tmp_path, tmp_path / "nowhere.parquet")))
