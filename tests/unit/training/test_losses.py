"""The distillation losses: by hand, by loops, by the authors' code, by what must not matter."""

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.training.losses import absolute_distillation, relational_distillation

REFERENCE_CASES = range(4)


def random_units(batch: int = 3, view: int = 4, dim: int = 6, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, batch, view, dim, generator=generator, dtype=torch.float64)
    student, teacher = normalize(drawn, dim=-1)
    return student, teacher


def all_terms(student: Tensor, teacher: Tensor) -> tuple[float, float, float]:
    to_teacher, to_student = relational_distillation(student, teacher)
    return float(absolute_distillation(student, teacher)), float(to_teacher), float(to_student)


def loop_terms(student: Tensor, teacher: Tensor, eps: float = 0.0) -> tuple[float, float, float]:
    """Sums over the batch with plain loops; `eps` is added inside each square, as the peer does."""
    absolute = to_teacher = to_student = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        views = len(s)

        def dot(a: list[float], b: list[float]) -> float:
            return sum(x * y for x, y in zip(a, b, strict=True))

        absolute += sum((1 - dot(s[i], t[i]) + eps) ** 2 for i in range(views)) / views
        for i in range(views):
            for j in range(views):
                if i != j:
                    pair = dot(t[i], t[j])
                    share = 1 / (views * (views - 1))
                    to_teacher += share * (dot(s[i], t[j]) - pair + eps) ** 2
                    to_student += share * (dot(s[i], s[j]) - pair + eps) ** 2
    return absolute, to_teacher, to_student


def test_by_hand() -> None:
    # Teacher views e1, e2; the student has both at e1: s1.t1 = 1, s2.t2 = 0; pairs t1.t2 = 0,
    # s1.t2 = 0, s2.t1 = 1, s1.s2 = 1.
    teacher = torch.eye(2, dtype=torch.float64)[None]
    student = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    assert all_terms(student, teacher) == (0.5, 0.5, 1.0)


def test_the_batch_is_averaged() -> None:
    teacher = torch.eye(2, dtype=torch.float64)[None]
    student = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    two = all_terms(torch.cat([student, teacher]), torch.cat([teacher, teacher]))
    assert two == (0.25, 0.25, 0.5)


def test_equals_plain_loops() -> None:
    cases = 0
    for seed, (batch, view, dim) in enumerate([(1, 2, 2), (3, 4, 6), (2, 5, 3), (4, 2, 16)]):
        student, teacher = random_units(batch, view, dim, seed)
        expected = [value / batch for value in loop_terms(student, teacher)]
        assert all_terms(student, teacher) == pytest.approx(expected, rel=1e-12)
        cases += 1
    assert cases == 4


@pytest.mark.parametrize("case", REFERENCE_CASES)
def test_equals_the_authors_code(shared: Path, case: int) -> None:
    # Origin: pavelsuma/raml, run on these embeddings; sums over the batch, 1e-6 in each square.
    with np.load(shared / "reference" / "losses.npz") as file:
        student = torch.from_numpy(file[f"student_{case}"])
        teacher = torch.from_numpy(file[f"teacher_{case}"])
        names = ("absolute", "relational_ts", "relational_ss")
        reference = [float(file[f"raml_{name}_sum_{case}"]) for name in names]
    # With the peer's eps the formula is the peer's to the last digits ...
    assert loop_terms(student, teacher, eps=1e-6) == pytest.approx(reference, rel=1e-12)
    # ... and ours differs by no more than that eps can: |(x + eps)^2 - x^2| = eps |2x + eps|.
    ours = [value * len(student) for value in all_terms(student, teacher)]
    assert ours == pytest.approx(reference, rel=1e-5)


def test_invariances() -> None:
    student, teacher = random_units()
    expected = pytest.approx(all_terms(student, teacher), rel=1e-12)
    generator = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    assert all_terms(student @ turn, teacher @ turn) == expected
    views, images = torch.randperm(4, generator=generator), [2, 0, 1]
    assert all_terms(student[:, views], teacher[:, views]) == expected
    assert all_terms(student[images], teacher[images]) == expected


def test_relations_stay_within_an_image() -> None:
    """Changing one image changes the sum by that image's own part, whatever the others are."""
    student, teacher = random_units()
    alone = all_terms(student[:1], teacher[:1])
    rest = all_terms(student[1:], teacher[1:])
    joint = [(own + 2 * others) / 3 for own, others in zip(alone, rest, strict=True)]
    assert all_terms(student, teacher) == pytest.approx(joint, rel=1e-12)


def test_a_student_that_equals_its_teacher_has_no_loss() -> None:
    _, teacher = random_units()
    assert all_terms(teacher, teacher) == pytest.approx((0, 0, 0), abs=1e-30)
    # A student that is the teacher turned keeps every relation of its own, and no place.
    absolute, to_teacher, to_student = all_terms(-teacher, teacher)
    assert absolute == pytest.approx(4, rel=1e-12)
    assert to_student == pytest.approx(0, abs=1e-30)
    assert to_teacher > 0.01


def test_one_view_has_no_relations_and_still_a_gradient() -> None:
    student, teacher = random_units(view=1)
    student = student.requires_grad_()
    to_teacher, to_student = relational_distillation(student, teacher)
    assert (to_teacher.item(), to_student.item()) == (0, 0)
    (absolute_distillation(student, teacher) + to_teacher + to_student).backward()
    gradient = student.grad
    assert gradient is not None
    # d/ds (1 - s.t)^2 / B = -2 (1 - s.t) t / B
    with torch.no_grad():
        rest = 1 - (student * teacher).sum(2, keepdim=True)
        torch.testing.assert_close(gradient, -2 * rest * teacher / 3, rtol=1e-12, atol=0)


def test_gradient_by_differences() -> None:
    student, teacher = random_units(2, 3, 4)

    def total(embeddings: Tensor) -> Tensor:
        relations = relational_distillation(embeddings, teacher)
        return absolute_distillation(embeddings, teacher) + relations[0] + 2 * relations[1]

    assert torch.autograd.gradcheck(total, (student.requires_grad_(),), atol=1e-7)


WRONG = {
    "views differ": (torch.zeros(2, 3, 4), torch.zeros(2, 2, 4)),
    "images differ": (torch.zeros(2, 3, 4), torch.zeros(1, 3, 4)),
    "dims differ": (torch.zeros(2, 3, 4), torch.zeros(2, 3, 1)),
    "no view axis": (torch.zeros(2, 4), torch.zeros(2, 4)),
}


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("loss", [absolute_distillation, relational_distillation])
@pytest.mark.parametrize("fault", WRONG)
def test_refuses_wrong_shapes(loss, fault: str) -> None:
    with pytest.raises(ValueError, match=r"both must be \[batch, view, dim\]"):
        loss(*WRONG[fault])


def test_shapes_are_checked_by_their_annotations_in_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="batch view dim"):
        absolute_distillation(*WRONG["views differ"])
