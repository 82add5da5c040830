"""One shard of images to its file of vectors: the same bytes on every engine and at every try."""

import hashlib
import io
import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from pipeline.datasets.decode import UnreadableImage, decode_image, pixel_count
from pipeline.datasets.picture_sources import PictureSource
from pipeline.embedding.ahead import LARGE_PIXELS, VIEWS_AHEAD, made_ahead
from pipeline.embedding.destination import Destination
from pipeline.embedding.manifest import Shard, open_manifest, opened_output, output_name
from pipeline.files import known_md5
from pipeline.models.encoders import Encoder
from pipeline.models.query_encoder import (
    BATCH_IMAGES,
    QueryEncoder,
    least_decoded_px,
    square_view,
)
from pipeline.teachers import teacher_card

Number = Literal["float16", "float32"]
UNREADABLE_KEY = b"unreadable"  # of a file's metadata: a list of ids and reasons
# How reasons of `read_file` and `read_object` begin that may pass while the image stays as it is.
NOT_READ = ("cannot be read: ", "there is no ")
VIEW_FORM = 1  # to be raised with a change of decoding or view that changes vectors
LOADING_THREADS = 8  # that wait for a store, or decode beside a GPU
GRAPH = "network.onnx"  # of a destination: what its vectors were computed with on CPUs


