"""How the projection of a student begins: fitted to its teacher, where it need not be learned."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.config.recipes import DistillationRecipe
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.models.embedder import Embedder
from pipeline.training.job import TrainingJob
from pipeline.training.trainings import TrainingData

FITTED = 5000  # training images, at most, that a projection is fitted to
# Shares of the mean diagonal of X'X, of which the one is taken that does best on left-out images.
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CHOSEN_ON = 1000  # of these images


def fitted_projection(
    job: TrainingJob, data: TrainingData, targets: Callable[[np.ndarray], Tensor]
) -> Callable[[Embedder], None] | None:
    """What fits the projection of the job's student before its first step, to the teacher's vectors
    of training images; None where its recipe says otherwise, and where the teacher's is taken.

    targets: gives the teacher's vectors of rows of the pack.
    """
    assert isinstance(job.recipe, DistillationRecipe)
    if job.recipe.projection == "random" or job.network.weights == "teacher":
        return None
    return partial(_fit, job, data, targets)


def _fit(
    job: TrainingJob,
    data: TrainingData,
    targets: Callable[[np.ndarray], Tensor],
    network: Embedder,
) -> None:
    order = np.random.default_rng(job.seed).permutation(data.train)
    rows = np.sort(order[:FITTED])
    pairs = torch.empty(0), torch.empty(0)
    if data.group.is_main:
        views = EvaluationViews(data.pack, rows, job.size_px)
        network.eval().to(data.device)
        features = embed_views(network.pooled, views, data.device, name="fitting the projection")
        pairs = features, targets(rows)
    # The same vectors in each process: a GPU's sums may differ in their last digits.
    fit_projection(network, *data.group.share(pairs))


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
    assert isinstance(network.projection, nn.Linear), (
        "a student that does not start from its teacher has one"
    )
    with torch.no_grad():
        network.projection.weight.copy_(weight)
        network.projection.bias.copy_(mean_y - weight @ mean_x)
