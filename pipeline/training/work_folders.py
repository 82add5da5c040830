"""Where an interrupted training goes on: a folder for each fingerprint, outside the outputs."""

import shutil
from pathlib import Path

from pipeline.files import file_md5
from pipeline.paths import LOCK, WORK


def open_work_folder(stage: str, key: str, mark: str) -> Path:
    """The folder from which an interrupted run of the stage goes on: .work/STAGE/KEY/FINGERPRINT.

    Folders of other fingerprints are deleted. So is this one when the result that it led to is in
    dvc.lock already: the stage is then run again on purpose, and starts anew.
    """
    home = WORK / stage / key
    folder = home / mark
    for other in home.iterdir() if home.exists() else ():
        if other != folder:
            shutil.rmtree(other)
    result = folder / "result.md5"
    if result.exists() and _is_locked(result.read_text()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_work_folder(folder: Path, result: Path) -> None:
    """Note which result the folder led to; it may be deleted once dvc.lock holds that result."""
    (folder / "result.md5").write_text(file_md5(result))


def delete_spent_work() -> None:
    """Delete the work folders whose results are in dvc.lock."""
    for result in WORK.glob("*/*/*/result.md5"):
        if _is_locked(result.read_text()):
            shutil.rmtree(result.parent)


def _is_locked(md5: str) -> bool:
    return LOCK.exists() and f"md5: {md5}" in LOCK.read_text()
