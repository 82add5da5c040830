"""A student of stored vectors: its views lie in what the teacher saw, and it learns them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.datasets.packs import Pack
from pipeline.training.black_box import StoredVectorsObjective, seen_by_teacher
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


def image_tensor_of(height: int, width: int) -> Tensor:
    return image_tensor(Image.fromarray(picture(3, height, width)))
