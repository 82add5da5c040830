"""Where an interrupted training goes on: a folder for each seed and fingerprint, outside the
outputs, which DVC deletes before it runs a stage again."""

import shutil
from pathlib import Path

from pipeline.files import file_md5, write_text
from pipeline.paths import LOCK, WORK


def open_work_folder(stage: str, key: str, seed: int, mark: str) -> Path:
    """Where the interrupted training of a seed goes on: .work/STAGE/KEY/SEED-FINGERPRINT.

    The seed's folders of other fingerprints are deleted. So is this one when the result that its
    stage led to is in dvc.lock already: the stage is then run again on purpose, and starts anew.
    """
    home = WORK / stage / key
    folder = home / f"{seed}-{mark}"
    for other in home.glob(f"{seed}-*"):
        if other != folder:
            shutil.rmtree(other)
    result = folder / "result.md5"
    if result.exists() and _is_locked(result.read_text()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_work_folders(stage: str, key: str, result: Path) -> None:
    """Note which result the folders of all seeds led to, of the first seed, when all are trained.

    They may be deleted once dvc.lock holds that result.
    """
    md5 = file_md5(result)
    for folder in (WORK / stage / key).iterdir():
        write_text(folder / "result.md5", md5)


def delete_spent_work() -> None:
    """Delete the work folders whose results are in dvc.lock."""
    for result in WORK.glob("*/*/*/result.md5"):
        if _is_locked(result.read_text()):
            shutil.rmtree(result.parent)


def _is_locked(md5: str) -> bool:
    return bool(md5) and LOCK.exists() and f"md5: {md5}" in LOCK.read_text()
