"""Folders from which interrupted trainings go on."""

from pathlib import Path

import pytest

from pipeline.training.work_folders import (
    close_work_folders,
    delete_spent_work,
    open_work_folder,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_interrupted_run_finds_its_folder_again() -> None:
    folder = open_work_folder("distill", "a", 0, "mark1")
    (folder / "checkpoint.pt").write_text("state")
    assert folder == Path(".work/distill/a/0-mark1")
    assert open_work_folder("distill", "a", 0, "mark1") == folder
    assert (folder / "checkpoint.pt").read_text() == "state"


def test_other_fingerprints_are_cleared_and_other_seeds_and_keys_are_not() -> None:
    old = open_work_folder("distill", "a", 1, "mark1")
    others = [
        open_work_folder("distill", "b", 1, "mark1"),
        open_work_folder("distill", "a", 0, "mark1"),
        open_work_folder("distill", "a", 11, "mark1"),
        open_work_folder("train_teacher", "a", 1, "mark1"),
    ]
    new = open_work_folder("distill", "a", 1, "mark2")
    assert not old.exists()
    assert all(folder.is_dir() for folder in (new, *others))


def worked(seed: int) -> Path:
    """The folder of a seed, where a checkpoint lies."""
    folder = open_work_folder("distill", "a", seed, "mark1")
    (folder / "checkpoint.pt").touch()
    return folder


def test_a_finished_run_starts_anew_only_once_its_result_is_locked() -> None:
    result = Path("model.safetensors")
    result.write_bytes(b"weights")
    folders = [worked(seed) for seed in (0, 1)]
    md5 = "67b0acc2afc0ff1e9051b2f6af88a2e3"
    Path("dvc.lock").write_text(f"outs:\n  md5: {md5}\n")
    close_work_folders("distill", "a", result)
    # Killed before DVC took note of the result: the work is not done twice.
    for seed, folder in enumerate(folders):
        assert (open_work_folder("distill", "a", seed, "mark1") / "checkpoint.pt").exists()
        assert (folder / "result.md5").read_text() != md5
    delete_spent_work()
    assert all(folder.exists() for folder in folders)
    md5 = (folders[0] / "result.md5").read_text()
    Path("dvc.lock").write_text(f"outs:\n  md5: {md5}\n")
    again = open_work_folder("distill", "a", 1, "mark1")
    assert again == folders[1]
    assert list(again.iterdir()) == []
    delete_spent_work()
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_note_that_a_full_disk_cut_off_throws_no_work_away() -> None:
    folder = worked(0)
    (folder / "result.md5").touch()
    Path("dvc.lock").write_text("outs:\n  md5: 67b0acc2afc0ff1e9051b2f6af88a2e3\n")
    delete_spent_work()
    assert (open_work_folder("distill", "a", 0, "mark1") / "checkpoint.pt").exists()


def test_a_finished_seed_is_kept_until_all_are_trained_whatever_is_locked() -> None:
    """The seed alone was a study before, with the same result: dvc.lock still holds it."""
    result = Path("model.safetensors")
    result.write_bytes(b"weights")
    worked(0)
    close_work_folders("distill", "a", result)
    md5 = Path(".work/distill/a/0-mark1/result.md5").read_text()
    Path("dvc.lock").write_text(f"outs:\n  md5: {md5}\n")
    finished = worked(0)  # anew, on purpose: a seed was added
    worked(1)
    delete_spent_work()
    assert open_work_folder("distill", "a", 0, "mark1") == finished
    assert (finished / "checkpoint.pt").exists()
