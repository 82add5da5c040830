"""The engine `local`: processes of this machine, each with the network and one thread on a CPU."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from types import TracebackType

from pipeline.embedding.manifest import ShardSummary
from pipeline.embedding.shards import (
    Job,
    Sample,
    ShardReport,
    open_embedder,
    sample_shard,
    write_shard,
)


class WorkerEndedError(ValueError):
    """A worker was killed, by the user or for its memory."""


class LocalEngine:
    """So many processes. Used as a context; at its end none is left.

    Shards are handed out in order, a few ahead of those that are done.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self.job, self.workers = job, workers
        self._before = multiprocessing.active_children()
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for process in multiprocessing.active_children():
            if process not in self._before:
                process.terminate()
        # The pool's own thread waits for them: of two that wait for a process, one learns nothing.
        self._pool.shutdown(cancel_futures=True)

    def sample(self, shard: ShardSummary, images: int) -> Sample:
        """As `ShardEmbedder.sample`, by one process, while the others start. Raises
        WorkerEndedError.
        """
        given = (shard.number, shard.digest, images)
        with _endings_in_words():
            sampled = self._pool.submit(sample_shard, self.job, *given)
            for _ in range(1, self.workers):
                self._pool.submit(open_embedder, self.job)
            return sampled.result()

    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        """Embed shards of the manifest, in any order.

        Raises WorkerEndedError, and what `ShardEmbedder` raises.
        """
        left = iter(shards)
        waiting: set[Future[ShardReport]] = set()
        with _endings_in_words():
            while True:
                room = 2 * self.workers - len(waiting)
                waiting |= {
                    self._pool.submit(write_shard, self.job, one.number, one.digest)
                    for one in islice(left, room)
                }
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()


@contextmanager
def _endings_in_words() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerEndedError(
            "a worker was ended from outside, perhaps for its memory (then fewer --workers): "
            "the same command goes on with what is left"
        ) from error


def _end_with_parent() -> None:
    """In a worker: Ctrl-C is the parent's to heed, and a parent that was killed ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
