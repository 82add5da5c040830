"""A training's settings from params.yaml, and the table of its epochs."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.params import Params, load_params
from pipeline.training.job import TrainingJob, _table
from tests.made_params import PARAMS

KEY = "emblems-40"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(PARAMS)


def test_labels_are_learned_from_one_plain_view_and_students_from_coupled_ones(
    params: Params,
) -> None:
    recipe = params.datasets["emblems"].distillation
    student, baseline = (
        TrainingJob(params, role, KEY).view_recipe for role in ("student", "baseline")
    )
    assert (student.views, student.mixup_alpha) == (recipe.views, recipe.mixup_alpha)
    assert student.mixup_partner == recipe.mixup_partner
    assert student.crop_scale == recipe.augmentation.crop_scale
    assert student.colour_ranges == (
        recipe.augmentation.brightness,
        recipe.augmentation.contrast,
        recipe.augmentation.saturation,
        recipe.augmentation.hue,
    )
    assert (baseline.views, baseline.mixup_alpha) == (1, 0.0)
    look = params.datasets["emblems"].teacher.augmentation
    assert baseline.crop_scale == look.crop_scale
    assert baseline.flip_probability == look.flip_probability


def test_every_value_that_shapes_a_result_is_in_its_settings(params: Params) -> None:
    made = TrainingJob(params, "student", KEY)
    for group in (made.network, made.recipe, params.compute):
        assert group.model_dump().items() <= made.settings.items()
    assert made.settings["seed"] == made.schedule.seed == params.seed
    assert made.settings["size_px"] == 40
    assert {"threads", "validation_share"} <= made.settings.keys()
    assert made.inputs == (
        Path("data/emblems/pack.arrow"),
        Path("models/emblems/teacher.safetensors"),
        Path(f"data/emblems/initial/{KEY}.txt"),
        Path("data/code/distill.txt"),
    )
    assert made.schedule.epochs == made.recipe.optimisation.epochs
    assert made.schedule.batch_norm_frozen is (made.network.batch_norm == "frozen")


def test_the_table_of_epochs_is_what_pandas_writes() -> None:
    """Older tables in a cache are byte-equal: floats in full, whole numbers without a point."""
    history = [
        {"triplet": 0.1 + 0.2, "loss": 1e-7, "epoch": 1, "learning_rate": 2e-3},
        {"triplet": 1 / 3, "loss": 12345678.9, "epoch": 2, "learning_rate": 8e-9},
    ]
    assert _table(history) == pd.DataFrame(history).to_csv(index=False)
