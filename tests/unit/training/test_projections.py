"""What a student's projection takes from its teacher's vectors: how it begins, and its offset."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import normalize

from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.training.centroids import cluster_centroids
from pipeline.training.job import TrainingJob
from pipeline.training.process_group import ALONE
from pipeline.training.projections import (
    CLUSTERS,
    FOLDS,
    RIDGES,
    fit_offset,
    fit_projection,
    fitted_offset,
    fitted_projection,
)
from pipeline.training.trainings import TrainingData
from tests.made_params import edited_params
from tests.made_training import CPU, made_pack, tiny_embedder

KEY = "emblems-40"


def job_of(folder: Path, projection: str, weights: str, *, offset: str = "learned") -> TrainingJob:
    values = {
        "datasets.emblems.distillation.projection": projection,
        "datasets.emblems.distillation.offset": offset,
        f"students.{KEY}.network.weights": weights,
    }
    return TrainingJob(load_params(edited_params(folder, values)), "student", KEY, 0)


def test_a_projection_is_fitted_where_the_recipe_says_so_and_it_is_not_the_teachers(
    tmp_path: Path,
) -> None:
    pack = made_pack(tmp_path, 4, 8)
    train, val = pack.rows("train"), np.empty(0, np.int64)
    data = TrainingData(pack, train, val, CPU, ALONE)
    teacher = tiny_embedder(seed=1)

    def embed(rows: np.ndarray) -> Tensor:
        return embed_views(teacher, EvaluationViews(pack, rows, 40), CPU)

    assert fitted_projection(job_of(tmp_path, "random", "random"), data, embed) is None
    assert fitted_projection(job_of(tmp_path, "fitted", "teacher"), data, embed) is None
    begin = fitted_projection(job_of(tmp_path, "fitted", "random"), data, embed)
    assert begin is not None
    student = tiny_embedder(seed=2)
    views, wanted = EvaluationViews(pack, train, 40), embed(train)
    before = (embed_views(student, views, CPU) * wanted).sum(1).mean()
    begin(student)
    after = (embed_views(student, views, CPU) * wanted).sum(1).mean()
    assert after > 0.9 > before


def ridge_of(x: Tensor, y: Tensor, prior: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of the regression that shrinks towards `prior`."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    gram = xc.T @ xc
    penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight = prior + torch.linalg.inv(gram + penalty) @ xc.T @ (yc - xc @ prior)
    return weight, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize(
    ("dim", "noise", "chosen"),
    [
        (8, 0.1, (0.0, 0.01)),  # another dimension
        (8, 1.0, (0.0, 0.1)),  # features that say little of the vectors: a close fit finds less
        (16, 0.1, (0.0, 0.01)),  # the same dimension, but other axes
        (16, 0.0, (1.0, 30.0)),  # the teacher's own features, disturbed: shrunk towards them
    ],
)
def test_the_projection_is_the_regression_that_finds_most_in_clusters_it_has_not_seen(
    dim: int, noise: float, chosen: tuple[float, float]
) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(8, 16, generator=generator)
    spread = torch.randn(40, 16, generator=generator)
    x = normalize(centres.repeat_interleave(5, 0) + spread).double()
    y = x + 0.1 * torch.randn(x.shape, generator=generator)
    if noise:
        y = x @ torch.randn(16, dim, generator=generator).double()
        y += noise * torch.randn(y.shape, generator=generator)
    y = normalize(y)
    centroids = cluster_centroids(y, CLUSTERS, 0)
    clusters = (y @ centroids.T).argmax(1).tolist()
    folds = [sorted(set(clusters)).index(cluster) % FOLDS for cluster in clusters]
    scores = {}
    for prior, ridge in product((0.0, 1.0) if dim == 16 else (0.0,), RIDGES):
        left_out = torch.empty_like(y)
        for row in range(len(x)):  # the plain loop: as many fits as images
            others = [other for other in range(len(x)) if folds[other] != folds[row]]
            weight, bias = ridge_of(
                x[others], y[others], prior * torch.eye(16, dim).double(), ridge
            )
            left_out[row] = x[row] @ weight + bias
        search = Search(normalize(left_out))
        scores[prior, ridge] = measure_agreement({"it": search}, y)["it"]["rbo"].mean()
    best = max(scores, key=scores.__getitem__)
    assert best == chosen
    network = tiny_embedder(seed=3, dim=dim)
    fit_projection(network, x, y)
    assert isinstance(network.projection, torch.nn.Linear)
    weight, bias = ridge_of(x, y, best[0] * torch.eye(16, dim).double(), best[1])
    torch.testing.assert_close(network.projection.weight.double(), weight.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.projection.bias.double(), bias, rtol=0, atol=1e-5)


def test_vectors_of_one_cluster_cannot_be_fitted_to() -> None:
    with pytest.raises(ValueError, match="form one cluster"):
        fit_projection(tiny_embedder(seed=3), torch.randn(4, 16), torch.ones(4, 8))


def test_the_offset_gives_the_embeddings_the_mean_of_the_teachers_and_nothing_else() -> None:
    drawn = torch.Generator().manual_seed(0)
    features = normalize(torch.rand(60, 16, generator=drawn))
    targets = normalize(torch.randn(60, 8, generator=drawn) + 0.3)
    network = tiny_embedder(seed=3)
    assert isinstance(network.projection, torch.nn.Linear)
    weight = network.projection.weight.detach().clone()
    fit_offset(network, features, targets)
    mean = normalize(network.projection(features)).mean(0)
    torch.testing.assert_close(mean, targets.mean(0), rtol=0, atol=1e-6)
    assert torch.equal(network.projection.weight, weight)
    assert network.projection.bias.requires_grad


def test_a_student_that_is_off_by_the_same_everywhere_is_put_right() -> None:
    drawn = torch.Generator().manual_seed(1)
    features = normalize(torch.randn(60, 16, generator=drawn))
    network = tiny_embedder(seed=3)
    with torch.no_grad():
        targets, bias = network.projection(features), network.projection.bias.clone()
        network.projection.bias += 0.5
    fit_offset(network, features, normalize(targets))
    torch.testing.assert_close(network.projection.bias, bias, rtol=0, atol=1e-5)


def test_the_offset_is_fitted_where_the_recipe_says_so_to_the_training_images(
    tmp_path: Path,
) -> None:
    pack = made_pack(tmp_path, 4, 8)
    train = pack.rows("train")
    data = TrainingData(pack, train, np.empty(0, np.int64), CPU, ALONE)
    views = EvaluationViews(pack, train, 40)

    def embed(rows: np.ndarray) -> Tensor:
        return embed_views(tiny_embedder(seed=1), EvaluationViews(pack, rows, 40), CPU)

    assert fitted_offset(job_of(tmp_path, "random", "random"), data, embed) is None
    end = fitted_offset(job_of(tmp_path, "random", "random", offset="fitted"), data, embed)
    assert end is not None
    student = tiny_embedder(seed=2)
    end(student)
    means = (embed_views(student, views, CPU).mean(0), embed(train).mean(0))
    torch.testing.assert_close(*means, rtol=0, atol=1e-3)  # all are near each other: slow


def test_lengths_of_all_kinds_are_solved_for_and_no_bias_is_made_worse() -> None:
    drawn = torch.Generator().manual_seed(2)
    directions = normalize(torch.randn(200, 16, generator=drawn))
    features = directions * (1.5 * torch.randn(200, 1, generator=drawn)).exp()
    network = tiny_embedder(seed=3, dim=16)
    assert isinstance(network.projection, torch.nn.Linear)
    with torch.no_grad():
        network.projection.weight.copy_(torch.eye(16))
        network.projection.bias.zero_()
    targets = normalize(torch.randn(200, 16, generator=drawn) + 0.5)
    fit_offset(network, features, targets)
    mean = normalize(network.projection(features)).mean(0)
    torch.testing.assert_close(mean, targets.mean(0), rtol=0, atol=1e-5)
    alike, before = torch.ones(20, 16), network.projection.bias.detach().clone()
    fit_offset(network, alike, targets)  # one direction alone cannot have a shorter mean
    found = normalize(network.projection(alike)).mean(0) - targets.mean(0)
    with torch.no_grad():
        network.projection.bias.copy_(before)
    learned = normalize(network.projection(alike)).mean(0) - targets.mean(0)
    assert found.norm() <= learned.norm() + 1e-2  # vectors near 0 are float32's rounding


def test_vectors_on_the_cpu_fit_a_network_on_a_gpu() -> None:
    with FakeTensorMode():
        network = SimpleNamespace(projection=torch.nn.Linear(16, 8, device="cuda"))
        with pytest.raises(DataDependentOutputException):  # the first number that is looked at
            fit_offset(network, torch.randn(60, 16), torch.randn(60, 8))
