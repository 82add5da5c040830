"""A student that learns from a fixed teacher, over coupled views, without labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.training.named_losses import Terms
from pipeline.training.process_group import ALONE, ProcessGroup
from pipeline.training.samplers import seeded_generator, shuffled_batches
from pipeline.views.coupled import Decode, ViewRecipe, coupled_views


@dataclass(frozen=True)
class StudentBatch:
    """Small views, image by image, and the teacher's embeddings of their large counterparts.

    They are those of a process's part of a batch of `images` images.
    """

    views: Float[Tensor, "image_view channel height width"]
    targets: Float[Tensor, "image_view dim"]
    images: int


@dataclass(frozen=True, kw_only=True)
class StudentObjective:
    """`loss` between a student's embeddings of the views of images and the targets of the views.

    `rows` are the training images, of which an epoch visits `images_per_epoch`, or all for None.
    `loss` is one of `pipeline.training.named_losses` with its values; it compares `least_images`
    images of a batch or more. What the targets are is a subclass's: its `load` makes a batch.
    """

    decode: Decode
    rows: np.ndarray
    student_px: int
    images_per_batch: int
    images_per_epoch: int | None
    loss: Callable[[Tensor, Tensor], Terms]
    views: ViewRecipe
    seed: int
    device: torch.device
    least_images: int = 1
    group: ProcessGroup = ALONE

    def batches(self, epoch: int) -> list[np.ndarray]:
        size, limit = self.images_per_batch, self.images_per_epoch
        generator = seeded_generator(self.seed, "order", epoch)
        least = max(self.least_images, min(2, size))  # live batch norm has no spread of one image
        return shuffled_batches(self.rows, size, generator, limit, least)

    def begin_epoch(self, epoch: int, network: nn.Module) -> None:
        """Nothing depends on the student's state."""

    def terms(self, network: nn.Module, loaded: StudentBatch) -> Terms:
        own = network(loaded.views), loaded.targets
        shape = (loaded.images, self.views.views)
        embeddings, targets = (self.group.gather(rows, *shape).unflatten(0, shape) for rows in own)
        return self.loss(embeddings, targets)


@dataclass(frozen=True, kw_only=True)
class DistillationObjective(StudentObjective):
    """The targets are the embeddings of the large views by `teacher` (METHOD section 4).

    The teacher runs without a graph, in the loading threads, side by side with the student.
    """

    teacher: Callable[[Tensor], Tensor]
    teacher_px: int

    def load(self, epoch: int, number: int, rows: np.ndarray) -> StudentBatch:
        generator = seeded_generator(self.seed, "views", epoch, number)
        sizes, part = (self.teacher_px, self.student_px), self.group.part(len(rows))
        with torch.no_grad():  # not inference mode: the student's graph keeps its views
            made = coupled_views(
                self.decode, rows, self.rows, sizes, self.views, generator, self.device, part
            )
            large, small = (views.contiguous(memory_format=torch.channels_last) for views in made)
            with torch.inference_mode():
                targets = self.teacher(large)
            return StudentBatch(small, targets.clone(), len(rows))
