"""Batches made ready ahead of the training, on a GPU on streams of their own.

On the stream of the training a thread's smallest copy would wait for every step asked for so far.
A batch is handed over by an event, and its memory stays until the training has used it.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.embedding.ahead import made_ahead

LOADED_AHEAD = 2  # batches made ready for each loading thread


def loaded_ahead(
    load: Callable[[int, np.ndarray], Any],
    batches: list[np.ndarray],
    threads: int,
    device: torch.device,
) -> Iterator[Any]:
    """What `load` makes of each batch's number and rows, in order, a few batches ahead of the need.

    With 0 threads all is made in the caller's thread. On a GPU `load` must give a dataclass whose
    fields hold all tensors that others are to use.
    """
    numbered, ahead = enumerate(batches), LOADED_AHEAD * threads
    if device.type != "cuda" or threads == 0:
        return made_ahead(numbered, lambda item: load(*item), threads, ahead)
    training, streams = torch.cuda.current_stream(device), _streams(device, threads)
    begun = training.record_event()

    def make(item: tuple[int, np.ndarray]) -> tuple[Any, torch.cuda.Event]:
        stream = streams[item[0] % threads]
        with torch.cuda.stream(stream):
            stream.wait_event(begun)  # what the training's stream has made for all batches
            return load(*item), stream.record_event()

    def hand_over(made: tuple[Any, torch.cuda.Event]) -> Any:
        loaded, ready = made
        training.wait_event(ready)
        for value in vars(loaded).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(training)  # its memory may be needed after its last reference
        return loaded

    return map(hand_over, made_ahead(numbered, make, threads, ahead))


@lru_cache
def _streams(device: torch.device, threads: int) -> list[torch.cuda.Stream]:
    """The same ones in every epoch: memory that a stream has used is kept for that stream."""
    return [torch.cuda.Stream(device) for _ in range(threads)]
