"""A network that learns from labels: the teacher, and the baseline of each small size."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.training.process_group import ALONE, ProcessGroup
from pipeline.training.samplers import class_balanced_batches, seeded_generator
from pipeline.training.triplet import draw_negatives, form_triplets, triplet_loss
from pipeline.views.coupled import Decode, ViewRecipe, coupled_views


@dataclass(frozen=True)
class TripletBatch:
    """Views of `anchors` images and, after them, of the negatives drawn for them, if any were.

    `views` are those of a process's part of them, `labels` those of all.
    """

    views: Float[Tensor, "own_view channel height width"]
    labels: Int[Tensor, "batch"]
    anchors: int
    negative: Int[Tensor, "anchor negative"] | None
    generator: torch.Generator


@dataclass(frozen=True)
class LabelledBatch:
    """Views of a process's part of a batch, and the labels of all of it."""

    views: Float[Tensor, "own_view channel height width"]
    labels: Int[Tensor, "batch"]


@dataclass(kw_only=True)
class SupervisedObjective:
    """Batches of as many images of each of some classes, seen in one view each.

    `rows` are the training images of the pack, `labels` those of all its images.
    """

    decode: Decode
    labels: np.ndarray
    rows: np.ndarray
    size_px: int
    classes_per_batch: int
    images_per_class: int
    views: ViewRecipe
    seed: int
    device: torch.device
    group: ProcessGroup = ALONE

    def batches(self, epoch: int) -> list[np.ndarray]:
        sizes = self.classes_per_batch, self.images_per_class
        generator = seeded_generator(self.seed, "order", epoch)
        return class_balanced_batches(self.labels, self.rows, *sizes, generator)

    def made_views(
        self, images: np.ndarray, generator: torch.Generator
    ) -> Float[Tensor, "own_view channel height width"]:
        """The views of this process's part of the images."""
        sizes, part = (self.size_px,), self.group.part(len(images))
        (views,) = coupled_views(
            self.decode, images, self.rows, sizes, self.views, generator, self.device, part
        )
        return views.contiguous(memory_format=torch.channels_last)


@dataclass(kw_only=True)
class TripletObjective(SupervisedObjective):
    """Triplet loss with distance-weighted negatives (METHOD section 3).

    With `negative_pool` "dataset" the negatives come from all of `rows`, embedded by `embed_pool`
    at the start of each epoch; with "batch" they come from the batch itself.
    """

    margin: float
    negatives_per_anchor: int
    negative_pool: Literal["dataset", "batch"]
    distance_floor: float
    embed_pool: Callable[[nn.Module], Float[Tensor, "image dim"]]
    _pool: Tensor | None = field(default=None, init=False)

    def begin_epoch(self, epoch: int, network: nn.Module) -> None:
        if self.negative_pool == "dataset":
            pool = self.embed_pool(network.eval())
            self._pool = pool.double()  # once an epoch: the draw for each batch computes in it

    def load(self, epoch: int, number: int, rows: np.ndarray) -> TripletBatch:
        generator = seeded_generator(self.seed, "views", epoch, number)
        negative = None
        images = rows
        if self.negative_pool == "dataset":
            assert self._pool is not None
            anchors = self._pool[np.searchsorted(self.rows, rows)]
            differs = self.labels[rows][:, None] != self.labels[self.rows]
            places = self._draw(anchors, self._pool, torch.from_numpy(differs), generator)
            chosen = self.rows[places.numpy()]
            others, place = np.unique(chosen, return_inverse=True)
            negative = torch.from_numpy(place.reshape(chosen.shape) + len(rows))
            images = np.concatenate([rows, others])
        views = self.made_views(images, generator)
        labels = torch.from_numpy(self.labels[images])
        return TripletBatch(views, labels, len(rows), negative, generator)

    def terms(self, network: nn.Module, loaded: TripletBatch) -> dict[str, Float[Tensor, ""]]:
        embeddings = self.group.gather(network(loaded.views), len(loaded.labels))
        negative = loaded.negative
        if negative is None:
            pool = embeddings.detach()
            differs = loaded.labels[:, None] != loaded.labels
            negative = self._draw(pool, pool, differs, loaded.generator)
        triplets = form_triplets(loaded.labels, loaded.anchors, negative)
        return {"triplet": triplet_loss(embeddings, *triplets, self.margin)}

    def _draw(
        self, anchors: Tensor, pool: Tensor, is_negative: Tensor, generator: torch.Generator
    ) -> Int[Tensor, "anchor negative"]:
        """Rows of `pool` for each anchor."""
        drawn, floor = self.negatives_per_anchor, self.distance_floor
        differs = is_negative.to(pool.device)
        return draw_negatives(
            anchors, pool, differs, negatives=drawn, floor=floor, generator=generator
        )


@dataclass(kw_only=True)
class LabelledObjective(SupervisedObjective):
    """A loss of a batch's embeddings and of its labels, which it has from 0 on, without a gap.

    `name` is the loss's in the table of epochs.
    """

    name: str
    loss: nn.Module

    def begin_epoch(self, epoch: int, network: nn.Module) -> None:
        """Nothing depends on the network's state."""

    def load(self, epoch: int, number: int, rows: np.ndarray) -> LabelledBatch:
        generator = seeded_generator(self.seed, "views", epoch, number)
        views = self.made_views(rows, generator)
        numbers = np.searchsorted(np.unique(self.labels[self.rows]), self.labels[rows])
        labels = torch.from_numpy(numbers).to(self.device)
        return LabelledBatch(views, labels)

    def terms(self, network: nn.Module, loaded: LabelledBatch) -> dict[str, Float[Tensor, ""]]:
        embeddings = self.group.gather(network(loaded.views), len(loaded.labels))
        return {self.name: self.loss(embeddings, loaded.labels)}
