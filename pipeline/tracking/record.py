"""The record of a run: all that MLflow is to know of it, on disk until MLflow knows it."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.paths import STUDY, WORK
from pipeline.processes import is_dead

RECORDS = STUDY / WORK / "tracking"
# By which checkpoints are ranked, the one that a training has; larger is better.
RANKINGS = ("validation_map", "validation_overlap")
RUNNING = "RUNNING"
KNOWN_BY = ("dvc_stage", "role", "fingerprint")  # the tags by which a run is found again


@dataclass
class Record:
    """One run, whether or not MLflow knows it yet.

    `rows` are the metrics of each epoch with the time of their measurement (`time_ms`), `results`
    the metrics of the whole run, `trainings` those of the networks that an evaluation was of, by
    the MD5 of their files. `keep_best` is how many checkpoints keep their files beside the last
    one. Among the tags are those that name the run and the process that writes the record.
    `dataset` is what the run read: its name, the path and digest (MD5) of its file, and `profile`,
    which counts what is in it.
    """

    tags: dict[str, str]
    parameters: dict[str, str]
    dataset: Mapping[str, Any] | None = None
    keep_best: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    trainings: dict[str, dict[str, float]] = field(default_factory=dict)
    status: str = RUNNING

    @property
    def name(self) -> str:
        return "-".join(self.tags[tag] for tag in KNOWN_BY).replace("@", "-")

    @property
    def folder(self) -> Path:
        return RECORDS / self.name

    def network_file(self, epoch: float) -> Path:
        """Where the network of an epoch waits until MLflow has it."""
        return self.folder / f"epoch-{epoch:.0f}" / "network.safetensors"

    def write(self) -> None:
        """Leave the record on disk, of the waiting networks those that are worth keeping."""
        write_text(self.folder / "record.json", json.dumps(vars(self), indent=1))
        kept = {self.network_file(epoch).parent for epoch in kept_epochs(self.rows, self.keep_best)}
        for other in set(self.folder.glob("epoch-*")) - kept:
            shutil.rmtree(other)

    def go_on(self) -> None:
        """Take over the epochs that a killed process of the same run left, and their networks."""
        with suppress(FileNotFoundError):
            left = json.loads((self.folder / "record.json").read_text(encoding="utf-8"))
            if left["status"] == RUNNING:
                self.rows = left["rows"]

    def forget(self) -> None:
        """Delete what need not wait any more: the networks, after the end of the run everything."""
        done = self.folder.glob("epoch-*") if self.status == RUNNING else [self.folder]
        for path in done:
            shutil.rmtree(path)


def kept_epochs(rows: Iterable[Mapping[str, float]], keep_best: int) -> set[int]:
    """The epochs of the `keep_best` highest `RANKINGS`, earlier ones first, and the last."""
    scores = {
        int(row["epoch"]): next((row[name] for name in RANKINGS if name in row), math.nan)
        for row in rows
    }
    scored = [epoch for epoch, score in scores.items() if not math.isnan(score)]
    ranked = sorted(scored, key=lambda epoch: (-scores[epoch], epoch))
    return {*ranked[:keep_best], *sorted(scores)[-1:]}


def waiting_records() -> list[Record]:
    """The records that dead or finished processes left on disk; those of living ones are theirs."""
    found = []
    for path in sorted(RECORDS.glob("*/record.json")):
        with suppress(FileNotFoundError):  # sent meanwhile
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            if record.status != RUNNING or is_dead(record.tags):
                found.append(record)
    return found


def fingerprint(parameters: Any, inputs: Iterable[Path]) -> str:
    """A hash of what a result depends on: parameters and input files.

    The code is one of either: the digests that the stage `code` wrote, or digests at hand.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in sorted(inputs):
        digest.update(str(path).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]
