"""What the record of a run is to hold; on disk for as long as MLflow cannot be reached."""

import json
import math
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.paths import WORK
from pipeline.processes import is_dead, own_name

OUTBOX = WORK / "outbox"
RANKING = "validation_map"  # by which checkpoints are ranked; larger is better


@dataclass(frozen=True)
class DatasetFacts:
    """The data that a run read: the digest is that of the file, `profile` counts what is in it."""

    name: str
    path: str
    digest: str
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochRow:
    """The metrics of one epoch, and when they were measured."""

    epoch: int
    time_ms: int
    metrics: Mapping[str, float]


@dataclass
class Record:
    """One run: everything that MLflow is to know of it, whether or not it knows it yet.

    `results` are metrics of the whole run. `keep_best` is how many checkpoints keep their files
    beside the last one. `owner` names the process that writes the record.
    """

    stage: str
    key: str
    role: str
    fingerprint: str
    tags: dict[str, str]
    parameters: dict[str, str]
    dataset: DatasetFacts | None = None
    keep_best: int = 0
    rows: list[EpochRow] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    status: str = "RUNNING"
    owner: dict[str, str] = field(default_factory=own_name)

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.key}-{self.role}-{self.fingerprint}"

    @property
    def folder(self) -> Path:
        return OUTBOX / self.name

    def add_row(self, metrics: Mapping[str, float]) -> None:
        """Add the row of an epoch, unless it is there."""
        epoch = int(metrics["epoch"])
        if all(row.epoch != epoch for row in self.rows):
            self.rows.append(EpochRow(epoch, now_ms(), dict(metrics)))

    def network_file(self, epoch: int) -> Path:
        """Where the network of an epoch waits until MLflow has it."""
        return self.folder / f"epoch-{epoch}" / "network.safetensors"

    def epochs_with_files(self) -> set[int]:
        """The epochs whose networks are kept: the best by validation map, and the last."""
        return kept_epochs([row.metrics for row in self.rows], self.keep_best)

    def write(self) -> None:
        """Leave the record on disk, with the networks that are worth keeping."""
        write_text(self.folder / "record.json", json.dumps(asdict(self), indent=1))
        self.drop_files(keep=self.epochs_with_files())

    def drop_files(self, keep: Collection[int] = ()) -> None:
        """Delete the waiting networks of all epochs but those in `keep`."""
        for folder in self.folder.glob("epoch-*"):
            if int(folder.name.removeprefix("epoch-")) not in keep:
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Nothing waits any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def kept_epochs(rows: list[Mapping[str, float]], keep_best: int) -> set[int]:
    """The epochs of the `keep_best` highest validation maps, earlier ones first, and the last."""
    if not rows:
        return set()
    scores = [
        (-row[RANKING], int(row["epoch"]))
        for row in rows
        if not math.isnan(row.get(RANKING, math.nan))
    ]
    best = {epoch for _, epoch in sorted(scores)[:keep_best]}
    return best | {max(int(row["epoch"]) for row in rows)}


def waiting_records(*, of_dead_only: bool = True) -> Iterator[Record]:
    """The records that MLflow does not know whole; those of living processes are theirs."""
    for path in sorted(OUTBOX.glob("*/record.json")):
        try:
            record = _parse(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # delivered meanwhile
            continue
        if record.status != "RUNNING" or is_dead(record.owner) or not of_dead_only:
            yield record


def _parse(values: dict[str, Any]) -> Record:
    dataset = values.pop("dataset")
    rows = [EpochRow(**row) for row in values.pop("rows")]
    return Record(**values, dataset=DatasetFacts(**dataset) if dataset else None, rows=rows)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