def vectors_digest(network: Path, number: Number, *, is_reduced: bool) -> str:
    """The digest of a network and its preprocessing that stands on the card of its vectors."""
    parts = [known_md5(network), VIEW_FORM, number, is_reduced]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Job:
    """What every worker is told: paths and addresses, no objects.

    network: the file of a teacher or student, absolute. number: of the vectors. is_reduced: large
    JPEGs are decoded smaller. is_cpu: a worker computes with one thread.
    """

    source: PictureSource
    destination: Destination
    network: Path
    number: Number = "float16"
    is_reduced: bool = False
    is_cpu: bool = True

    @property
    def dim(self) -> int:
        return int(teacher_card(self.network)["dim"])

    def digest(self) -> str:
        """What vectors depend on beside the image: network, view, decoding, number."""
        return vectors_digest(self.network, self.number, is_reduced=self.is_reduced)


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard; `memory_bytes`: the most that the worker has held so far."""

    number: int
    images: int
    unreadable: int
    memory_bytes: int


@dataclass(frozen=True)
class Sample:
    """What embedding some images took: seconds an image, and the worker's memory."""

    image_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of the images that could be read, in order, and hashes of their bytes."""

    ids: list[str]
    vectors: Float[np.ndarray, "image dim"]
    content: list[str]
    failures: list[UnreadableImage]


class ShardEmbedder:
    """An open network and source. On a CPU it computes with one thread.

    by_graph: on a CPU the ONNX of the destination computes, if it has one.
    """

    def __init__(self, job: Job, *, by_graph: bool = True) -> None:
        """Raises ValueError for a network that embeds nothing, and a device that is not there."""
        self.job, self.encoder = job, _open_encoder(job, by_graph=by_graph)
        self.dim, self.digest = job.dim, job.digest()  # last: so what is replaced meanwhile is told
        self.read = job.source.open()
        may_gain = job.source.is_remote or job.source.allow or not job.is_cpu
        self.threads = LOADING_THREADS if may_gain and not job.source.is_sequential else 0
        self._large = threading.Lock()

    def write(self, number: int, digest: str) -> ShardReport:
        """Embed a shard of the manifest, by its number and digest, and write its file.

        Raises DatasetError for a store that cannot be reached, ValueError for vectors that are not
        finite, and where the manifest is of another network, or has another shard of this number.
        """
        shard = self._meant(number, digest)
        found = self.embed(shard.ids)
        self._meant(number, digest)  # embedding took its time
        self.job.destination.put(
            output_name(digest, self.digest), vectors_file(found, self.job.number)
        )
        return ShardReport(number, len(shard.ids), len(found.failures), peak_bytes())

    def _meant(self, number: int, digest: str) -> Shard:
        with open_manifest(self.job.destination) as manifest:
            _require_network(self.job, self.digest, manifest.origin["network"])
            shard = manifest[number] if number < len(manifest) else None
        if shard is None or shard.digest != digest:
            raise ValueError(
                f"{self.job.destination}: shard {number} was cut anew by another run: the same "
                "command goes on with what is left"
            )
        return shard

    def sample(self, number: int, digest: str, images: int) -> Sample:
        """Embed the first images of a shard twice, and time the second go. Raises as `write`."""
        ids = self._meant(number, digest).ids[:images]
        self.embed(ids)
        started_s = time.perf_counter()
        self.embed(ids)
        return Sample((time.perf_counter() - started_s) / len(ids), peak_bytes())

    def embed(self, ids: Sequence[str]) -> Embedded:
        """Embed images in batches that depend on nothing but the images."""
        found = Embedded([], np.empty((0, self.dim), np.float32), [], [])
        parts = [found.vectors]
        made = made_ahead(ids, self._view, self.threads, VIEWS_AHEAD)
        while some := list(islice(made, BATCH_IMAGES)):
            views = []
            for one in some:
                if isinstance(one, UnreadableImage):
                    found.failures.append(one)
                    continue
                name, content, view = one
                found.ids.append(name)
                found.content.append(content)
                views.append(view)
            if views:
                parts.append(self.encoder.embed(np.stack(views)))
        vectors = np.concatenate(parts)
        if not np.isfinite(vectors).all():
            bad = found.ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
            raise ValueError(f"{self.job.network}: gives numbers that are not finite for {bad}")
        return Embedded(found.ids, vectors, found.content, found.failures)

    def _view(self, name: str) -> tuple[str, str, np.ndarray] | UnreadableImage:
        size_px = self.encoder.size_px
        least_px = least_decoded_px(size_px) if self.job.is_reduced else None
        try:
            encoded = self.read(name)
            is_large = self.threads and pixel_count(encoded) > LARGE_PIXELS
            with self._large if is_large else nullcontext():
                view = square_view(decode_image(encoded, name, least_px=least_px), size_px)
        except UnreadableImage as failure:
            return failure
        return name, hashlib.sha256(encoded).hexdigest(), view


def _require_network(job: Job, digest: str, begun: str) -> None:
    if digest != begun:
        raise ValueError(
            f"{job.network}: is not the network that {job.destination} was begun with, or this "
            "machine has another version of the package: put that network back, or embed into a "
            "new folder"
        )


def prepare_graph(job: Job, digest: str) -> None:
    """Put the network into the destination as ONNX, which CPUs run in half the time of PyTorch.

    It stays, so that the bytes stay. An empty file where the network is no one of ours, cannot be
    written so that it embeds alike, or ONNX Runtime is not installed: PyTorch then embeds.

    Raises ValueError for a network of which `digest` is not any more.
    """
    if GRAPH in job.destination.names():
        return
    content = b""
    if teacher_card(job.network)["kind"] == "network" and find_spec("onnxruntime") is not None:
        import torch

        from pipeline.models.torch_encoder import equal_onnx
        from pipeline.models.weights import load_network

        network, card = load_network(job.network, torch.device("cpu"))
        content = equal_onnx(network, card.size_px)
    _require_network(job, job.digest(), digest)
    job.destination.put(GRAPH, content)


def _open_encoder(job: Job, *, by_graph: bool) -> Encoder:
    if by_graph and job.is_cpu and (graph := job.destination.read(GRAPH)):
        return QueryEncoder(graph, threads=1)
    import torch

    from pipeline.devices import resolve_device
    from pipeline.models.embedder import Embedder
    from pipeline.models.folding import folded
    from pipeline.teachers.teacher import open_teacher

    torch.set_num_threads(1)
    teacher = open_teacher(job.network, torch.device("cpu") if job.is_cpu else resolve_device(1))
    if isinstance(teacher.network, Embedder):
        return replace(teacher, network=folded(teacher.network, teacher.size_px))
    return teacher


def vectors_file(found: Embedded, number: Number) -> bytes:
    """The Parquet file of a shard; equal vectors give equal bytes."""
    dim = found.vectors.shape[1]
    kind = pa.list_(pa.float16() if number == "float16" else pa.float32(), dim)
    failures = json.dumps([[one.name, one.reason] for one in found.failures]).encode()
    schema = pa.schema(
        [("id", pa.string()), ("vector", kind), ("content", pa.string())],
        metadata={UNREADABLE_KEY: failures},
    )
    values = pa.array(found.vectors.astype(number).ravel())
    listed = pa.FixedSizeListArray.from_arrays(values, dim)
    columns = [pa.array(found.ids, pa.string()), listed, pa.array(found.content, pa.string())]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def unreadable_in(destination: Destination, file: str) -> dict[str, str]:
    """Of a shard's file the images that have no row, as they were unreadable: ids and reasons."""
    with opened_output(destination, file) as opened:
        return dict(json.loads(opened.schema_arrow.metadata[UNREADABLE_KEY]))


@lru_cache(maxsize=1)
def embedder(job: Job) -> ShardEmbedder:
    """The worker's own, opened with its first shard."""
    return ShardEmbedder(job)


def open_embedder(job: Job) -> None:
    """Ready this process for its first shard, which otherwise does it."""
    embedder(job)


def write_shard(job: Job, number: int, digest: str) -> ShardReport:
    """As `ShardEmbedder.write`, in a process that is told no more."""
    return embedder(job).write(number, digest)


def sample_shard(job: Job, number: int, digest: str, images: int) -> Sample:
    """As `ShardEmbedder.sample`."""
    return embedder(job).sample(number, digest, images)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # rusage would count what its parent held when it was started
        said = status.read_text(encoding="ascii", errors="replace")
        return int(said.partition("VmHWM:")[2].split()[0]) << 10
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
