"""A student of stored vectors: its views lie in what the teacher saw, and it learns them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.datasets.packs import Pack
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.training.black_box import (
    RIDGES,
    StoredVectorsObjective,
    fit_projection,
    seen_by_teacher,
)
from pipeline.training.loop import train
from pipeline.training.named_losses import TERMS
from pipeline.views.coupled import cached_decoder
from pipeline.views.evaluation import evaluation_view, image_tensor
from tests.made_training import AUGMENTED, CPU, PLAIN, made_pack, picture, schedule, tiny_embedder

SLIGHT = replace(AUGMENTED, crop_scale=(0.8, 1.0), mixup_alpha=0.0)
ANCHORS = partial(TERMS["anchors"], centroids=torch.eye(8)[:4], temperature=0.1, absolute_weight=1)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_pack(tmp_path_factory.mktemp("pack"), 2, 6)


def unit_rows(count: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def objective(pack: Pack, **changes: object) -> StoredVectorsObjective:
    values: dict[str, object] = {
        "decode": cached_decoder(pack),
        "rows": pack.rows("train"),
        "targets": unit_rows(len(pack)),
        "student_px": 16,
        "images_per_batch": 4,
        "images_per_epoch": None,
        "loss": ANCHORS,
        "views": SLIGHT,
        "seed": 0,
        "device": CPU,
    }
    return StoredVectorsObjective(**values | changes)


def test_every_view_of_an_image_has_its_stored_vector(pack: Pack) -> None:
    loaded = objective(pack).load(0, 0, np.array([1, 4, 7]))
    assert loaded.views.shape == (6, 3, 16, 16)
    expected = torch.from_numpy(unit_rows(len(pack)))[[1, 1, 4, 4, 7, 7]]
    torch.testing.assert_close(loaded.targets, expected)
    assert loaded.images == 3


def test_the_same_seed_gives_the_same_views(pack: Pack) -> None:
    rows = np.array([1, 4])
    first, second, other = (objective(pack, seed=seed).load(0, 0, rows).views for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_student_learns_the_stored_vectors(pack: Pack, tmp_path: Path) -> None:
    still = objective(pack, views=PLAIN)
    options = {"validate": lambda _: {}, "on_epoch": lambda _: None}
    network = tiny_embedder(seed=1)
    history = train(network, still, schedule(epochs=60), folder=tmp_path, **options)
    assert {"absolute", "anchors"} < set(history[0])
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    loaded = still.load(0, 0, np.arange(12))
    with torch.no_grad():
        nearest = (network(loaded.views) @ loaded.targets.T).argmax(1)
    assert (nearest == torch.arange(12)).float().mean() > 0.7


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (64, 64)])
def test_a_cropped_view_shows_what_the_evaluation_view_shows(height: int, width: int) -> None:
    image = image_tensor_of(height, width)
    seen = seen_by_teacher(lambda _: image, "cropped")(0)
    assert seen.shape == (3, 7 * min(height, width) // 8, 7 * min(height, width) // 8)
    shown = evaluation_view(image, seen.shape[1])  # at this size nothing is scaled
    torch.testing.assert_close(seen, shown)


def test_a_squashed_view_may_show_all_of_the_image() -> None:
    image = image_tensor_of(48, 80)
    assert seen_by_teacher(lambda _: image, "squashed")(0) is image


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


def image_tensor_of(height: int, width: int) -> Tensor:
    return image_tensor(Image.fromarray(picture(3, height, width)))
