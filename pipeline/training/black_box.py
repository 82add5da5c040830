"""A student that learns from stored vectors, without the network that made them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.config.losses import least_images
from pipeline.config.recipes import DistillationRecipe
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.models.embedder import Embedder
from pipeline.teachers.stored_vectors import StoredVectors, View, open_stored_vectors
from pipeline.training.distillation import StudentBatch, StudentObjective
from pipeline.training.job import TrainingJob
from pipeline.training.named_losses import loss_of
from pipeline.training.samplers import seeded_generator
from pipeline.training.trainings import Training, TrainingData
from pipeline.views.coupled import Decode, cached_decoder, coupled_views

SEEN_SHARE = 7 / 8  # of the shorter side: what an evaluation view shows of a picture
FITTED = 5000  # training images, that the projection is fitted to at first
# Shares of the mean diagonal of X'X, of which the one is taken that does best on left-out images.
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CHOSEN_ON = 1000  # of these images
CLUSTERED = 50_000  # stored vectors, drawn at random, that centroids are of


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
    database = torch.from_numpy(stored.rows[data.val])
    return Training(objective, stored.dim, database, solve=partial(_fit, stored, data, job))


def _fit(stored: StoredVectors, data: TrainingData, job: TrainingJob, network: Embedder) -> None:
    """Fit the student's projection to the vectors of training images, `FITTED` at the most: before
    the first step, and again to what its features have become.
    """
    order = np.random.default_rng(job.seed).permutation(data.train)
    rows = np.sort(order[:FITTED])
    views = EvaluationViews(data.pack, rows, job.size_px)
    network.eval().to(data.device)
    features = embed_views(network.pooled, views, data.device)
    fit_projection(network, features, torch.from_numpy(stored.rows[rows]))


def _clustered(stored: StoredVectors, seed: int, data: TrainingData) -> Tensor:
    """Stored vectors that are not those of held-out images, `CLUSTERED` at the most."""
    held_out = np.concatenate([data.val, data.pack.rows("test")])
    kept = np.setdiff1d(np.arange(len(stored.rows)), held_out)
    order = np.random.default_rng(seed).permutation(kept)[:CLUSTERED]
    return torch.from_numpy(stored.rows[np.sort(order)])


def fit_projection(
    network: Embedder,
    features: Float[Tensor, "image feature"],
    targets: Float[Tensor, "image dim"],
) -> None:
    """Set the projection to the ridge regression of the vectors on pooled features, in float64.

    W = (X'X + r I)^-1 X'Y for centred rows, where a random projection would have to be learned
    first. r is the mean of the diagonal of X'X times the one of `RIDGES` by which images that are
    left out of the fit find most of what their vectors find, by rank-biased overlap; left out, an
    image is given y_i - (y_i - f_i) / (1 - h_i), f_i being the fit and h_i its leverage.

    Source: Allen, The Relationship between Variable Selection and Data Augmentation and a Method
    for Prediction (1974): the closed form of leaving one out.
    """
    x, y = features.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    scales, axes = torch.linalg.eigh(gram)
    turned, wanted = (x - mean_x) @ axes, y - mean_y
    towards = turned.T @ wanted

    def left_out(ridge: float) -> Float[Tensor, "image dim"]:
        damped = scales.clamp(min=0) + ridge * gram.diagonal().mean()
        leverage = (turned.square() / damped).sum(1) + 1 / len(x)
        rest = (wanted - turned / damped @ towards) / (1 - leverage).clamp(min=1e-9)[:, None]
        return normalize(y - rest)[:CHOSEN_ON]

    searches = {str(ridge): Search(left_out(ridge)) for ridge in RIDGES}
    found = measure_agreement(searches, normalize(y))
    best = max(RIDGES, key=lambda ridge: found[str(ridge)]["rbo"].mean())
    damped = scales.clamp(min=0) + best * gram.diagonal().mean()
    weight = (axes / damped @ towards).T
    assert isinstance(network.projection, nn.Linear), "a student of stored vectors has one"
    with torch.no_grad():
        network.projection.weight.copy_(weight)
        network.projection.bias.copy_(mean_y - weight @ mean_x)
