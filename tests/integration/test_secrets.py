"""A study of images in object storage: its keys are the environment's, and come nowhere else."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from tests.integration.workspace import run_stages, set_params
from tests.made_bucket import KEY, S3, loopback_bucket
from tests.own_images import NAME, STUDENT
from tests.unlabelled_study import make_unlabelled_study


@S3
def test_no_file_and_no_message_of_a_study_holds_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make_unlabelled_study(tmp_path / "workspace")
    drawn = sorted(study.glob("images/*/*.jpg"))
    content = {f"{number}.jpg": file.read_bytes() for number, file in enumerate(drawn)}
    columns = {"id": list(content), "uri": [f"s3://photos/{name}" for name in content]}
    (study / "listed").mkdir()
    pq.write_table(pa.table(columns), study / "listed/pictures.parquet")
    table = {"kind": "table", "table": "pictures.parquet", "skip_unreadable": False}
    source = {**table, "allow": ["s3://photos"]}
    set_params(study, {f"datasets.{NAME}.source": source, f"inputs.{NAME}": "listed"})
    monkeypatch.chdir(study)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{study}/mlflow.db")
    of_all = ("inputs", "hash_inputs", "prepare", "train_teacher", "embed_database")
    of_student = ("tune", "distill", "train_baseline", "evaluate")
    with loopback_bucket(monkeypatch, content):
        run_stages(("code", "study"), *((stage, NAME) for stage in of_all))
        run_stages(*((stage, STUDENT) for stage in of_student))
        run_stages(("evaluate", NAME), ("report", NAME))
        done = CliRunner().invoke(app, ["export", "--network", STUDENT, "--output", "out"])
    assert done.exit_code == 0, done.output
    assert KEY not in done.output + "".join(capfd.readouterr())
    files = [file for file in study.rglob("*") if file.is_file()]
    for needed in ("mlflow.db", f"data/{NAME}/pack.arrow", "out/README.md"):
        assert study / needed in files
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []
