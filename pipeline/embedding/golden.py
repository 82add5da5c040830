"""Whether vectors on disk are those of their network: an image of each shard is embedded anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq

from pipeline.datasets.vector_batches import VectorsError, batch_of_rows
from pipeline.embedding.manifest import Shard, open_manifest, output_name
from pipeline.embedding.shards import Job, Number, ShardEmbedder, vectors_digest
from pipeline.teachers import teacher_card

_TRIED = 4  # images of a shard, until one is as it was
SAME = 0.999  # cosine: batches, engines and float16 stay above 0.99999


@dataclass(frozen=True)
class GoldenReport:
    """How many shards were checked, how many could not be, as their images have gone or changed,
    and the least cosine between a stored vector and a new one.
    """

    checked: int
    passed_over: int
    least_cosine: float


def has_embedded(network: Path, vectors: str) -> bool:
    """Whether vectors are of a network as it is now, by the `network` that their card names."""
    if not network.exists():
        return False
    digests = {
        vectors_digest(network, number, is_reduced=is_reduced)
        for number in get_args(Number)
        for is_reduced in (False, True)
    }
    return vectors in digests or vectors == teacher_card(network).get("network")


def check_golden(job: Job) -> GoldenReport:
    """Embed an image of each shard anew and hold it against its stored vector.

    By PyTorch, from the network's file. Raises VectorsError for a cosine under `SAME`: another
    network, or another preprocessing.
    """
    opened = ShardEmbedder(job, by_graph=False)
    names = job.destination.names()
    checked = passed_over = 0
    least = 1.0
    with open_manifest(job.destination) as manifest:
        network = manifest.origin["network"]
        for number in range(len(manifest)):
            shard = manifest[number]
            file = output_name(shard.digest, network)
            if file not in names:
                continue
            cosine = _cosine(opened, shard, file)
            if cosine is None:
                passed_over += 1
                continue
            checked, least = checked + 1, min(least, cosine)
            if cosine < SAME:
                raise VectorsError(
                    f"{job.destination.address}/{file}: an image that is embedded anew has cosine "
                    f"{cosine:.4f} to its stored vector: another network ({job.network}?), or "
                    "another preprocessing"
                )
    return GoldenReport(checked, passed_over, least)


def _cosine(opened: ShardEmbedder, shard: Shard, file: str) -> float | None:
    """Of the first image that is as it was; None where there is none among the first few."""
    with opened.job.destination.opened(file) as vectors:
        rows = next(pq.ParquetFile(vectors).iter_batches(_TRIED), None)
    if rows is None:
        return None
    stored = batch_of_rows(rows, "id", "vector", file)
    found = opened.embed(stored.ids)
    anew = dict(zip(found.ids, zip(found.content, found.vectors, strict=True), strict=True))
    for name, content, vector in zip(stored.ids, stored.content, stored.vectors, strict=True):
        now = anew.get(name)
        if now is not None and now[0] == content:
            exact = vector.astype(np.float64)
            return float(np.dot(now[1], exact) / np.linalg.norm(exact))
    return None
