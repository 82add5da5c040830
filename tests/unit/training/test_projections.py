"""A student's own projection begins random, or fitted to the teacher's vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.training.job import TrainingJob
from pipeline.training.process_group import ALONE
from pipeline.training.projections import RIDGES, fit_projection, fitted_projection
from pipeline.training.trainings import TrainingData
from tests.made_params import edited_params
from tests.made_training import CPU, made_pack, tiny_embedder

KEY = "emblems-40"


def job_of(folder: Path, projection: str, weights: str) -> TrainingJob:
    values = {
        "datasets.emblems.distillation.projection": projection,
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


def ridge_of(x: Tensor, y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of the regression, its penalty being a share of the mean diagonal of X'X."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    gram = xc.T @ xc
    weight = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=torch.float64)) @ xc.T @ yc
    return weight, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize(("noise", "chosen"), [(2.0, 0.01), (8.0, 1.0)])
def test_the_projection_is_the_ridge_regression_that_does_best_on_left_out_images(
    noise: float, chosen: float
) -> None:
    """Where features say little of the vectors, a fit that follows them closely finds less."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 16, generator=generator).double()
    y = x @ torch.randn(16, 8, generator=generator).double() + 2
    y = normalize(y + noise * torch.randn(y.shape, generator=generator))
    unit = ((x - x.mean(0)).T @ (x - x.mean(0))).diagonal().mean()
    scores = {}
    for ridge in RIDGES:  # the plain loop: as many fits as images
        left_out = []
        for row in range(len(x)):
            others = [other for other in range(len(x)) if other != row]
            weight, bias = ridge_of(x[others], y[others], ridge * unit)
            left_out.append(x[row] @ weight + bias)
        search = Search(normalize(torch.stack(left_out)))
        scores[ridge] = measure_agreement({"it": search}, y)["it"]["rbo"].mean()
    best = max(scores, key=scores.__getitem__)
    assert best == chosen
    network = tiny_embedder(seed=3)
    fit_projection(network, x.float(), y.float())
    assert isinstance(network.projection, torch.nn.Linear)
    weight, bias = ridge_of(x, y, best * unit)
    torch.testing.assert_close(network.projection.weight.double(), weight.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.projection.bias.double(), bias, rtol=0, atol=1e-5)
