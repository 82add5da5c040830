"""Processes that train one network together, each on its part of every batch.

Started by torchrun. All draw the same batches and views, and each computes the embeddings of its
own part; the loss is that of the whole batch, and the gradients are summed. Up to rounding, N
processes do what one does, unlike with averages over processes: only dropout and stochastic depth
are drawn by each process for its own images.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

Shared = TypeVar("Shared")
VALIDATION_PATIENCE = timedelta(hours=2)  # the others wait while the main one validates


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size`; the main one, the first, records, validates and writes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part(self, images: int) -> slice:
        """Which of the images of a batch are this process's own; as equal as can be."""
        return slice(*(number * images // self.size for number in (self.rank, self.rank + 1)))

    def gather(
        self, own: Float[Tensor, "own_view dim"], images: int, views: int = 1
    ) -> Float[Tensor, "view dim"]:
        """The rows of all processes in the order of the batch; gradients flow into one's own.

        The batch has `images` images of `views` rows; `own` are those of this process's part.
        """
        if self.size == 1:
            return own
        parts = [ProcessGroup(rank, self.size).part(images) for rank in range(self.size)]
        lengths = [views * (part.stop - part.start) for part in parts]
        padded = own.new_zeros(max(lengths), own.shape[1])
        padded[: len(own)] = own.detach()
        received = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(received, padded)
        rows = [some[:length] for some, length in zip(received, lengths, strict=True)]
        rows[self.rank] = own
        return torch.cat(rows)

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sums = flat.split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))

    def share(self, value: Shared) -> Shared:
        """What the main process has, in all processes."""
        held = [value]
        if self.size > 1:
            dist.broadcast_object_list(held, src=0)
        return held[0]


ALONE = ProcessGroup()


def start_processes(processes: int) -> None:
    """Replace this process by torchrun and `processes` copies of it; return where that is done.

    All on this machine, unless L2S_TORCHRUN holds other options: where the others meet, and how
    many of the processes are here. The same command is then started on each machine.
    """
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        here = f"--standalone --nproc-per-node={processes}"
        options = shlex.split(os.environ.get("L2S_TORCHRUN") or here)
        launcher = [sys.executable, "-m", "torch.distributed.run", *options]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # or torchrun sets it, and warns of it
        os.execv(sys.executable, [*launcher, *sys.orig_argv[1:]])  # noqa: S606


@contextmanager
def joined_group(processes: int, device: torch.device) -> Iterator[ProcessGroup]:
    """The process group that torchrun started this process in, or this process alone.

    NCCL carries what lies on GPUs, gloo what lies in memory: a pool's vectors, checkpoints. Raises
    ValueError where torchrun started another number of processes than `processes` of params.yaml
    says, by which the result is recorded.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        raise ValueError(
            f"compute.processes = {processes} in params.yaml, but {started} of them were started"
        )
    if processes == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=VALIDATION_PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
