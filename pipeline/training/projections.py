"""What a student's projection takes from its teacher without training: how it begins and ends."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.config.recipes import DistillationRecipe
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.models.embedder import Embedder
from pipeline.training.centroids import cluster_centroids
from pipeline.training.job import TrainingJob
from pipeline.training.trainings import TrainingData

FITTED = 5000  # training images, at most, that a projection is fitted to
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the mean diagonal of X'X
CLUSTERS, FOLDS = 20, 5  # of the teacher's vectors; a fold leaves out every fifth cluster
CHOSEN_ON = 1000  # images, at most, whose searches choose
OFFSET_ROUNDS = 200  # at most; ten do for a student whose teacher's mean is short
TINY = 1e-6  # of a difference of means, and of a length


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
    return partial(_fit, fit_projection, job, data, targets)


def fitted_offset(
    job: TrainingJob, data: TrainingData, targets: Callable[[np.ndarray], Tensor]
) -> Callable[[Embedder], None] | None:
    """What fits the offset of the job's trained student to the teacher's vectors of training
    images; None where its recipe says otherwise. `targets` as for `fitted_projection`.
    """
    assert isinstance(job.recipe, DistillationRecipe)
    if job.recipe.offset == "learned":
        return None
    return partial(_fit, fit_offset, job, data, targets)


def _fit(
    fit: Callable[[Embedder, Tensor, Tensor], None],
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
        features = embed_views(network.pooled, views, data.device, name="fitting to the teacher")
        pairs = features, targets(rows)
    # The same vectors in each process: a GPU's sums may differ in their last digits.
    fit(network, *data.group.share(pairs))


def fit_projection(
    network: Embedder,
    features: Float[Tensor, "image feature"],
    targets: Float[Tensor, "image dim"],
) -> None:
    """Set the projection to a ridge regression of the vectors on pooled features, in float64.

    W = P + (X'X + r I)^-1 X'(Y - XP) for centred rows, where a random projection would have to be
    learned first. It shrinks towards P: nothing, or the features as they are, where they have the
    teacher's dimension: a student that is the teacher's own network knows of other classes what
    few images cannot teach it. P, and r of `RIDGES`, are those whose fits find most of what the
    vectors find, by rank-biased overlap, for images of clusters that they have not seen: what is
    searched for later is of other classes, and an image's neighbours would tell too much of it.

    Raises ValueError where the vectors form one cluster.
    """
    x, y = features.double(), targets.double()
    folds = _folds(targets)
    priors = (0.0, 1.0) if x.shape[1] == y.shape[1] else (0.0,)
    left_out = {(p, r): torch.empty_like(y) for p in priors for r in RIDGES}
    for fold in folds.unique():
        out = folds == fold
        for chosen, (weight, bias) in _regressions(x[~out], y[~out], priors):
            left_out[chosen][out] = x[out] @ weight + bias
    shown = slice(None, None, math.ceil(len(x) / CHOSEN_ON))
    searches = {str(key): Search(normalize(rows[shown])) for key, rows in left_out.items()}
    found = measure_agreement(searches, normalize(y[shown]))
    best = max(left_out, key=lambda key: found[str(key)]["rbo"].mean())
    _, (weight, bias) = next(_regressions(x, y, best[:1], best[1:]))
    assert isinstance(network.projection, nn.Linear), (
        "a student that does not start from its teacher has one"
    )
    with torch.no_grad():
        network.projection.weight.copy_(weight.T)
        network.projection.bias.copy_(bias)


def fit_offset(
    network: Embedder,
    features: Float[Tensor, "image feature"],
    targets: Float[Tensor, "image dim"],
) -> None:
    """Set the projection's bias so that the mean of the embeddings is that of the targets.

    A query vector that is off by the same for every image ranks the database by that, too. Losses
    that repel, such as CSD, and colours that are changed in training leave such an offset.
    mean_i v_i / |v_i| = m for v_i = W x_i + b is solved as for a geometric median (Weiszfeld): b
    moves by what the mean lacks, times the harmonic mean of the lengths. Where float32 holds no
    better bias than the learned one, as of embeddings that are all the same, that one stays.
    """
    assert isinstance(network.projection, nn.Linear), "params.yaml was checked for it"
    parameters = network.projection.weight, network.projection.bias
    weight, learned = (one.detach().cpu().double() for one in parameters)
    mapped, wanted = features.double() @ weight.T, normalize(targets.double()).mean(0)

    def lacking(bias: Tensor) -> tuple[Tensor, Tensor]:
        vectors = mapped + bias
        lengths = vectors.norm(dim=1, keepdim=True).clamp(min=TINY)
        return wanted - (vectors / lengths).mean(0), lengths

    bias = learned
    for _ in range(OFFSET_ROUNDS):
        difference, lengths = lacking(bias)
        if difference.norm() < TINY:
            break
        bias = bias + difference / (1 / lengths).mean()
    kept = min((learned, bias.float().double()), key=lambda one: float(lacking(one)[0].norm()))
    with torch.no_grad():
        network.projection.bias.copy_(kept)


def _folds(targets: Float[Tensor, "image dim"]) -> Int[Tensor, " image"]:
    """The fold that leaves each image out: images of a cluster are left out together."""
    centroids = cluster_centroids(targets, min(CLUSTERS, len(targets)), seed=0)
    clusters = (targets @ centroids.mT).argmax(1).unique(return_inverse=True)[1]
    if not clusters.any():
        raise ValueError(
            "distillation.projection = fitted: the teacher's vectors of the training images "
            "form one cluster, from which nothing can be left out; take random"
        )
    return clusters % FOLDS


def _regressions(
    x: Float[Tensor, "image feature"],
    y: Float[Tensor, "image dim"],
    priors: Iterable[float],
    ridges: Iterable[float] = RIDGES,
) -> Iterator[tuple[tuple[float, float], tuple[Tensor, Tensor]]]:
    """Weight and bias of the regression for each prior, a share of the identity, and ridge."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    scales, axes = torch.linalg.eigh(gram)
    towards = axes.T @ ((x - mean_x).T @ (y - mean_y))
    for prior, ridge in product(priors, ridges):
        added = ridge * gram.diagonal().mean()
        # (G + rI)^-1 (X'Y + r P) is P + (G + rI)^-1 X'(Y - XP).
        wanted = towards + added * prior * axes.T if prior else towards
        weight = axes @ (wanted / (scales.clamp(min=0) + added)[:, None])
        yield (prior, ridge), (weight, mean_y - mean_x @ weight)
