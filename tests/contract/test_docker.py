"""The Dockerfile is sound as far as can be told without a daemon: lint, sources, user, steps."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docker_steps import ROOT, copy, instructions
from tests.integration.workspace import TINY, set_params

STEPS = instructions()


def words_of(name: str) -> list[list[str]]:
    return [words for given, words in STEPS if given == name]


def test_hadolint_has_no_complaint() -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_first_image_is_of_one_version() -> None:
    assert len(words_of("FROM")) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", words_of("FROM")[0][0])


def test_what_is_copied_is_there_and_sent_to_the_daemon() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    sources = [source for *sources, _ in words_of("COPY") for source in sources]
    assert len(sources) > 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert {line[1:] for line in ignored if line.startswith("!")} == set(sources)


def test_nothing_is_installed_or_run_by_root_but_packages_of_the_system() -> None:
    user = next(place for place, (name, _) in enumerate(STEPS) if name == "USER")
    assert words_of("USER") == [["1000:1000"]]
    by_root = [words[0] for name, words in STEPS[:user] if name == "RUN"]
    assert by_root == ["apt-get"]
    assert {name for name, _ in STEPS[user:]} >= {"COPY", "RUN", "ENTRYPOINT"}


def test_the_steps_are_those_of_the_makefile() -> None:
    made = [words[1] for words in words_of("RUN") if words[0] == "make"]
    assert made == [".venv/packages", ".venv/installed"]
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(made) <= set(targets)


def test_what_is_copied_runs_a_study_laid_out_elsewhere(tmp_path: Path) -> None:
    copied, study = tmp_path / "copied", tmp_path / "study"
    for words in words_of("COPY"):
        copy(words, copied)
    environment = {**os.environ, "PYTHONPATH": str(copied), "L2S_DEVICE": "cpu"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def l2s(*words: str, folder: Path) -> str:
        command = [sys.executable, "-m", "pipeline.cli", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    study.mkdir()
    assert "next: cd" in l2s("init", ".", folder=study)
    set_params(study, TINY)
    l2s("study", "--targets", "prepare", folder=study)
    assert (study / "data/emblems/pack.arrow").is_file()
    assert str(copied / "pipeline/version.txt") in (study / "dvc.yaml").read_text()
