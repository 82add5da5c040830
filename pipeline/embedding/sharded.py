"""A source to vectors, shard by shard: killed at any moment, the next start goes on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pipeline.datasets.vectors import CARD
from pipeline.embedding.lists import delete_unnamed, write_lists
from pipeline.embedding.local import LocalEngine
from pipeline.embedding.manifest import SHARD_IMAGES, ShardSummary, open_manifest, output_name
from pipeline.embedding.planning import Changes, plan
from pipeline.embedding.shards import Job, Sample, ShardReport, peak_bytes, prepare_graph
from pipeline.progress import Progress, count_text, time_text

SAMPLED = 64  # images, for the estimate
_ROW_BYTES = 96  # of an id and a hash
_NEXT_UNIT = 999.5  # what three digits would show as 1e+03


class Engine(Protocol):
    """What distributes shards."""

    def sample(self, shard: ShardSummary, images: int) -> Sample: ...

    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]: ...


@dataclass(frozen=True)
class EmbeddingReport:
    """What a run did: `embedded` images of `changes.images`; all unreadable ones of the source."""

    changes: Changes
    shards: int
    embedded: int
    unreadable: int
    worker_bytes: int


def embed_source(
    job: Job,
    *,
    engine: Callable[[Job, int], AbstractContextManager[Engine]] = LocalEngine,
    workers: int = 1,
    shard_images: int = SHARD_IMAGES,
    tell: Callable[[str], None] = lambda _: None,
) -> EmbeddingReport:
    """Embed what a destination lacks of a source; `tell` gets the estimate before it starts.

    engine: what distributes the shards, given job and workers.

    Raises ValueError as `plan` and `ShardEmbedder` do, and WorkerEndedError.
    """
    digest, dim = job.digest(), job.dim
    with job.destination.alone():
        changes = plan(job, shard_images)
        tell(
            f"{count_text(changes.images, 'image')}: {changes.added} new, "
            f"{changes.changed} changed, {changes.deleted} deleted"
        )
        prepare_graph(job, digest)
        delete_unnamed(job.destination)
        names = job.destination.names()
        if CARD in names:
            write_lists(job.destination, digest, dim)  # readers are given nothing that is gone
        with open_manifest(job.destination) as manifest:
            cut = manifest.summaries()
            pending = [one for one in cut if output_name(one.digest, digest) not in names]
        left, embedded, most = sum(one.images for one in pending), 0, 0
        if pending:
            workers = min(workers, len(pending))
            with engine(job, workers) as opened:
                first = pending[0]
                sample = opened.sample(first, min(SAMPLED, first.images))
                for line in estimate(job, pending, sample, workers):
                    tell(line)
                with Progress("embedding", left, unit="image") as progress:
                    for report in opened.write(pending):
                        most = max(most, report.memory_bytes)
                        embedded += report.images - report.unreadable
                        progress.advance(report.images)
        delete_unnamed(job.destination)
        unreadable = write_lists(job.destination, digest, dim)
    return EmbeddingReport(changes, len(pending), embedded, unreadable, most)


def estimate(
    job: Job, pending: Sequence[ShardSummary], sample: Sample, workers: int
) -> Iterator[str]:
    """What the shards that are left will take, in words: bytes, time and memory."""
    images, read_bytes = sum(one.images for one in pending), sum(one.bytes for one in pending)
    read = f", {size_text(read_bytes)} to read" if read_bytes else ""
    number_bytes = 2 if job.number == "float16" else 4
    written = images * (job.dim * number_bytes + _ROW_BYTES)
    what = f"{count_text(images, 'image')} in {count_text(len(pending), 'shard')}"
    yield f"to embed: {what}{read}, {size_text(written)} to write"
    time_s = images * sample.image_s / workers
    memory = workers * sample.memory_bytes + peak_bytes()
    each = sample.image_s
    each_text = f"{1000 * each:.3g} ms" if each < _NEXT_UNIT / 1000 else f"{each:.3g} s"
    yield (
        f"estimate: {time_text(time_s)} ({each_text} an image and worker, "
        f"{count_text(workers, 'worker')}), {size_text(memory)} of memory"
    )


def size_text(count: float) -> str:
    """Bytes in the smallest unit of which there are less than a thousand."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < _NEXT_UNIT:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1024
    return f"{count:.3g} TiB"
