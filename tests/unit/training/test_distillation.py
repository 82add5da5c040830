"""Distillation with a tiny network: it learns, repeats, resumes, and leaves its teacher alone."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.datasets.packs import Pack
from pipeline.models.embedder import Embedder
from pipeline.training.distillation import DistillationObjective, StudentBatch
from pipeline.training.loop import train
from pipeline.training.losses import absolute_distillation, relational_distillation
from pipeline.training.named_losses import TERMS, raml_terms
from pipeline.views.evaluation import image_tensor
from tests.made_training import (
    AUGMENTED,
    LOSS_VALUES,
    PLAIN,
    distillation_objective,
    equal_states,
    made_pack,
    schedule,
    tiny_embedder,
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_pack(tmp_path_factory.mktemp("pack"), 2, 6)


def fixed_teacher(batch_norm: bool = False) -> Embedder:
    return tiny_embedder(seed=9, batch_norm=batch_norm).eval().requires_grad_(False)


def run(
    network: nn.Module, objective: DistillationObjective, folder: Path, **changes: object
) -> list[dict]:
    options = {"validate": lambda _: {}, "on_epoch": lambda _: None, "loading_threads": 1}
    options |= {name: changes.pop(name) for name in list(changes) if name in options}
    return train(network, objective, schedule(**changes), folder=folder, **options)


def test_the_terms_are_the_weighted_losses_of_the_views(pack: Pack) -> None:
    teacher, student = fixed_teacher(), tiny_embedder()
    loss = partial(raml_terms, lambda_ts=0.3, lambda_ss=2.0)
    objective = distillation_objective(pack, teacher, loss=loss)
    rows = np.array([1, 4, 7])
    loaded = objective.load(0, 0, rows)
    assert loaded.views.shape == (6, 3, 16, 16)
    assert loaded.targets.shape == (6, 8)
    assert loaded.images == 3
    terms = objective.terms(student, loaded)
    embedded = student(loaded.views.clone()).unflatten(0, (3, 2))
    targets = loaded.targets.clone().unflatten(0, (3, 2))
    to_teacher, to_student = relational_distillation(embedded, targets)
    expected = {
        "absolute": absolute_distillation(embedded, targets),
        "relational_ts": 0.3 * to_teacher,
        "relational_ss": 2.0 * to_student,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-9)
        assert terms[name].item() > 0


def test_a_load_is_a_function_of_seed_epoch_and_number(pack: Pack) -> None:
    objective = distillation_objective(pack, fixed_teacher())
    rows = np.array([0, 3])
    first = objective.load(2, 5, rows)
    torch.manual_seed(1)
    again = objective.load(2, 5, rows)
    assert torch.equal(first.views, again.views)
    assert torch.equal(first.targets, again.targets)
    for other in (
        objective.load(2, 4, rows),
        objective.load(1, 5, rows),
        replace(objective, seed=1).load(2, 5, rows),
    ):
        assert not torch.equal(first.views, other.views)
    assert [b.tolist() for b in objective.batches(1)] == [b.tolist() for b in objective.batches(1)]
    assert [b.tolist() for b in objective.batches(1)] != [b.tolist() for b in objective.batches(2)]


def test_images_per_epoch_bounds_an_epoch(pack: Pack) -> None:
    batches = distillation_objective(pack, fixed_teacher(), images_per_epoch=6).batches(0)
    assert [len(batch) for batch in batches] == [4, 2]


def test_it_overfits_eight_images(pack: Pack, tmp_path: Path) -> None:
    rows = pack.rows("train")[:8]
    objective = distillation_objective(
        pack, fixed_teacher(), rows=rows, views=replace(PLAIN, views=1)
    )
    student = tiny_embedder(seed=1)
    history = run(student, objective, tmp_path, epochs=60, learning_rate=2e-2)
    assert history[-1]["loss"] < history[0]["loss"] / 100
    assert history[-1]["relational_ts"] == 0


def test_it_learns_the_relations_too(pack: Pack, tmp_path: Path) -> None:
    recipe = replace(PLAIN, views=4, crop_scale=(0.3, 1.0))
    teacher = fixed_teacher()
    with torch.no_grad():  # centred, so that its embeddings spread over the sphere
        images = torch.stack([image_tensor(pack.image(row)) for row in range(12)]).float() / 255
        centre = teacher.pooled(images).mean(0)
        teacher.projection.bias.copy_(-(teacher.projection.weight @ centre))
    objective = distillation_objective(pack, teacher, views=recipe)
    history = run(tiny_embedder(seed=1), objective, tmp_path, epochs=30, learning_rate=2e-2)
    for name in ("absolute", "relational_ts", "relational_ss"):
        assert history[-1][name] < history[0][name] / 3


def test_two_runs_and_any_number_of_loading_threads_are_bit_equal(
    pack: Pack, tmp_path: Path
) -> None:
    networks, histories = [], []
    for number, threads in enumerate((1, 1, 3, 0)):
        torch.manual_seed(number)
        network = tiny_embedder(seed=1, batch_norm=True)
        objective = distillation_objective(pack, fixed_teacher())
        histories.append(run(network, objective, tmp_path / str(number), loading_threads=threads))
        networks.append(network)
    assert histories[0] == histories[1] == histories[2] == histories[3]
    assert equal_states(networks[0], networks[1])
    assert equal_states(networks[0], networks[2])
    assert equal_states(networks[0], networks[3])
    other = tiny_embedder(seed=1, batch_norm=True)
    run(other, distillation_objective(pack, fixed_teacher(), seed=1), tmp_path / "other")
    assert not equal_states(networks[0], other)


def test_resumed_is_uninterrupted(pack: Pack, tmp_path: Path) -> None:
    straight = tiny_embedder(seed=1, batch_norm=True)
    expected = run(
        straight, distillation_objective(pack, fixed_teacher()), tmp_path / "a", epochs=4
    )

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    objective = distillation_objective(pack, fixed_teacher())
    with pytest.raises(KeyboardInterrupt):
        run(
            tiny_embedder(seed=1, batch_norm=True),
            objective,
            tmp_path / "b",
            epochs=4,
            on_epoch=stop,
        )
    resumed = tiny_embedder(seed=5, batch_norm=True)  # its own weights do not matter
    history = run(resumed, distillation_objective(pack, fixed_teacher()), tmp_path / "b", epochs=4)
    assert history == expected
    assert equal_states(resumed, straight)


def test_the_teacher_gets_no_gradient_and_does_not_change(pack: Pack, tmp_path: Path) -> None:
    # A teacher that could learn: what holds it is the code, not a missing requires_grad.
    teacher = tiny_embedder(seed=9, batch_norm=True).eval()
    before = copy.deepcopy(teacher)
    objective = distillation_objective(pack, teacher)
    loaded = objective.load(0, 0, np.array([0, 1]))
    assert not loaded.targets.requires_grad
    sum(objective.terms(tiny_embedder(), loaded).values()).backward()
    run(tiny_embedder(seed=1), objective, tmp_path)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert equal_states(teacher, before)


def test_every_parameter_of_the_student_gets_a_gradient(pack: Pack) -> None:
    student = tiny_embedder(batch_norm=True).train()
    objective = distillation_objective(pack, fixed_teacher())
    sum(objective.terms(student, objective.load(0, 0, np.array([0, 1]))).values()).backward()
    gradients = {name: p.grad for name, p in student.named_parameters()}
    assert len(gradients) == 9
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients.values())


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_stay_and_live_ones_move(
    pack: Pack, tmp_path: Path, frozen: bool
) -> None:
    student = tiny_embedder(seed=1, batch_norm=True)
    norm = next(module for module in student.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        norm.running_mean.fill_(0.1)
        norm.running_var.fill_(1.5)
    before = copy.deepcopy(norm.state_dict())
    objective = distillation_objective(pack, fixed_teacher())
    # Validation puts the network into eval mode in between; the next epoch must freeze it again.
    run(
        student, objective, tmp_path, batch_norm_frozen=frozen, validate=lambda m: {"e": m.training}
    )
    kept = {name: torch.equal(before[name], value) for name, value in norm.state_dict().items()}
    assert kept == {
        "weight": False,
        "bias": False,
        "running_mean": frozen,
        "running_var": frozen,
        "num_batches_tracked": frozen,
    }


def test_the_partners_come_from_the_training_rows(pack: Pack) -> None:
    """Rows held out for validation are never decoded."""
    seen: list[int] = []

    def decode(row: int) -> torch.Tensor:
        seen.append(row)
        return image_tensor(pack.image(row))

    rows = np.array([1, 2, 5, 8])
    objective = distillation_objective(
        pack, fixed_teacher(), decode=decode, rows=rows, views=replace(AUGMENTED, views=8)
    )
    for number in range(6):
        objective.load(0, number, rows[:2])
    assert set(seen) == set(rows.tolist())


@pytest.mark.parametrize("kind", TERMS)
def test_a_micro_batch_waits_for_no_value(pack: Pack, kind: str) -> None:
    """On the meta device, where tensors have no values, a look at one would be an error."""
    student = tiny_embedder(batch_norm=True).train().to("meta")
    views = torch.empty(8, 3, 16, 16, device="meta")
    loaded = StudentBatch(views, torch.empty(8, 8, device="meta"), images=4)
    found = {"centroids": torch.empty(3, 8, device="meta")} if kind == "anchors" else {}
    loss = partial(TERMS[kind], **LOSS_VALUES[kind], **found)
    objective = distillation_objective(pack, fixed_teacher(), loss=loss)
    sum(objective.terms(student, loaded).values()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    with pytest.raises(RuntimeError):
        float(loaded.targets.sum())


@pytest.mark.parametrize("kind", TERMS)
def test_a_student_learns_by_each_loss(pack: Pack, tmp_path: Path, kind: str) -> None:
    teacher = fixed_teacher()
    found = {"centroids": torch.eye(8)[:4]} if kind == "anchors" else {}
    loss = partial(TERMS[kind], **LOSS_VALUES[kind], **found)
    objective = distillation_objective(pack, teacher, loss=loss, least_images=4)
    history = run(tiny_embedder(seed=1), objective, tmp_path, epochs=12)
    assert history[-1]["loss"] < history[0]["loss"]
    named = set(history[0]) - {"loss", "epoch", "learning_rate"}
    assert history[0]["loss"] == pytest.approx(sum(history[0][name] for name in named))


def test_a_batch_too_small_for_the_loss_joins_another(pack: Pack) -> None:
    objective = distillation_objective(
        pack, fixed_teacher(), images_per_batch=5, images_per_epoch=11, least_images=3
    )
    assert [len(batch) for batch in objective.batches(0)] == [5, 6]


def test_a_last_image_is_no_batch_of_its_own(pack: Pack) -> None:
    """Of one view at the least size live batch norm would have nothing to compare."""
    objective = distillation_objective(
        pack, fixed_teacher(), images_per_batch=5, images_per_epoch=11
    )
    assert [len(batch) for batch in objective.batches(0)] == [5, 6]
