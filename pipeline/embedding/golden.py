"""Whether vectors on disk are those of their network: an image of each shard is embedded anew."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np

from pipeline.datasets.picture_sources import PictureSource
from pipeline.datasets.reader import DatasetError
from pipeline.datasets.vector_batches import VectorsError, batch_of_rows
from pipeline.datasets.vectors import MANIFEST
from pipeline.embedding.destination import Destination, may_open
from pipeline.embedding.manifest import Shard, open_manifest, opened_output, output_name
from pipeline.embedding.planning import content_now
from pipeline.embedding.shards import Job, Number, ShardEmbedder, vectors_digest
from pipeline.progress import count_text
from pipeline.teachers import teacher_card


class UncheckableError(ValueError):
    """Vectors of which nothing can be embedded anew, in words."""


SAME = 0.999  # cosine: batches, engines and float16 stay above 0.99999


@dataclass(frozen=True)
class GoldenReport:
    """How many shards were checked, how many could not be, as their images have gone or changed,
    and the least cosine between a stored vector and a new one.
    """

    checked: int
    passed_over: int
    least_cosine: float

    def __str__(self) -> str:
        return (
            f"{count_text(self.checked, 'shard')} checked, {self.passed_over} without an image "
            f"that is as it was; least cosine {self.least_cosine:.5f}"
        )


def has_embedded(network: Path, vectors: str) -> bool:
    """Whether vectors are of a network as it is now, by the `network` that their card names. A file
    that is damaged has embedded nothing.
    """
    if not network.exists():
        return False
    digests = {
        vectors_digest(network, number, is_reduced=is_reduced)
        for number in get_args(Number)
        for is_reduced in (False, True)
    }
    with suppress(ValueError):
        return vectors in digests or vectors == teacher_card(network).get("network")
    return False


def check_golden(
    job: Job, is_meant: Callable[[Sequence[str]], bool] = lambda _: True
) -> GoldenReport:
    """Embed an image of each shard anew and hold it against its stored vector.

    By PyTorch, from the network's file. is_meant: whether a shard is, by the ids of its images that
    are not gone; others are not counted. Large JPEGs are decoded as they were. Raises VectorsError
    for a cosine under `SAME`: another network, or another preprocessing; for a network of vectors
    of another length; for a destination without a manifest, or of another source; and
    UncheckableError where nothing was checked.
    """
    names = job.destination.names()
    if MANIFEST not in names:
        address = job.destination.address
        raise VectorsError(f"{address}: holds no {MANIFEST}: `l2s embed` did not write it")
    checked = passed_over = 0
    least = 1.0
    with open_manifest(job.destination) as manifest:
        origin = manifest.origin
    network, source = origin["network"], origin["source"]
    if source != job.source.address:
        raise VectorsError(
            f"{job.destination}: holds vectors of the images in {source}, not of "
            f"{job.source.address}"
        )
    is_reduced = origin.get("is_reduced", job.is_reduced)
    opened = ShardEmbedder(replace(job, is_reduced=is_reduced), by_graph=False)
    opened.read = lru_cache(maxsize=1)(opened.read)  # twice in a row, as `_cosine` does
    with open_manifest(job.destination) as manifest:
        for number in range(len(manifest)):
            shard = manifest[number]
            file = output_name(shard.digest, network)
            held = [one for one, gone in zip(shard.ids, shard.gone, strict=True) if not gone]
            if file not in names or not is_meant(held):
                continue
            cosine = _cosine(opened, shard, file)
            if cosine is None:
                passed_over += 1
                continue
            checked, least = checked + 1, min(least, cosine)
            if not cosine >= SAME:  # of no number, too
                raise VectorsError(
                    f"{job.destination.address}/{file}: an image that is embedded anew has cosine "
                    f"{cosine:.4f} to its stored vector: another network ({job.network}?), or "
                    "another preprocessing"
                )
    if not checked:
        raise UncheckableError(
            f"nothing of {job.destination} was checked: no image in {source} is as it was"
        )
    return GoldenReport(checked, passed_over, least)


def check_folder(
    destination: Destination, is_meant: Callable[[Sequence[str]], bool] = lambda _: True
) -> GoldenReport:
    """As `check_golden`, of a folder of vectors, by what its manifest says of it.

    On the CPU. Raises VectorsError as `check_golden` does, and for a network's file that has been
    replaced since; UncheckableError where nothing was checked: also, `l2s embed` did not write the
    folder, the network or the images are not there any more, or they lie in a store, which nobody
    but the user may name: in another bucket than the vectors.
    """
    if MANIFEST not in destination.names():
        raise UncheckableError(f"`l2s embed` did not write {destination}")
    with open_manifest(destination) as manifest:
        origin = manifest.origin
    file = origin.get("file")
    if file is None:  # of an earlier version
        raise UncheckableError(f"{destination} does not say which network embedded it")
    if not Path(file).is_file():
        raise UncheckableError(f"{file}, which embedded {destination}, is not there")
    if not has_embedded(Path(file), origin["network"]):
        raise VectorsError(
            f"{file}: is another network than the one that embedded {destination}, or this machine "
            "has another version of the package: put that network back, embed into a new folder, "
            "or take the vectors --unchecked"
        )
    source = PictureSource(origin["source"])
    if origin["allow"] or not may_open(source.address, [destination.bucket]):
        raise UncheckableError(
            f"the images lie in a store: `l2s embed SOURCE --to {destination} --check`"
        )
    try:
        return check_golden(Job(source, destination, Path(file)), is_meant)
    except DatasetError as error:
        raise UncheckableError(f"the images are not there: {error}") from error


def _cosine(opened: ShardEmbedder, shard: Shard, file: str) -> float | None:
    """Of the first image that is as it was; None where there is none, NaN of a vector of zeros."""
    with opened_output(opened.job.destination, file) as vectors:
        rows = next(vectors.iter_batches(), None)
    if rows is None:
        return None
    stored = batch_of_rows(rows, "id", "vector", file)
    if (length := stored.vectors.shape[1]) != opened.dim:
        raise VectorsError(
            f"{opened.job.destination}/{file}: its vectors have {length} numbers, those of "
            f"{opened.job.network} {opened.dim}: another network"
        )
    gone = {name for name, is_gone in zip(shard.ids, shard.gone, strict=True) if is_gone}
    for name, content, vector in zip(stored.ids, stored.content, stored.vectors, strict=True):
        if name in gone or content_now(opened.read, name) != content:
            continue
        if (found := opened.embed([name])).content == [content]:
            exact = vector.astype(np.float64)
            with np.errstate(invalid="ignore"):
                return float(np.dot(found.vectors[0], exact) / np.linalg.norm(exact))
    return None
