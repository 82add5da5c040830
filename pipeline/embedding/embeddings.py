"""Many images to vectors: views are made ahead on threads, and embedded in their order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.datasets.decode import UnreadableImage, decode_image, pixel_count
from pipeline.datasets.packs import Pack
from pipeline.devices import loading_threads
from pipeline.embedding.ahead import LARGE_PIXELS, VIEWS_AHEAD, made_ahead
from pipeline.models.embedder import unit_range
from pipeline.progress import Progress
from pipeline.views.evaluation import evaluation_view

KEPT_VIEWS_BYTES = 1 << 30
BATCH_IMAGES = 64

Embed = Callable[[Tensor], Tensor]  # images between 0 and 1 to unit vectors


class EvaluationViews:
    """The evaluation views of some rows of a pack, by their places among `rows`.

    They are kept in memory if all of them fit in `KEPT_VIEWS_BYTES`.
    """

    def __init__(self, pack: Pack, rows: np.ndarray, size_px: int) -> None:
        self.pack = pack
        self.rows = rows
        self.size_px = size_px
        self._keep = len(rows) * 3 * size_px**2 <= KEPT_VIEWS_BYTES
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> UInt8[Tensor, "channel size size"]:
        view = self._kept.get(place)
        if view is None:
            view = evaluation_view(self.pack.image(int(self.rows[place])), self.size_px)
            if self._keep:
                self._kept[place] = view
        return view


def embed_views(
    network: Embed, views: EvaluationViews, device: torch.device, *, name: str | None = None
) -> Float[Tensor, "image dim"]:
    """Unit embeddings of the views, in their order, float32 on the CPU.

    `name` is what the progress bar is called; without one there is no bar. The threads of
    `loading_threads` decode ahead; the result is the same with any number of them.
    """
    made = made_ahead(range(len(views)), views.__getitem__, loading_threads(device), VIEWS_AHEAD)
    with Progress(name or "", len(views), unit="image", shown=name is not None) as progress:
        return _embed(network, made, device, progress)


@dataclass(frozen=True)
class EmbeddedPictures:
    """Unit vectors, row by row of the pictures `names`, and the pictures that are unreadable."""

    names: list[str]
    vectors: Float[np.ndarray, "image dim"]
    failures: list[UnreadableImage]


def embed_pictures(
    network: Embed,
    names: Sequence[str],
    read: Callable[[str], bytes],
    size_px: int,
    device: torch.device,
) -> EmbeddedPictures:
    """Embed encoded pictures under the evaluation view; those that are unreadable are left out.

    read: gives the encoded picture of a name, or raises UnreadableImage, as decoding it may.
    """
    embedded: list[str] = []
    failures: list[UnreadableImage] = []

    large = threading.Lock()

    def view_of(name: str) -> Tensor | UnreadableImage:
        try:
            encoded = read(name)
            with large if pixel_count(encoded) > LARGE_PIXELS else nullcontext():
                return evaluation_view(decode_image(encoded, name), size_px)
        except UnreadableImage as failure:
            return failure

    def readable() -> Iterator[Tensor]:
        made = made_ahead(names, view_of, loading_threads(device), VIEWS_AHEAD)
        for name, view in zip(names, made, strict=True):
            if isinstance(view, UnreadableImage):
                failures.append(view)
                progress.advance()
            else:
                embedded.append(name)
                yield view

    shown = len(names) > 0
    with Progress("embedding images", len(names), unit="image", shown=shown) as progress:
        vectors = _embed(network, readable(), device, progress).numpy()
    return EmbeddedPictures(embedded, vectors, failures)


def _embed(
    network: Embed,
    views: Iterator[UInt8[Tensor, "channel size size"]],
    device: torch.device,
    progress: Progress,
) -> Float[Tensor, "image dim"]:
    parts = []
    with torch.inference_mode():
        while batch := list(islice(views, BATCH_IMAGES)):
            images = unit_range(torch.stack(batch), device)
            parts.append(network(images).float().cpu())
            progress.advance(len(batch))
    # Outside of inference mode: a plain tensor, which can take part in a later loss.
    return torch.cat(parts).clone() if parts else torch.empty(0, 0)
