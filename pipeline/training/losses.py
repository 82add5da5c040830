"""The distillation losses: functions of unit embeddings, without labels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize, smooth_l1_loss

Gallery = Float[Tensor, "item dim"]  # embeddings by the teacher among which neighbours are sought

STEP = 1e-6  # temperature of the teacher's order in `rop`: next to a step function
SAME = 1e-6  # of cosine: two vectors of one image
OFFSET = 0.1  # added to the teacher's difference that `d3still` divides by


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


def csd(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    *,
    neighbours: int,
    student_temperature: float,
    teacher_temperature: float,
    gallery: Gallery | None = None,
) -> Float[Tensor, ""]:
    """mean_i KL(softmax_j(t_i . t_j / T_t) || softmax_j(s_i . t_j / T_s)), j over N(i).

    N(i): image i itself, and the `neighbours` - 1 others of the batch nearest to it by the teacher.
    With a gallery of embeddings by the teacher they are the nearest there but for the image's own,
    and none of the batch. Raises ValueError for unequal shapes and for fewer images than
    `neighbours`. Source: Wu et al., CVPR 2022 (contextual similarity distillation), whose gallery
    is the training set.
    """
    to_teacher, own = _neighbourhoods(student, teacher, neighbours, gallery)
    return _divergence(to_teacher / student_temperature, own / teacher_temperature)


def rop(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    *,
    neighbours: int,
    temperature: float,
    rank_weight: float,
    gallery: Gallery | None = None,
) -> Float[Tensor, ""]:
    """mean_i 1/k sum_j w_ij sum_l [sigma((b_il - b_ij) / 1e-6) - sigma((a_il - b_ij) / T)]^2.

    a_ij = s_i . t_j and b_ij = t_i . t_j, j and l over the k nearest images N(i) as for `csd`;
    w_ij = r_j softmax_j(rank_weight b_ij), r_j = 1..k being the rank of j. The sum over l of either
    sigma is about a rank, so that the student keeps the teacher's order. Raises ValueError as `csd`
    does. Source: Xie et al., ICLR 2023 (rank order preserving), whose gallery is the training set.
    """
    to_teacher, own = _neighbourhoods(student, teacher, neighbours, gallery)
    rank = torch.arange(1, neighbours + 1, dtype=own.dtype, device=own.device)
    weight = rank * (rank_weight * own).softmax(1)
    order = ((own[:, None] - own[:, :, None]) / STEP).sigmoid()  # [image, j, l]
    learned = ((to_teacher[:, None] - own[:, :, None]) / temperature).sigmoid()
    return (weight * (order - learned).square().sum(2)).sum(1).mean() / neighbours


def d3still(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    *,
    neighbours: int,
    alpha: float,
    beta: float,
    gamma: float,
    gallery: Gallery | None = None,
) -> Float[Tensor, ""]:
    """alpha/B |(b_ii - a_ii)_i| + beta/(k-1) mean_i |h_i| + gamma/(k-1) mean_i |e_i|.

    a_ij = s_i . t_j and b_ij = t_i . t_j. For the pairs (j, l) of the k nearest images N(i) as for
    `csd`, but for i itself: D = a_ij - a_il, E = b_ij - b_il, r = (D - E) / (0.1 + |E|). h_i are
    the r of pairs that the student orders otherwise than the teacher (D and E of opposite signs),
    e_i those of the other pairs. |.| is the Euclidean norm. Raises ValueError as `csd` does, and
    for fewer than two neighbours. Source: Xie et al., CVPR 2024, and their code, whose gallery is
    the batch.
    """
    if neighbours < 2:
        raise ValueError(f"neighbours = {neighbours}: must be 2 or more, as the first is the image")
    to_teacher, own = _neighbourhoods(student, teacher, neighbours, gallery)
    feature = torch.linalg.vector_norm(own[:, 0] - to_teacher[:, 0]) / len(own)
    to_teacher, own = to_teacher[:, 1:], own[:, 1:]
    learned = to_teacher[:, :, None] - to_teacher[:, None]
    wanted = own[:, :, None] - own[:, None]
    rest = (learned - wanted) / (OFFSET + wanted.abs())
    turned = (learned * wanted).detach() < 0
    hard, easy = (
        torch.linalg.vector_norm(rest.where(chosen, 0).flatten(1), dim=1).mean() / (neighbours - 1)
        for chosen in (turned, ~turned)
    )
    return alpha * feature + beta * hard + gamma * easy


def rkd(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    *,
    distance_weight: float,
    angle_weight: float,
) -> Float[Tensor, ""]:
    """Smooth L1 between relations within the student and the same relations within the teacher.

    distance_weight: of the distances between all images, divided by their mean; angle_weight: of
    the cosines of the angles (j, i, l) that images j and l make at image i. A student that is the
    teacher turned has no loss: the spaces are not aligned. Raises ValueError for unequal shapes and
    for one image. Source: Park et al., CVPR 2019.
    """
    _check_rows(student, teacher)
    if len(student) < 2:
        raise ValueError("one image has no relation to another: the batch must hold two or more")
    (distances, angles), (wanted_distances, wanted_angles) = map(_relations, (student, teacher))
    of_distances = smooth_l1_loss(distances, wanted_distances)
    return distance_weight * of_distances + angle_weight * smooth_l1_loss(angles, wanted_angles)


def anchors(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    centroids: Float[Tensor, "centroid dim"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """mean_i KL(softmax_m(t_i . c_m / T) || softmax_m(s_i . c_m / T)) over the centroids c_m.

    centroids: of the database's vectors. Raises ValueError for unequal shapes. Source: Wu et al.,
    arXiv 2403.00648 (structure similarity preservation).
    """
    _check_rows(student, teacher)
    return _divergence(student @ centroids.mT / temperature, teacher @ centroids.mT / temperature)


def _neighbourhoods(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    neighbours: int,
    gallery: Gallery | None,
) -> tuple[Float[Tensor, "batch neighbour"], Float[Tensor, "batch neighbour"]]:
    """s_i . t_j and t_i . t_j for the images j nearest to i by the teacher, i itself first."""
    _check_rows(student, teacher)
    if gallery is None:
        most, of = len(teacher), f"the batch's {len(teacher)}"
    else:
        most = len(gallery) + 1
        of = f"{most}, the image and the gallery's {len(gallery)}"
    if not 1 <= neighbours <= most:
        raise ValueError(f"neighbours = {neighbours}: must be from 1 to {of}")
    if gallery is None:
        own = teacher @ teacher.mT
        itself = torch.eye(len(own), dtype=torch.bool, device=own.device)
        order = own.masked_fill(itself, torch.inf).topk(neighbours, dim=1).indices
        return (student @ teacher.mT).gather(1, order), own.gather(1, order)
    alike = teacher @ gallery.mT  # the gallery may hold the image itself, which is there already
    order = alike.masked_fill(alike > 1 - SAME, -torch.inf).topk(neighbours - 1, dim=1).indices
    near = torch.cat([teacher[:, None], gallery[order]], dim=1)
    return (near @ student[:, :, None]).squeeze(2), (near @ teacher[:, :, None]).squeeze(2)


def _divergence(
    student: Float[Tensor, "batch item"], teacher: Float[Tensor, "batch item"]
) -> Float[Tensor, ""]:
    """mean_i KL(softmax(teacher_i) || softmax(student_i))."""
    logs = log_softmax(student, dim=1), log_softmax(teacher, dim=1)
    return kl_div(*logs, reduction="batchmean", log_target=True)


def _relations(
    rows: Float[Tensor, "batch dim"],
) -> tuple[Float[Tensor, "batch batch"], Float[Tensor, "batch batch batch"]]:
    """The distances of two rows, divided by their mean, and the cosines at each row of two."""
    between = rows[:, None] - rows
    distances = torch.linalg.vector_norm(between, dim=2)
    mean = distances.sum() / (len(rows) * (len(rows) - 1))
    towards = normalize(between, dim=2, eps=1e-6)
    return distances / mean, towards @ towards.mT


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


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}: both must be "
            "[batch, dim], of the same shape"
        )
