"""A student that learns from stored vectors, without the network that made them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.config.losses import least_images
from pipeline.config.recipes import DistillationRecipe
from pipeline.teachers.stored_vectors import StoredVectors, View, open_stored_vectors
from pipeline.training.centroids import cluster_centroids
from pipeline.training.distillation import StudentBatch
from pipeline.training.job import TrainingData, TrainingJob, run_training
from pipeline.training.named_losses import TERMS, Terms
from pipeline.training.process_group import ALONE, ProcessGroup
from pipeline.training.samplers import seeded_generator, shuffled_batches
from pipeline.views.coupled import Decode, ViewRecipe, cached_decoder, coupled_views

SEEN_SHARE = 7 / 8  # of the shorter side: what an evaluation view shows of a picture
CLUSTERED = 50_000  # stored vectors, drawn at random, that centroids are of


@dataclass(frozen=True)
class StoredVectorsObjective:
    """`loss` between a student's embeddings of the views of an image and the image's one vector.

    decode: what the teacher saw of an image, inside which the views lie; a mixture has no vector.
    targets: by the rows of the pack. The other fields are those of `DistillationObjective`.
    """

    decode: Decode
    rows: np.ndarray
    targets: Float[np.ndarray, "row dim"]
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
        return shuffled_batches(self.rows, size, generator, limit, self.least_images)

    def begin_epoch(self, epoch: int, network: nn.Module) -> None:
        """Nothing depends on the student's state."""

    def load(self, epoch: int, number: int, rows: np.ndarray) -> StudentBatch:
        generator = seeded_generator(self.seed, "views", epoch, number)
        sizes, part = (self.student_px,), self.group.part(len(rows))
        (small,) = coupled_views(
            self.decode, rows, self.rows, sizes, self.views, generator, self.device, part
        )
        targets = torch.from_numpy(self.targets[rows[part]]).to(self.device)
        return StudentBatch(
            small.contiguous(memory_format=torch.channels_last),
            targets.repeat_interleave(self.views.views, dim=0),
            len(rows),
        )

    def terms(self, network: nn.Module, loaded: StudentBatch) -> Terms:
        own = network(loaded.views), loaded.targets
        shape = (loaded.images, self.views.views)
        embeddings, targets = (self.group.gather(rows, *shape).unflatten(0, shape) for rows in own)
        return self.loss(embeddings, targets)


def seen_by_teacher(decode: Decode, view: View) -> Decode:
    """What the teacher saw of each image: the central square that an evaluation view shows, or all
    of it, as it was squashed.
    """

    def seen(row: int) -> UInt8[Tensor, "channel height width"]:
        image = decode(row)
        if view == "squashed":
            return image
        height, width = image.shape[1:]
        side = max(1, round(SEEN_SHARE * min(height, width)))
        top, left = (height - side) // 2, (width - side) // 2
        return image[:, top : top + side, left : left + side]

    return seen


def distil_from_vectors(job: TrainingJob, recipe: DistillationRecipe, data: TrainingData) -> None:
    """Train the job's student on the vectors that its teacher's file holds of the pack's images."""
    stored = open_stored_vectors(job.paths.teacher)
    objective = StoredVectorsObjective(
        decode=seen_by_teacher(cached_decoder(data.pack), stored.card.view),
        rows=data.train,
        targets=stored.rows[: stored.card.images],
        student_px=job.size_px,
        images_per_batch=recipe.images_per_batch,
        images_per_epoch=recipe.images_per_epoch,
        loss=_loss(recipe, stored, job.params.seed, data),
        least_images=least_images(recipe.loss),
        views=job.view_recipe,
        seed=job.params.seed,
        device=data.device,
        group=data.group,
    )
    run_training(job, data, objective, stored.dim, torch.from_numpy(stored.rows[data.val]))


def _loss(
    recipe: DistillationRecipe, stored: StoredVectors, seed: int, data: TrainingData
) -> Callable[[Tensor, Tensor], Terms]:
    values = recipe.loss.model_dump(exclude={"kind"})
    if "centroids" in values:  # so many, of vectors that are not those of held-out images
        kept = np.setdiff1d(np.arange(len(stored.rows)), data.val)
        order = np.random.default_rng(seed).permutation(kept)[:CLUSTERED]
        vectors = torch.from_numpy(stored.rows[np.sort(order)])
        values["centroids"] = cluster_centroids(vectors, values["centroids"], seed).to(data.device)
    return partial(TERMS[recipe.loss.kind], **values)
