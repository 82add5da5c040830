"""What lies beside the vectors of a destination: card, tombstones, unreadable images; and what
must not: vectors that its manifest does not name.
"""

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.vectors import CARD, TOMBSTONES, UNREADABLE, VectorsCard
from pipeline.embedding.destination import Destination
from pipeline.embedding.manifest import OUTPUT_NAME, open_manifest, opened_output, output_name
from pipeline.embedding.shards import unreadable_in

_TOMBSTONE = pa.schema([("id", pa.string()), ("content", pa.string()), ("file", pa.string())])
_FAILURE = pa.schema([("id", pa.string()), ("reason", pa.string())])
_TEMPORARY = re.compile(r"\..+\.\d+\.part")  # of `replacing`


def delete_unnamed(destination: Destination) -> None:
    """Delete the shards' files that the manifest does not name, which readers would take in, and
    on a disk temporary files.

    A worker that outlived its run leaves one, where the shard was cut anew since; processes that
    were killed leave the others.
    """
    names = destination.names()  # before the manifest: what another run adds to both is none
    with open_manifest(destination) as manifest:
        network = manifest.origin["network"]
        named = {output_name(one.digest, network) for one in manifest.summaries()}
    for name in names - named:
        is_left = not destination.is_remote and _TEMPORARY.fullmatch(name)
        if is_left or OUTPUT_NAME.fullmatch(name):
            destination.delete(name)


def write_lists(destination: Destination, network: str, dim: int) -> int:
    """Write card, tombstones and unreadable images by the manifest and the files that are there.

    Returns the number of unreadable images. network: digest of network and preprocessing.
    """
    names = destination.names()
    gone = _write(destination, TOMBSTONES, _TOMBSTONE, _tombstones(destination, network, names))
    failures = _write(destination, UNREADABLE, _FAILURE, _failures(destination, network, names))
    card = VectorsCard(dim=dim, network=network, tombstones=gone)
    destination.put(CARD, (card.model_dump_json(indent=2) + "\n").encode())
    return failures


def _write(
    destination: Destination, name: str, schema: pa.Schema, tables: Iterator[pa.Table]
) -> int:
    """Write a list, a shard at a time; how many rows it has."""
    rows = 0
    with destination.replacing(name) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def _tombstones(
    destination: Destination, network: str, names: frozenset[str]
) -> Iterator[pa.Table]:
    with open_manifest(destination) as manifest:
        for number in range(len(manifest)):
            shard = manifest[number]
            file = output_name(shard.digest, network)
            if not any(shard.gone) or file not in names:
                continue
            gone = {name for name, is_gone in zip(shard.ids, shard.gone, strict=True) if is_gone}
            with opened_output(destination, file) as opened:
                rows = opened.read(columns=["id", "content"]).to_pylist()
            found = [row | {"file": file} for row in rows if row["id"] in gone]
            yield pa.Table.from_pylist(found, schema=_TOMBSTONE)


def _failures(destination: Destination, network: str, names: frozenset[str]) -> Iterator[pa.Table]:
    with open_manifest(destination) as manifest:
        for summary in manifest.summaries():
            file = output_name(summary.digest, network)
            if file not in names:
                continue
            if said := unreadable_in(destination, file):
                shard = manifest[summary.number]
                gone = dict(zip(shard.ids, shard.gone, strict=True))
                found = [{"id": one, "reason": why} for one, why in said.items() if not gone[one]]
                yield pa.Table.from_pylist(found, schema=_FAILURE)
