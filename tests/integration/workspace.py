"""A tiny study in a repository of its own, for the tests that run the real stages."""

import os
import shutil
import subprocess
import sys
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ruamel.yaml import YAML

from stages import run_stage

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "datasets.emblems.source.families": 4,
    "datasets.emblems.source.members": 3,
    "datasets.emblems.source.images_per_class": 5,
    "datasets.emblems.source.image_px": 40,
    "datasets.emblems.teacher_px": 32,
    "datasets.emblems.validation_share": 0.34,
    "datasets.emblems.network.dim": 16,
    "datasets.emblems.teacher.classes_per_batch": 2,
    "datasets.emblems.teacher.images_per_class": 2,
    "datasets.emblems.teacher.optimisation.epochs": 1,
    "datasets.emblems.distillation.loss": {"kind": "raml", "lambda_ts": 0.7, "lambda_ss": 0.7},
    "datasets.emblems.distillation.images_per_batch": 8,
    "datasets.emblems.distillation.views": 2,
    "datasets.emblems.distillation.optimisation.epochs": 1,
    "students": {"tiny-16": {"dataset": "emblems", "query_px": 16}},
    "evaluation.bootstrap_samples": 100,
}


def make_workspace(folder: Path) -> Path:
    """A copy of the project's code and graph under git and DVC, with a study of seconds."""
    folder.mkdir(parents=True)
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    run(folder, "git", "init", "--quiet")
    set_params(folder, TINY)
    return folder


def set_params(folder: Path, changes: dict[str, Any]) -> None:
    """Set values of params.yaml by their dotted keys."""
    yaml = YAML()
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def environment(folder: Path) -> dict[str, str]:
    """This Python first on the path, and the workspace's code before the installed one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(folder), "L2S_DEVICE": "cpu"}
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"} | own


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the workspace; its output is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "dvc", *arguments, check=check)


def changed_stages(folder: Path) -> set[str]:
    """Stages that `dvc repro` would look at: those whose dependencies or outputs changed."""
    import json

    return set(json.loads(dvc(folder, "status", "--json").stdout))


def run_study(folder: Path, changes: dict[str, Any]) -> Path:
    """A study of emblems as `TINY` with changes, its students among them, in this process."""
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    set_params(folder, TINY | changes)
    order = [("code", "study")]
    order += [(name, "emblems") for name in ("inputs", "prepare", "train_teacher")]
    order += [("embed_database", "emblems")]
    of_student = ("tune", "distill", "train_baseline", "evaluate")
    order += [(name, key) for key in changes["students"] for name in of_student]
    order += [("evaluate", "emblems"), ("report", "emblems")]
    with (
        chdir(folder),
        patch.dict(
            os.environ,
            {"L2S_DEVICE": "cpu", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        ),
    ):
        run_stages(*order)
    return folder


def run_stages(*order: tuple[str, str]) -> None:
    """Run stages, each with its key, in this process and folder, one after the other."""
    for name, key in order:
        with patch.object(sys, "argv", [f"stages/{name}.py", key]):
            run_stage(getattr(import_module(f"stages.{name}"), name))
