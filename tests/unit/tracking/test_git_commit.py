"""The commit that a record names."""

import subprocess
from pathlib import Path

import pytest

from pipeline.tracking.runs import git_commit


def test_the_commit_is_told_or_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == "none"
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "one")):
        subprocess.run(["git", *command], check=True, capture_output=True)
    commit = git_commit()
    assert len(commit) == 40
    (tmp_path / "file").write_text("x")
    subprocess.run(["git", "add", "file"], check=True)
    assert git_commit() == f"{commit}-dirty"


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == "none"
