"""A training's settings from params.yaml, and the table of its epochs."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.params import Params, load_params
from pipeline.models.weights import load_network, read_card, save_network
from pipeline.training.job import TrainingJob, new_network
from pipeline.training.trainings import _table
from tests.integration.workspace import ROOT
from tests.made_params import PARAMS, edited_params
from tests.made_training import CPU, equal_states

LEARNED = {"datasets.emblems.distillation.offset": "learned"}  # by a network without projection
KEY = "emblems-40"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(PARAMS)


def test_labels_are_learned_from_one_plain_view_and_students_from_coupled_ones(
    params: Params,
) -> None:
    recipe = params.datasets["emblems"].distillation
    student, baseline = (
        TrainingJob(params, role, KEY, 0).view_recipe for role in ("student", "baseline")
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
    made = TrainingJob(params, "student", KEY, 0)
    for group in (made.network, made.recipe, params.compute):
        assert group.model_dump().items() <= made.settings.items()
    assert made.settings["seed"] == made.schedule.seed == 0
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


def test_a_seed_has_its_own_draws_weights_and_place(tmp_path: Path) -> None:
    params = load_params(edited_params(tmp_path, {"seeds": [3, 5]}))
    first, second = (TrainingJob(params, "student", KEY, seed) for seed in (3, 5))
    assert first.settings | {"seed": 5} == second.settings
    assert (first.schedule.seed, second.schedule.seed) == (3, 5)
    assert first.output == Path(f"models/emblems/students/{KEY}.safetensors")
    assert second.output == Path(f"models/emblems/students/{KEY}.seeds/5.safetensors")
    assert first.paths.teacher == Path("models/emblems/teacher.safetensors")
    assert second.paths.teacher == Path("models/emblems/teacher.seeds/5.safetensors")
    assert second.paths.teacher in second.inputs
    assert first.paths.teacher not in second.inputs
    baselines = (TrainingJob(params, "baseline", KEY, seed) for seed in (3, 5, 5))
    one, other, again = (new_network(job, 8)[0] for job in baselines)
    assert equal_states(other, again)
    assert not equal_states(one, other)


def test_a_teacher_that_is_not_trained_is_that_of_every_seed(tmp_path: Path) -> None:
    frozen = {"datasets.emblems.teacher": {"kind": "frozen"}, **LEARNED, "seeds": [3, 5]}
    params = load_params(edited_params(tmp_path, frozen))
    second = TrainingJob(params, "student", KEY, 5)
    assert second.paths.teacher == Path("models/emblems/teacher.safetensors")
    assert second.paths.database == Path("embeddings/emblems/database.npy")
    assert second.output == Path(f"models/emblems/students/{KEY}.seeds/5.safetensors")


def started(folder: Path, student: dict[str, object], *, whitened: bool = False) -> TrainingJob:
    """The job of a student whose frozen teacher is there, a network of 16 px without projection."""
    own = {"dataset": "emblems", "query_px": 16, "network": student}
    changes = {"datasets.emblems.teacher": {"kind": "frozen"}, **LEARNED, "students": {"own": own}}
    params = load_params(edited_params(folder, changes))
    teacher, card = new_network(
        TrainingJob(params, "teacher", "emblems", 0), 8 if whitened else None
    )
    save_network(folder / "models/emblems/teacher.safetensors", teacher, card)
    return TrainingJob(params, "student", "own", 0)


@pytest.mark.parametrize("whitened", [False, True])
def test_a_student_starts_from_its_teacher_head_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whitened: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    job = started(tmp_path, {"weights": "teacher"}, whitened=whitened)
    teacher, taught = load_network(job.paths.teacher, CPU)
    network, card = new_network(job, taught.dim)
    assert equal_states(network, teacher)
    assert card == replace(taught, size_px=16)
    assert card.projection is whitened
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_another_student_has_a_head_of_its_teachers_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = started(tmp_path, {"pooling": "native"})
    taught = read_card(job.paths.teacher)
    network, card = new_network(job, taught.dim)
    assert (card.dim, card.pooling, card.projection) == (taught.dim, "native", True)
    assert network.projection.weight.shape[0] == taught.dim


def test_a_baseline_starts_where_its_teacher_did(tmp_path: Path) -> None:
    """It is what one would do without the method: nothing of a teacher's training is in it."""
    own = {"dataset": "emblems", "query_px": 16, "network": {"weights": "teacher"}}
    params = load_params(edited_params(tmp_path, {"students": {"own": own}}))
    assert TrainingJob(params, "student", "own", 0).network.weights == "teacher"
    assert TrainingJob(params, "baseline", "own", 0).network == params.datasets["emblems"].network


def test_the_table_of_epochs_is_what_pandas_writes() -> None:
    """Older tables in a cache are byte-equal: floats in full, whole numbers without a point."""
    history = [
        {"triplet": 0.1 + 0.2, "loss": 1e-7, "epoch": 1, "learning_rate": 2e-3},
        {"triplet": 1 / 3, "loss": 12345678.9, "epoch": 2, "learning_rate": 8e-9},
    ]
    assert _table(history) == pd.DataFrame(history).to_csv(index=False)


@pytest.mark.parametrize("metric", ["validation_map", "validation_overlap"])
def test_a_table_of_epochs_has_the_column_that_every_graph_draws(metric: str) -> None:
    assert (
        _table([{"loss": 0.5, "epoch": 1, metric: 0.25}]) == "loss,epoch,validation\n0.5,1,0.25\n"
    )
    plots = re.findall(r"models/.*\.csv: {x: epoch, y: (\w+)}", (ROOT / "dvc.yaml").read_text())
    assert plots == ["validation"] * 3
