"""What is made ahead of its use, on threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

VIEWS_AHEAD = 128  # which wait to be embedded
LARGE_PIXELS = 16_000_000  # pictures beyond are decoded one at a time: each may take 0.7 GiB

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], threads: int, ahead: int
) -> Iterator[Made]:
    """`make` of each item, in order, by `threads` threads; by the caller's own with none.

    At most `ahead` results wait while one is used. The first is made alone: what it compiles is
    there for the others. An error of `make` is raised in its turn.
    """
    if threads == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Made]] = deque()
    try:
        for number, item in enumerate(items):
            waiting.append(pool.submit(make, item))
            if number == 0:
                wait(waiting)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
