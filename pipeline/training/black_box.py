"""A student that learns from stored vectors, without the network that made them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.config.losses import least_images
from pipeline.config.recipes import DistillationRecipe
from pipeline.teachers.stored_vectors import StoredVectors, View, open_stored_vectors
from pipeline.training.distillation import StudentBatch, StudentObjective
from pipeline.training.job import TrainingJob
from pipeline.training.named_losses import loss_of
from pipeline.training.projections import fitted_offset, fitted_projection
from pipeline.training.samplers import seeded_generator
from pipeline.training.trainings import Training, TrainingData
from pipeline.views.coupled import Decode, cached_decoder, coupled_views

SEEN_SHARE = 7 / 8  # of the shorter side: what an evaluation view shows of a picture
CLUSTERED = 50_000  # stored vectors, drawn at random, that centroids and banks are of


@dataclass(frozen=True, kw_only=True)
class StoredVectorsObjective(StudentObjective):
    """The target of each view is the image's one vector, in `targets` by the rows of the pack.

    `decode` gives what the teacher saw of an image, inside which the views lie; a mixture has no
    vector.
    """

    targets: Float[np.ndarray, "row dim"]

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


def vectors_training(job: TrainingJob, recipe: DistillationRecipe, data: TrainingData) -> Training:
    """The job's student learns from the vectors that its teacher's file holds of the images."""
    stored, seed = open_stored_vectors(job.paths.teacher), job.seed
    vectors = partial(_clustered, stored, seed, data)
    objective = StoredVectorsObjective(
        decode=seen_by_teacher(cached_decoder(data.pack), stored.card.view),
        rows=data.train,
        targets=stored.rows[: stored.card.images],
        student_px=job.size_px,
        images_per_batch=recipe.images_per_batch,
        images_per_epoch=recipe.images_per_epoch,
        loss=loss_of(recipe.loss.model_dump(), vectors, seed, data.device),
        least_images=least_images(recipe.loss),
        views=job.view_recipe,
        seed=seed,
        device=data.device,
        group=data.group,
    )

    def own(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(stored.rows[rows])

    return Training(
        objective,
        stored.dim,
        own(data.val),
        begin=fitted_projection(job, data, own),
        end=fitted_offset(job, data, own),
    )


def _clustered(stored: StoredVectors, seed: int, data: TrainingData) -> Tensor:
    """Stored vectors that are not those of held-out images, `CLUSTERED` at the most."""
    held_out = np.concatenate([data.val, data.pack.rows("test")])
    kept = np.setdiff1d(np.arange(len(stored.rows)), held_out)
    order = np.random.default_rng(seed).permutation(kept)[:CLUSTERED]
    return torch.from_numpy(stored.rows[np.sort(order)])
