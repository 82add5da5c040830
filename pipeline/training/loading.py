"""Batches made ready ahead of the training, in threads that on a GPU work on streams of their own.

On the stream of the training a thread's smallest copy would wait for every step asked for so far.
A batch is handed over by an event, and its memory stays until the training has used it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOADED_AHEAD = 2  # batches made ready for each loading thread

Load = Callable[[int, np.ndarray], Any]


def loading_pool(threads: int, device: torch.device) -> ThreadPoolExecutor:
    """`threads` threads, at least one, for a training on `device`."""
    begin = partial(_use_own_stream, device) if device.type == "cuda" else None
    return ThreadPoolExecutor(max(1, threads), initializer=begin)


def _use_own_stream(device: torch.device) -> None:
    torch.cuda.set_stream(torch.cuda.Stream(device))  # a thread's stream is its own affair


def loaded_ahead(
    load: Load,
    batches: list[np.ndarray],
    loaders: ThreadPoolExecutor,
    threads: int,
    device: torch.device,
) -> Iterator[Any]:
    """What `load` makes of each batch's number and rows, in order, a few batches ahead of the need.

    loaders: from `loading_pool`; with 0 threads all is made in the caller's thread instead. On a
    GPU `load` must give a dataclass whose fields hold all tensors that others are to use.
    """
    if threads == 0:
        yield from (load(number, rows) for number, rows in enumerate(batches))
        return
    begun = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
    waiting: deque[Future[tuple[Any, torch.cuda.Event | None]]] = deque()
    try:
        for number, rows in enumerate(batches):
            waiting.append(loaders.submit(_load, load, number, rows, begun, device))
            if number == 0:  # alone, or each thread compiles the same network
                wait(waiting)
            if len(waiting) > LOADED_AHEAD * threads:
                yield _hand_over(*waiting.popleft().result(), device)
        while waiting:
            yield _hand_over(*waiting.popleft().result(), device)
    finally:
        for future in waiting:
            future.cancel()


def _load(
    load: Load,
    number: int,
    rows: np.ndarray,
    begun: torch.cuda.Event | None,
    device: torch.device,
) -> tuple[Any, torch.cuda.Event | None]:
    """A batch and, on a GPU, the event after which its tensors are there."""
    if begun is None:
        return load(number, rows), None
    stream = torch.cuda.current_stream(device)
    stream.wait_event(begun)  # what the training's stream has made for all batches
    return load(number, rows), stream.record_event()


def _hand_over(loaded: Any, ready: torch.cuda.Event | None, device: torch.device) -> Any:
    """The batch, for use on the caller's stream."""
    if ready is not None:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(ready)
        for value in vars(loaded).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(stream)  # its memory may be needed after its last reference
    return loaded
