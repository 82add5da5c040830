"""Embeddings of the images of a pack under the evaluation view."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.datasets.packs import Pack
from pipeline.models.embedder import unit_range
from pipeline.progress import Progress
from pipeline.views.evaluation import evaluation_view

KEPT_VIEWS_BYTES = 1 << 30


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

    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "batch channel size size"]]:
        for start in range(0, len(self.rows), batch_size):
            yield torch.stack(
                [self._view(int(row)) for row in self.rows[start : start + batch_size]]
            )

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
    batch_size: int = 64,
    name: str | None = None,
) -> Float[Tensor, "image dim"]:
    """Unit embeddings of the views, in their order, float32 on the CPU.

    `name` is what the progress bar is called; without one there is no bar.
    """
    parts = []
    shown = Progress(name, len(views), unit="image") if name else nullcontext()
    with shown as progress, torch.inference_mode():
        for batch in views.batches(batch_size):
            parts.append(network(unit_range(batch, device)).float().cpu())
            if progress:
                progress.advance(len(batch))
    # Outside of inference mode: a plain tensor, which can take part in a later loss.
    return torch.cat(parts).clone()
