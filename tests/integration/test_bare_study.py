"""A study on a machine without DVC, MLflow, Prefect and FAISS, by benchmarks/bare_study.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.workspace import ROOT, make_workspace

WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dvc", "mlflow", "prefect", "faiss", "imagehash"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""


def run_bare(folder: Path, site: Path) -> list[dict[str, object]]:
    paths = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, "-m", "benchmarks.bare_study", "--jobs", "2"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads((folder / "spent.json").read_text()))


def test_training_and_retrieval_need_none_of_the_tools_that_orchestrate(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT)
    folder = make_workspace(tmp_path / "study")
    ran = run_bare(folder, site)
    assert [one["stage"] for one in ran[:4]] == ["code", "inputs", "prepare", "train_teacher"]
    rows = json.loads((folder / "results/emblems/cells/tiny-16.json").read_text())
    assert set(rows) == {"asymmetric", "symmetric", "naive", "adapter", "baseline"}
    assert not (folder / "embeddings/emblems/database.faiss").exists()
    assert not list(folder.glob("mlflow.db*"))
    assert run_bare(folder, site) == []
