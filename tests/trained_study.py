"""A small study of real trainings, with trials and two seeds, that is killed: start and record."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.integration.workspace import dvc, environment, make_workspace, set_params
from tests.killed_studies import Subject

LONGER = {
    "seeds": [0, 1],
    "tuning.trials": 2,
    "datasets.emblems.teacher.optimisation.epochs": 6,
    "datasets.emblems.distillation.optimisation.epochs": 6,
    "students": {
        "tiny-16": {"dataset": "emblems", "query_px": 16},
        "tiny-24": {"dataset": "emblems", "query_px": 24},
    },
}
TARGET = "distill"
RESULTS = ("data", "models", "embeddings", "results", "report", ".dvc/cache")
TRAINING = ("train_teacher", "tune", "distill", "train_baseline")


def make_trained_study(folder: Path) -> bytes:
    """Write the study into a new workspace; the dvc.lock of a plain `dvc repro` of its students."""
    make_workspace(folder)
    set_params(folder, LONGER)
    dvc(folder, "repro", TARGET)
    return (folder / "dvc.lock").read_bytes()


def start_trained_study(folder: Path, **extra: str) -> "subprocess.Popen[str]":
    """In a session of its own, deaf to no signal."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "study", "--jobs", "2", "--targets", TARGET],
        cwd=folder,
        env={**environment(folder), **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def forget_trainings(folder: Path) -> None:
    """Back to nothing done, checkpoints and trials included; the record of MLflow stays."""
    for name in (*RESULTS, *(f".work/{stage}" for stage in TRAINING)):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)


TRAINED = Subject(start_trained_study, forget_trainings, "-m stages.")


def record_faults(folder: Path) -> list[str]:
    """Runs that say RUNNING though nothing runs, and fingerprints with more than one run."""
    query = """
        select count(*) from tags one
        join tags stage on stage.run_uuid = one.run_uuid and stage.key = 'dvc_stage'
        join tags role on role.run_uuid = one.run_uuid and role.key = 'role'
        where one.key = 'fingerprint'
        group by one.value, stage.value, role.value having count(*) > 1
    """
    with sqlite3.connect(folder / "mlflow.db") as database:
        running = database.execute(
            "select name from runs where status = 'RUNNING' and run_uuid in "
            "(select run_uuid from tags where key = 'fingerprint')"
        ).fetchall()
        twice = database.execute(query).fetchall()
    found = [f"RUNNING in MLflow: {running}"] if running else []
    return found + ([f"{len(twice)} fingerprints with several runs"] if twice else [])
