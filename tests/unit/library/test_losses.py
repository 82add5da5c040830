"""The losses by name are those of the modules that training uses, and refuse what is not theirs."""

import pytest
import torch
from torch.nn.functional import normalize

from pipeline import distillation_loss
from pipeline.training import losses

BATCH, VIEWS, DIM = 6, 2, 8
ANCHORS = {"temperature": 0.1, "absolute_weight": 1.0}
CSD = {"neighbours": 4, "student_temperature": 1.0, "teacher_temperature": 0.1}


def views(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(BATCH, VIEWS, DIM, dtype=torch.float64, generator=generator)
    return normalize(drawn, dim=2)


STUDENT, TEACHER = views(0), views(1)


def test_a_loss_that_compares_images_is_the_mean_over_the_numbers_of_view() -> None:
    found = distillation_loss("csd", STUDENT, TEACHER, **CSD)
    wanted = sum(losses.csd(STUDENT[:, i], TEACHER[:, i], **CSD) for i in range(VIEWS)) / VIEWS
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_neighbours_are_sought_in_a_given_gallery() -> None:
    gallery = views(2)[:, 0]
    found = distillation_loss("csd", STUDENT[:, :1], TEACHER[:, :1], gallery=gallery, **CSD)
    wanted = losses.csd(STUDENT[:, 0], TEACHER[:, 0], gallery=gallery, **CSD)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_the_terms_of_a_loss_are_summed_by_their_weights() -> None:
    found = distillation_loss("raml", STUDENT, TEACHER, lambda_ts=0.6, lambda_ss=0.8)
    to_teacher, to_student = losses.relational_distillation(STUDENT, TEACHER)
    absolute = losses.absolute_distillation(STUDENT, TEACHER)
    wanted = absolute + 0.6 * to_teacher + 0.8 * to_student
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("absolute", {}),
        ("raml_batch", {"lambda_ts": 1, "lambda_ss": 1}),
        ("csd", CSD | {"student_temperature": 0.1}),
        ("d3still", {"neighbours": 4, "alpha": 1, "beta": 1, "gamma": 1}),
        ("rkd", {"distance_weight": 1, "angle_weight": 1}),
        ("anchors", {"centroids": TEACHER[:3, 0], "temperature": 0.1, "absolute_weight": 1}),
    ],
)
def test_a_student_that_is_its_teacher_has_no_loss(kind: str, values: dict[str, float]) -> None:
    assert distillation_loss(kind, TEACHER, TEACHER, **values).item() == pytest.approx(0, abs=1e-9)
    assert distillation_loss(kind, STUDENT, TEACHER, **values).item() > 1e-3


def test_the_gradient_goes_to_the_student() -> None:
    student = STUDENT.clone().requires_grad_()
    distillation_loss(
        "rop", student, TEACHER, neighbours=4, temperature=0.1, rank_weight=0.2
    ).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("cds", CSD, "'cds'.*expected tags.*'csd'"),
        ("csd", {"neighbours": 4}, "csd.student_temperature: Field required"),
        ("csd", CSD | {"neighbours": 0}, "csd.neighbours: .*greater than or equal to 2"),
        ("csd", CSD | {"margin": 1}, "csd.margin: Extra inputs are not permitted"),
        ("csd", CSD | {"neighbours": 7}, "neighbours = 7: must be from 1 to the batch's 6"),
        ("csd", CSD | {"centroids": TEACHER[0]}, "csd.centroids: Extra inputs are not permitted"),
        ("anchors", ANCHORS, "anchors.centroids: Field required"),
        ("anchors", ANCHORS | {"centroids": 4}, r"centroids = 4: must be vectors \[vector, 8\]"),
        ("anchors", ANCHORS | {"centroids": TEACHER[0, :, :7]}, r"centroids = \[2, 7\]: must be"),
        ("anchors", ANCHORS | {"centroids": TEACHER}, r"centroids = \[6, 2, 8\]: must be vectors"),
        ("csd", CSD | {"gallery": "bank"}, r"gallery = 'bank': must be vectors \[vector, 8\]"),
        ("rkd", {"distance_weight": TEACHER[0, 0], "angle_weight": 1}, "rkd.distance_weight: "),
        ("rkd", {"distance_weight": TEACHER[0, 0].sum(), "angle_weight": 1}, "weight: "),
    ],
)
def test_what_is_not_of_the_loss_is_told(
    without_shape_checks: None, kind: str, values: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        distillation_loss(kind, STUDENT, TEACHER, **values)


@pytest.mark.parametrize("student", [STUDENT[:, 0], STUDENT[:5], STUDENT[:, :1], STUDENT[..., :7]])
@pytest.mark.parametrize("teacher", [TEACHER, TEACHER[:, 0]])
def test_other_shapes_are_told(
    without_shape_checks: None, student: torch.Tensor, teacher: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=r"must be two of \[batch, view, dim\]"):
        distillation_loss("rkd", student, teacher, distance_weight=1, angle_weight=1)
