"""A study of two seeds that is killed within the second: what is made, and made once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.workspace import dvc, environment, make_workspace, set_params
from tests.trained_study import forget_trainings

TARGET = "evaluate@tiny-16"
OUTPUTS = {
    "models/emblems/teacher",
    "models/emblems/students/tiny-16",
    "models/emblems/baselines/tiny-16",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("seeds") / "study")
    set_params(folder, {"seeds": [0, 1], "datasets.emblems.distillation.optimisation.epochs": 6})
    dvc(folder, "repro", TARGET)
    return folder


def networks(folder: Path) -> dict[str, bytes]:
    found = (folder / "models").rglob("*.safetensors")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


def killed_within_second_seed(folder: Path) -> Path:
    """Start the study, kill all its processes when a student's second seed has an epoch; the
    checkpoint of the first, which is finished.
    """
    command = [sys.executable, "-m", "dvc", "repro", TARGET]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    work, deadline_s = folder / ".work/distill/tiny-16", time.monotonic() + 600
    while not list(work.glob("1-*/checkpoint.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "models/emblems/students/tiny-16.seeds").exists() or not list(
        (folder / "models/emblems/students/tiny-16.seeds").iterdir()
    )
    (finished,) = work.glob("0-*/checkpoint.pt")
    return finished


def test_each_seed_trains_networks_of_its_own(study: Path) -> None:
    made = networks(study)
    assert made.keys() == {
        f"{output}{place}.safetensors" for output in OUTPUTS for place in ("", ".seeds/1")
    }
    assert len(set(made.values())) == 6
    table = pd.read_parquet(study / "results/emblems/cells/tiny-16.parquet")
    assert set(table["seed"]) == {0, 1}
    means = table.groupby(["role", "seed"])["average_precision"].mean()
    rows = pd.read_json(study / "results/emblems/cells/tiny-16.json", orient="index")
    assert set(rows["seeds"]) == {2}
    assert len(rows) == 5
    for role, row in rows.iterrows():
        own = means[role]
        assert row["map"] == pytest.approx(own.mean(), abs=1e-9)
        ends = row["map_seed_low"], row["map_seed_high"]
        assert ends == pytest.approx((own.min(), own.max()), abs=1e-9)


def test_killed_and_resumed_it_ends_with_the_same_lock_and_trains_nothing_twice(
    study: Path,
) -> None:
    lock, made = (study / "dvc.lock").read_bytes(), networks(study)
    forget_trainings(study)
    checkpoint = killed_within_second_seed(study)
    finished = checkpoint.stat()
    again = dvc(study, "repro", TARGET)
    assert "resuming after epoch 6 of 6" in again.stderr
    assert (study / "dvc.lock").read_bytes() == lock
    assert networks(study) == made
    after = checkpoint.stat()
    assert (after.st_ino, after.st_mtime_ns) == (finished.st_ino, finished.st_mtime_ns)


def test_a_seed_gives_the_same_network_whether_it_is_the_first_or_a_further_one(
    study: Path,
) -> None:
    second = (study / "models/emblems/teacher.seeds/1.safetensors").read_bytes()
    set_params(study, {"seeds": [1]})
    dvc(study, "repro", "train_teacher")
    assert (study / "models/emblems/teacher.safetensors").read_bytes() == second
    assert list((study / "models/emblems/teacher.seeds").iterdir()) == []
    assert list((study / "models/emblems").glob("teacher*.csv"))
