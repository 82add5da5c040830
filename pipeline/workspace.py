"""The working copy: where things lie, what a stage's result depends on, how a stage runs."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORK = Path(".work")
ARCHIVES = Path("archives")  # downloads, each under its published name; no output of any stage
CODE = ("pipeline", "stages")


@dataclass(frozen=True)
class DatasetPaths:
    """Where the stages of one data set write; dvc.yaml names the same paths."""

    dataset: str

    @property
    def source(self) -> Path:
        """What was downloaded or is rendered; beside it, in the same folder, `given`."""
        return Path("data", self.dataset, "source", "source.json")

    @property
    def given(self) -> Path:
        """What lies at the data set's entry of `inputs`."""
        return Path("data", self.dataset, "source", "input.json")

    @property
    def splits(self) -> Path:
        """The record of which class of the user's own images trains: no output of any stage."""
        return Path("splits", f"{self.dataset}.json")

    @property
    def pack(self) -> Path:
        return Path("data", self.dataset, "pack.arrow")

    @property
    def pack_summary(self) -> Path:
        return Path("data", self.dataset, "pack.json")

    @property
    def teacher(self) -> Path:
        return Path("models", self.dataset, "teacher.safetensors")

    def student(self, key: str) -> Path:
        return Path("models", self.dataset, "students", f"{key}.safetensors")

    def baseline(self, key: str) -> Path:
        return Path("models", self.dataset, "baselines", f"{key}.safetensors")

    @property
    def database(self) -> Path:
        return Path("embeddings", self.dataset, "database.npy")

    @property
    def index(self) -> Path:
        return Path("embeddings", self.dataset, "database.faiss")

    @property
    def results(self) -> Path:
        return Path("results", self.dataset)

    def cell(self, key: str) -> Path:
        return self.results / "cells" / f"{key}.json"

    def per_query(self, key: str) -> Path:
        return self.results / "cells" / f"{key}.parquet"

    def contrasts(self, key: str) -> Path:
        return self.results / "cells" / "contrasts" / f"{key}.json"

    def timings(self, key: str) -> Path:
        return self.results / "timings" / f"{key}.json"

    @property
    def report_part(self) -> Path:
        """What the report of the whole study shows of this data set."""
        return Path("report", "parts", f"{self.dataset}.json")


def archives_shelf() -> Path | None:
    """The user's folder of published archives, if L2S_ARCHIVES names one."""
    named = os.environ.get("L2S_ARCHIVES")
    return Path(named) if named else None


def history_path(network: Path) -> Path:
    """The table of epochs beside a trained network."""
    return network.with_suffix(".csv")


def fingerprint(parameters: Any, inputs: Iterable[Path]) -> str:
    """A hash of what a result depends on: parameters, input files, and the code that is loaded.

    The code is that of the modules of this repository that are imported at the moment of the call.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in sorted([*inputs, *_loaded_code()]):
        digest.update(str(path).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]


def _loaded_code() -> list[Path]:
    root = Path.cwd()
    files = [
        Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in (*CODE, "__main__")
        and (file := getattr(module, "__file__", None))  # a Python prompt has none
    ]
    return sorted({file.relative_to(root) for file in files if file.is_relative_to(root)})


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
    with result.open("rb") as file:
        (folder / "result.md5").write_text(hashlib.file_digest(file, "md5").hexdigest())


def delete_spent_work() -> None:
    """Delete the work folders whose results are in dvc.lock."""
    for result in WORK.glob("*/*/*/result.md5"):
        if _is_locked(result.read_text()):
            shutil.rmtree(result.parent)


def _is_locked(md5: str) -> bool:
    lock = Path("dvc.lock")
    return lock.exists() and f"md5: {md5}" in lock.read_text()


def run_stage(stage: Callable[[str], None]) -> None:
    """Run a stage for the key on the command line; a fault that a user can cause is one message.

    Exit code 2, no traceback unless L2S_DEBUG is set: ValueError, ArithmeticError, OSError, and a
    key that params.yaml does not have.
    """
    if len(sys.argv) != 2:
        sys.stderr.write(f"usage: python -m stages.{Path(sys.argv[0]).stem} KEY\n")
        sys.exit(2)
    key = sys.argv[1]
    try:
        stage(key)
    except (ValueError, ArithmeticError, OSError, KeyError) as error:
        if os.environ.get("L2S_DEBUG") or (isinstance(error, KeyError) and error.args != (key,)):
            raise
        unknown = isinstance(error, KeyError)
        sys.stderr.write(f"error: {f'params.yaml has no {key!r}' if unknown else error}\n")
        sys.exit(2)
