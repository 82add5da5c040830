"""Losses by the names of params.yaml: their terms, their values, and their centroids."""

import inspect
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.losses import DistillationLoss
from pipeline.training import losses
from pipeline.training.centroids import cluster_centroids
from pipeline.training.named_losses import TERMS
from tests.made_training import LOSS_VALUES, RELATIONS


def random_units(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_every_loss_of_the_configuration_has_terms_with_its_values() -> None:
    models = get_args(get_args(DistillationLoss)[0])
    named = {
        kind: set(model.model_fields) - {"kind"}
        for model in models
        for kind in get_args(model.model_fields["kind"].annotation)
    }
    assert named.keys() == TERMS.keys()
    for kind, values in named.items():
        function = (
            getattr(losses, kind) if kind in ("csd", "rop", "d3still", "rkd") else TERMS[kind]
        )
        parameters = inspect.signature(function).parameters.values()
        taken = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        assert taken == values, kind


def test_relations_of_a_batch_are_those_of_the_images_with_the_views_in_their_place() -> None:
    student, teacher = random_units(5, 3, 4), random_units(5, 3, 4, seed=1)
    found = TERMS["raml_batch"](student, teacher, **RELATIONS)
    within = TERMS["raml"](student, teacher, **RELATIONS)
    torch.testing.assert_close(found["absolute"], within["absolute"])
    sums = [0.0, 0.0]
    for view in range(3):
        s, t = student[:, view], teacher[:, view]
        for i in range(5):
            for j in range(5):
                if i != j:
                    sums[0] += (s[i] @ t[j] - t[i] @ t[j]).item() ** 2
                    sums[1] += (s[i] @ s[j] - t[i] @ t[j]).item() ** 2
    assert found["relational_ts"].item() == pytest.approx(0.5 * sums[0] / 60, rel=1e-12)
    assert found["relational_ss"].item() == pytest.approx(2.0 * sums[1] / 60, rel=1e-12)
    assert abs(found["relational_ts"] - within["relational_ts"]) > 1e-3


def test_losses_between_images_see_one_view_an_image() -> None:
    student, teacher = random_units(6, 2, 4), random_units(6, 2, 4, seed=1)
    values = {"neighbours": 4, "student_temperature": 0.1, "teacher_temperature": 0.2}
    found = TERMS["csd"](student, teacher, **values)
    each = [losses.csd(student[:, view], teacher[:, view], **values) for view in range(2)]
    assert found.keys() == {"csd"}
    torch.testing.assert_close(found["csd"], (each[0] + each[1]) / 2)
    assert abs(each[0] - each[1]) > 1e-4


def test_anchors_come_with_the_absolute_loss() -> None:
    student, teacher, centroids = (random_units(3, 2, 4, seed=seed) for seed in range(3))
    found = TERMS["anchors"](
        student, teacher, centroids=centroids[0], temperature=0.3, absolute_weight=0.25
    )
    expected = losses.absolute_distillation(student, teacher) / 4
    torch.testing.assert_close(found["absolute"], expected)
    rows = student.flatten(0, 1), teacher.flatten(0, 1)
    alone = losses.anchors(*rows, centroids[0], temperature=0.3)
    torch.testing.assert_close(found["anchors"], alone)


def test_centroids_are_the_means_of_well_separated_clusters() -> None:
    centres = torch.eye(4, dtype=torch.float64)
    drawn = centres.repeat_interleave(25, 0) + 0.05 * random_units(100, 4, seed=3)
    vectors = normalize(drawn)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    best = max(
        (cluster_centroids(vectors, 4, seed) for seed in range(8)),
        key=lambda found: (vectors @ found.mT).amax(1).mean().item(),
    )
    order = best.argmax(1).argsort()
    nearest = (vectors @ centres.mT).argmax(1)
    means = torch.stack([normalize(vectors[nearest == one].sum(0), dim=0) for one in range(4)])
    torch.testing.assert_close(best[order], means)


def test_centroids_follow_their_seed_and_are_unit_vectors() -> None:
    vectors = random_units(60, 5)
    first, again, other = (cluster_centroids(vectors, 7, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(7, dtype=torch.float64))
    each = cluster_centroids(vectors[:3], 3, 0)
    torch.testing.assert_close(each.sort(0).values, vectors[:3].sort(0).values)


def test_a_cluster_without_vectors_keeps_its_centroid() -> None:
    """Copies of one vector: all of them go to the first of equal centroids."""
    vectors = random_units(1, 3).expand(5, 3).clone()
    torch.testing.assert_close(cluster_centroids(vectors, 2, 0), vectors[:2])


def test_more_centroids_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.centroids = 9: must be at most 8, the training"):
        cluster_centroids(random_units(8, 3), 9, 0)


@pytest.mark.parametrize("kind", TERMS)
def test_every_term_has_a_gradient(kind: str) -> None:
    values = LOSS_VALUES[kind] | (
        {"centroids": random_units(3, 4, seed=5)} if kind == "anchors" else {}
    )
    loss = partial(TERMS[kind], **values)
    for name in loss(random_units(6, 2, 4), random_units(6, 2, 4, seed=1)):
        student = random_units(6, 2, 4).requires_grad_()
        loss(student, random_units(6, 2, 4, seed=1))[name].backward()
        assert student.grad is not None
        assert (student.grad.abs().amax(2) > 0).all(), name
