"""The file that docs/operations.md shows runs: the job of the Ray engine as one task of Prefect."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.datasets.vectors import read_vectors
from tests.integration.workspace import ROOT
from tests.made_embedding import write_network, write_pictures


def shown() -> str:
    """The block of code that begins with its imports, and ends where the text goes on."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(
        r"^    from subprocess import run\n(?:(?:    .*)?\n)+", page, re.MULTILINE
    )
    return textwrap.dedent(block)


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_the_job_of_ray_is_one_task_of_prefect(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "photos", range(6))
    program = shown()
    for said, toy in {
        "s3://photos/2026": "photos",
        "s3://vectors/2026": "vectors",
        "models/NAME/teacher.safetensors": "net.safetensors",
        '"64"': '"1"',
    }.items():
        assert program.count(said) == 1
        program = program.replace(said, toy)
    (tmp_path / "embed_photos.py").write_text(program)
    scripts = Path(sys.executable).parent
    own = {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "L2S_DEVICE": "cpu",
    }
    left_out = ("RAY_ADDRESS", "PREFECT_API_URL")
    given = {key: value for key, value in os.environ.items() if key not in left_out}
    done = subprocess.run(
        [sys.executable, "embed_photos.py"],
        cwd=tmp_path,
        env=given | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "6 images embedded in 1 shard: vectors" in said
    assert len(re.findall(r"Task run 'embed-\w+' - .*Finished in state Completed", said)) == 1
    (batch,) = read_vectors(tmp_path / "vectors").batches()
    assert len(batch.ids) == 6
