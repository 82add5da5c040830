"""The engine `ray`: Ray Data hands shards to actors that hold the network, on one machine or many.

On one machine a Ray of its own is started, on loopback and without a dashboard, and stopped at the
end. RAY_ADDRESS names a running cluster, whose machines see the same paths or addresses.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.embedding.local import LocalEngine
from pipeline.embedding.manifest import ShardSummary
from pipeline.embedding.shards import Job, Sample, ShardEmbedder, ShardReport

STORE_BYTES = 128 << 20  # of Ray's shared memory: numbers of shards and reports are all it holds
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # it warns of any actor with arguments, of a path too
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class _Actor:
    """A worker of Ray Data: batches of numbers and digests of shards to reports."""

    def __init__(self, job: Job) -> None:
        self.embedder = ShardEmbedder(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shards = zip(batch["number"], batch["digest"], strict=True)
        reports = [vars(self.embedder.write(int(one), str(digest))) for one, digest in shards]
        return {key: np.array([one[key] for one in reports]) for key in reports[0]}


class RayEngine:
    """So many actors. Used as a context."""

    def __init__(self, job: Job, workers: int) -> None:
        """Raises ModuleNotFoundError without the extra `ray`."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        self.ray, self.job, self.workers = ray, job, workers

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.ray.shutdown()

    def sample(self, shard: ShardSummary, images: int) -> Sample:
        """As `ShardEmbedder.sample`, by a process of this machine."""
        with LocalEngine(self.job, 1) as engine:
            return engine.sample(shard, images)

    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        """Embed shards of the manifest, in any order. A worker that ends is started anew by Ray.

        Raises what `ShardEmbedder` raises.
        """
        self._start()
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        left = [{"number": one.number, "digest": one.digest} for one in shards]
        items = ray.data.from_items(left, override_num_blocks=len(left))
        embedded = items.map_batches(
            _Actor,
            fn_constructor_args=(self.job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            num_cpus=1,
            num_gpus=0 if self.job.is_cpu else 1,
        )
        try:
            for row in embedded.iter_rows():
                yield ShardReport(**{key: int(value) for key, value in row.items()})
        except ray.exceptions.RayError as error:
            if (fault := _own_fault(error)) is None:
                raise
            raise fault from error

    def _start(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if os.environ.get("RAY_ADDRESS"):
            self.ray.init(**quiet)
            return
        self.ray.init(
            address="local",
            num_cpus=self.workers,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )


def _own_fault(error: BaseException) -> ValueError | OSError | None:
    """What `ShardEmbedder` raised in an actor, out of what Ray wraps it in."""
    cause: BaseException | None = error
    while cause is not None:
        inner = getattr(cause, "cause", None)
        for one in (inner, cause):
            if isinstance(one, ValueError | OSError):
                return one
        cause = inner or cause.__cause__
    return None
