"""How a source was cut into shards: a Parquet file, one row and one row group a shard.

New images make new shards; of those that were deleted or changed `gone` is set in the shard that
they were in. Images are compared with a new listing as Arrow columns, tens of bytes an image.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.datasets.vector_batches import VectorsError
from pipeline.datasets.vectors import MANIFEST
from pipeline.embedding.destination import Destination

SHARD_IMAGES = 1024
OUTPUT_NAME = re.compile(r"[0-9a-f]{40}\.parquet")  # of `output_name`
SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("bytes", pa.list_(pa.int64())),
        ("stamps", pa.list_(pa.string())),
        ("gone", pa.list_(pa.bool_())),
    ]
)
_ORIGIN = b"origin"
FORMAT = 1  # of the manifest; one that does not say is of this one


@dataclass(frozen=True)
class Shard:
    """Some images that are embedded as one; `digest` is of their ids, sizes and stamps when cut,
    and another one than that of any earlier shard.

    gone: of each image whether its row no longer holds.
    """

    digest: str
    ids: list[str]
    bytes: list[int]
    stamps: list[str]
    gone: list[bool]


class ShardSummary(NamedTuple):
    """A shard without its images: its number in the manifest, how many they are, and of how many
    bytes, where that is known.
    """

    number: int
    digest: str
    images: int
    bytes: int


def output_name(shard_digest: str, network: str) -> str:
    """The name of a shard's file of vectors. network: digest of network and preprocessing."""
    return f"{hashlib.sha256(f'{shard_digest} {network}'.encode()).hexdigest()[:40]}.parquet"


@contextmanager
def opened_output(destination: Destination, name: str) -> Iterator[pq.ParquetFile]:
    """A shard's file of vectors. Raises FileNotFoundError, VectorsError for one that is damaged."""
    try:
        with destination.opened(name) as opened:
            yield pq.ParquetFile(opened, pre_buffer=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise VectorsError(
            f"{destination}/{name}: cannot be read as Parquet: {reason}: delete it if it is "
            "damaged; `l2s embed` makes it anew"
        ) from error


class Manifest:
    """An open manifest: shards by their numbers, of which one is read at a time.

    origin: what the shards are of: source, network and preprocessing.
    """

    def __init__(self, file: pq.ParquetFile, address: str) -> None:
        """Raises VectorsError for a file that is no manifest, and one of another version."""
        try:
            self.origin: dict[str, Any] = json.loads(file.schema_arrow.metadata[_ORIGIN])
        except (LookupError, TypeError, ValueError) as error:
            raise VectorsError(f"{address}/{MANIFEST}: is no manifest of `l2s embed`") from error
        if (given := self.origin.get("format", FORMAT)) != FORMAT:
            raise VectorsError(
                f"{address}/{MANIFEST}: is of format {given}, and this version reads {FORMAT}: "
                "embed into a new folder"
            )
        self.file = file

    def __len__(self) -> int:
        return self.file.num_row_groups

    def __getitem__(self, number: int) -> Shard:
        (row,) = self.file.read_row_group(number).to_pylist()
        return Shard(**row)

    def summaries(self) -> Iterator[ShardSummary]:
        """All shards in order."""
        for number in range(len(self)):
            rows = self.file.read_row_group(number, columns=["digest", "bytes"])
            sizes = pc.list_flatten(rows["bytes"])
            digest = rows["digest"][0].as_py()
            yield ShardSummary(number, digest, len(sizes), pc.sum(sizes).as_py())


@contextmanager
def open_manifest(destination: Destination) -> Iterator[Manifest]:
    """The manifest of a destination. Raises FileNotFoundError, VectorsError for what is none."""
    with destination.opened(MANIFEST) as opened:
        try:
            file = pq.ParquetFile(opened, pre_buffer=False)
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())
            raise VectorsError(f"{destination.address}/{MANIFEST}: {reason}") from error
        yield Manifest(file, destination.address)


def noted_network(destination: Destination) -> Path | None:
    """The file of the network that embedded vectors; None where nobody says, or it is not there."""
    if MANIFEST not in destination.names():
        return None
    with open_manifest(destination) as manifest:
        file = manifest.origin.get("file")
    return Path(file) if file and Path(file).is_file() else None


def write_manifest(
    destination: Destination, shards: Iterable[Shard], origin: Mapping[str, Any]
) -> None:
    """Replace the manifest of a destination by shards, which are taken one at a time."""
    metadata = {_ORIGIN: json.dumps({**origin, "format": FORMAT}, sort_keys=True).encode()}
    with destination.replacing(MANIFEST) as temporary:
        schema = SCHEMA.with_metadata(metadata)
        with pq.ParquetWriter(temporary, schema, write_statistics=False) as writer:
            for shard in shards:
                row = {name: [value] for name, value in vars(shard).items()}
                writer.write_table(pa.table(row, schema=schema))


def cut(
    tables: Iterable[pa.Table], images: int, taken: Collection[str] = frozenset()
) -> Iterator[Shard]:
    """Listed images (`LISTING`) in shards of so many, the last one of what is left.

    taken: the digests of earlier shards. Images that were away and are back as they were make a
    file of their own: the tombstones of the first one stay.
    """
    waiting = pa.table({})
    for table in tables:
        waiting = pa.concat_tables([waiting, table]) if len(waiting) else table
        while len(waiting) >= images:
            yield _shard(waiting.slice(0, images), taken)
            waiting = waiting.slice(images)
    if len(waiting):
        yield _shard(waiting, taken)


def _shard(rows: pa.Table, taken: Collection[str]) -> Shard:
    listed = rows.to_pydict()
    ids, sizes, stamps = listed["id"], listed["bytes"], listed["stamp"]
    digest = hashlib.sha256(json.dumps([ids, sizes, stamps]).encode()).hexdigest()
    while digest in taken:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return Shard(digest, ids, sizes, stamps, [False] * len(ids))
