"""Folders from which interrupted trainings go on."""

from pathlib import Path

import pytest

from pipeline.training.work_folders import close_work_folder, open_work_folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_interrupted_run_finds_its_folder_again() -> None:
    folder = open_work_folder("distill", "a", "mark1")
    (folder / "checkpoint.pt").write_text("state")
    assert folder == Path(".work/distill/a/mark1")
    assert open_work_folder("distill", "a", "mark1") == folder
    assert (folder / "checkpoint.pt").read_text() == "state"


def test_other_fingerprints_are_cleared_and_other_keys_are_not() -> None:
    old = open_work_folder("distill", "a", "mark1")
    other_key, other_stage = (
        open_work_folder("distill", "b", "mark1"),
        open_work_folder("train_teacher", "a", "mark1"),
    )
    new = open_work_folder("distill", "a", "mark2")
    assert not old.exists()
    assert all(folder.is_dir() for folder in (new, other_key, other_stage))


def test_a_finished_run_starts_anew_only_once_its_result_is_locked() -> None:
    result = Path("model.safetensors")
    result.write_bytes(b"weights")
    folder = open_work_folder("distill", "a", "mark1")
    (folder / "checkpoint.pt").write_text("state")
    close_work_folder(folder, result)
    # Killed before DVC took note of the result: the work is not done twice.
    assert (open_work_folder("distill", "a", "mark1") / "checkpoint.pt").exists()
    Path("dvc.lock").write_text("outs:\n  md5: 00000000000000000000000000000000\n")
    assert (open_work_folder("distill", "a", "mark1") / "checkpoint.pt").exists()
    Path("dvc.lock").write_text("outs:\n  md5: 67b0acc2afc0ff1e9051b2f6af88a2e3\n")
    md5 = (folder / "result.md5").read_text()
    Path("dvc.lock").write_text(f"outs:\n  md5: {md5}\n")
    again = open_work_folder("distill", "a", "mark1")
    assert again == folder
    assert list(again.iterdir()) == []
