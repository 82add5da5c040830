"""The distillation losses: functions of unit embeddings, without labels."""

import torch
from jaxtyping import Float
from torch import Tensor


def absolute_distillation(
    student: Float[Tensor, "batch view dim"], teacher: Float[Tensor, "batch view dim"]
) -> Float[Tensor, ""]:
    """L_abs = mean over images of 1/P sum_i (1 - s_i . t_i)^2, for the P views of an image.

    Rows are unit vectors; the value lies in [0, 4]. Raises ValueError for unequal shapes. Source:
    Suma & Tolias, WACV 2023; no epsilon is added inside the square, and the batch is averaged.
    """
    _check_shapes(student, teacher)
    return (1 - (student * teacher).sum(2)).square().mean()


def relational_distillation(
    student: Float[Tensor, "batch view dim"], teacher: Float[Tensor, "batch view dim"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The teacher-student and the student-student term over the ordered pairs of views of an image.

    L_ts = mean over images of 1/(P(P-1)) sum_{i != j} (s_i . t_j - t_i . t_j)^2
    L_ss = mean over images of 1/(P(P-1)) sum_{i != j} (s_i . s_j - t_i . t_j)^2
    One view has no pair: both terms are 0. Raises ValueError for unequal shapes. Source: Suma &
    Tolias, WACV 2023.
    """
    _check_shapes(student, teacher)
    views = student.shape[1]
    if views == 1:
        zero = (student * 0).sum()
        return zero, zero
    teacher_pairs = teacher @ teacher.mT
    to_teacher = student @ teacher.mT - teacher_pairs
    to_student = student @ student.mT - teacher_pairs
    return _mean_square_of_pairs(to_teacher), _mean_square_of_pairs(to_student)


def _mean_square_of_pairs(differences: Float[Tensor, "batch view view"]) -> Float[Tensor, ""]:
    """The mean of d_ij^2 over i != j. To select the pairs by a mask would make a GPU wait."""
    batch, views, _ = differences.shape
    between = 1 - torch.eye(views, dtype=differences.dtype, device=differences.device)
    return (differences * between).square().sum() / (batch * views * (views - 1))


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 3 or student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}: both must be "
            "[batch, view, dim], of the same shape"
        )
