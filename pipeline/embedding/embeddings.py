"""Many images to vectors: views are made ahead on threads, and embedded in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.datasets.packs import Pack
from pipeline.devices import loading_threads
from pipeline.models.embedder import unit_range
from pipeline.progress import Progress
from pipeline.views.evaluation import evaluation_view

KEPT_VIEWS_BYTES = 1 << 30
BATCH_IMAGES = 64
BATCHES_AHEAD = 2  # of views that wait to be embedded

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], *, threads: int, ahead: int
) -> Iterator[Made]:
    """`make` of each item, in order, by `threads` threads; by the caller's own with none.

    At most `ahead` results wait while one is used. An error of `make` is raised in its turn.
    """
    if threads == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class EvaluationViews:
    """The evaluation views of some rows of a pack, kept in memory if they fit in `limit_bytes`."""

    def __init__(
        self, pack: Pack, rows: np.ndarray, size_px: int, limit_bytes: int = KEPT_VIEWS_BYTES
    ) -> None:
        self.pack = pack
        self.rows = rows
        self.size_px = size_px
        self._keep = len(rows) * 3 * size_px**2 <= limit_bytes
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, batch_size: int, threads: int = 0
    ) -> Iterator[UInt8[Tensor, "batch channel size size"]]:
        """All the views in the order of the rows, made ahead by `threads` threads."""
        ahead = BATCHES_AHEAD * batch_size
        views = made_ahead(self.rows.tolist(), self._view, threads=threads, ahead=ahead)
        return _batches(views, batch_size)

    def _view(self, row: int) -> UInt8[Tensor, "channel size size"]:
        if row in self._kept:
            return self._kept[row]
        view = evaluation_view(self.pack.image(row), self.size_px)
        if self._keep:
            self._kept[row] = view
        return view


def embed_views(
    network: nn.Module,
    views: EvaluationViews,
    device: torch.device,
    *,
    batch_size: int = BATCH_IMAGES,
    name: str | None = None,
    threads: int | None = None,
) -> Float[Tensor, "image dim"]:
    """Unit embeddings of the views, in their order, float32 on the CPU.

    `name` is what the progress bar is called; without one there is no bar. `threads` decode ahead,
    by default those of `loading_threads`; the result is the same with any number.
    """
    threads = loading_threads(device) if threads is None else threads
    with Progress(name or "", len(views), unit="image", shown=name is not None) as progress:
        return _embed(network, views.batches(batch_size, threads), device, progress)


@dataclass(frozen=True)
class EmbeddedPictures:
    """Unit vectors, row by row of the pictures `names`, and the pictures that are unreadable."""

    names: list[str]
    vectors: Float[np.ndarray, "image dim"]
    failures: list[UnreadableImage]


def embed_pictures(
    network: nn.Module,
    names: Sequence[str],
    read: Callable[[str], bytes],
    size_px: int,
    device: torch.device,
    *,
    threads: int | None = None,
) -> EmbeddedPictures:
    """Embed encoded pictures under the evaluation view; those that are unreadable are left out.

    read: gives the encoded picture of a name, or raises UnreadableImage, as decoding it may.
    threads: as for `embed_views`.
    """
    threads = loading_threads(device) if threads is None else threads
    found = EmbeddedPictures([], np.empty((0, 0), dtype=np.float32), [])
    if not names:
        return found

    def view_of(name: str) -> tuple[str, Tensor | UnreadableImage]:
        try:
            return name, evaluation_view(decode_image(read(name), name), size_px)
        except UnreadableImage as failure:
            return name, failure

    def readable(progress: Progress) -> Iterator[Tensor]:
        ahead = BATCHES_AHEAD * BATCH_IMAGES
        for name, view in made_ahead(names, view_of, threads=threads, ahead=ahead):
            if isinstance(view, UnreadableImage):
                found.failures.append(view)
                progress.advance()
            else:
                found.names.append(name)
                yield view

    with Progress("embedding images", len(names), unit="image") as progress:
        batches = _batches(readable(progress), BATCH_IMAGES)
        vectors = _embed(network, batches, device, progress)
    return EmbeddedPictures(found.names, vectors.numpy(), found.failures)


def _batches(
    views: Iterator[UInt8[Tensor, "channel size size"]], batch_size: int
) -> Iterator[UInt8[Tensor, "batch channel size size"]]:
    while batch := list(islice(views, batch_size)):
        yield torch.stack(batch)


def _embed(
    network: nn.Module,
    batches: Iterable[UInt8[Tensor, "batch channel size size"]],
    device: torch.device,
    progress: Progress,
) -> Float[Tensor, "image dim"]:
    parts = []
    with torch.inference_mode():
        for batch in batches:
            parts.append(network(unit_range(batch, device)).float().cpu())
            progress.advance(len(batch))
    # Outside of inference mode: a plain tensor, which can take part in a later loss.
    return torch.cat(parts).clone() if parts else torch.empty(0, 0)
