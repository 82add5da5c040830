"""Losses between the images of a batch: by hand, by loops, by published code, by differences."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.training.losses import anchors, csd, d3still, rkd, rop

CSD = {"neighbours": 5, "student_temperature": 0.3, "teacher_temperature": 0.1}
ROP = {"neighbours": 5, "temperature": 0.1, "rank_weight": 0.4}
D3 = {"neighbours": 6, "alpha": 3.0, "beta": 2.0, "gamma": 0.5}
RKD = {"distance_weight": 2.0, "angle_weight": 3.0}
LOSSES = {
    "csd": partial(csd, **CSD),
    "rop": partial(rop, **ROP),
    "d3still": partial(d3still, **D3),
    "rkd": partial(rkd, **RKD),
}
# Names in rival_losses.npz, and the values they were computed with.
PUBLISHED = {
    "csd_k12": partial(csd, neighbours=12, student_temperature=1, teacher_temperature=0.01),
    "csd_k20_t0.1_0.05": partial(
        csd, neighbours=20, student_temperature=0.1, teacher_temperature=0.05
    ),
    "rop_k12": partial(rop, neighbours=12, temperature=0.1, rank_weight=0.2),
    "rop_k20": partial(rop, neighbours=20, temperature=0.05, rank_weight=0.5),
    "d3_k10_100_5_1": partial(d3still, neighbours=10, alpha=100, beta=5, gamma=1),
    "d3_k16_50_2_1": partial(d3still, neighbours=16, alpha=50, beta=2, gamma=1),
    "rkd_25_50": partial(rkd, distance_weight=25, angle_weight=50),
}


def random_units(batch: int = 8, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    student, teacher = normalize(drawn, dim=-1)
    return student, teacher


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softmax(values: list[float]) -> list[float]:
    exponents = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponents) for value in exponents]


def divergence(wanted: list[float], learned: list[float]) -> float:
    pairs = zip(softmax(wanted), softmax(learned), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def neighbourhoods(
    student: Tensor, teacher: Tensor, neighbours: int, gallery: Tensor | None
) -> list[tuple[list[float], list[float]]]:
    """For each image its s_i . t_j and t_i . t_j, the image itself first, then by falling t."""
    found = []
    for i, (s, t) in enumerate(zip(student.tolist(), teacher.tolist(), strict=True)):
        rest = [row for j, row in enumerate(teacher.tolist()) if j != i]
        others = rest
        if gallery is not None:  # which may hold the image itself
            others = [row for row in gallery.tolist() if row != t]
        near = [t, *sorted(others, key=lambda row: -dot(t, row))][:neighbours]
        found.append(([dot(s, one) for one in near], [dot(t, one) for one in near]))
    return found


def loop_csd(student: Tensor, teacher: Tensor, gallery: Tensor | None = None) -> float:
    rows = neighbourhoods(student, teacher, CSD["neighbours"], gallery)
    return sum(
        divergence([value / 0.1 for value in b], [value / 0.3 for value in a]) for a, b in rows
    ) / len(rows)


def loop_rop(student: Tensor, teacher: Tensor, gallery: Tensor | None = None) -> float:
    rows = neighbourhoods(student, teacher, ROP["neighbours"], gallery)
    total = 0.0
    for a, b in rows:
        weights = softmax([0.4 * value for value in b])
        for j, (weight, own) in enumerate(zip(weights, b, strict=True), start=1):
            errors = [
                (sigmoid((b[item] - own) / 1e-6) - sigmoid((a[item] - own) / 0.1)) ** 2
                for item in range(len(b))
            ]
            total += j * weight * sum(errors) / len(b)
    return total / len(rows)


def loop_d3still(student: Tensor, teacher: Tensor, gallery: Tensor | None = None) -> float:
    rows = neighbourhoods(student, teacher, D3["neighbours"], gallery)
    feature = math.sqrt(sum((b[0] - a[0]) ** 2 for a, b in rows)) / len(rows)
    hard = easy = 0.0
    for a, b in rows:
        squares = {True: 0.0, False: 0.0}
        for j in range(1, len(b)):
            for item in range(1, len(b)):
                if j != item:
                    learned, wanted = a[j] - a[item], b[j] - b[item]
                    rest = (learned - wanted) / (0.1 + abs(wanted))
                    squares[learned * wanted < 0] += rest**2
        hard += math.sqrt(squares[True]) / (len(b) - 1) / len(rows)
        easy += math.sqrt(squares[False]) / (len(b) - 1) / len(rows)
    return 3.0 * feature + 2.0 * hard + 0.5 * easy


def smooth_l1(difference: float) -> float:
    size = abs(difference)
    return size**2 / 2 if size < 1 else size - 0.5


def loop_rkd(student: Tensor, teacher: Tensor) -> float:
    images = range(len(student))
    distances, cosines = [], []
    for rows in (student.tolist(), teacher.tolist()):
        apart = [[math.dist(one, other) for other in rows] for one in rows]
        mean = sum(map(sum, apart)) / (len(rows) * (len(rows) - 1))
        distances.append([value / mean for row in apart for value in row])
        angles = []
        for i in images:
            towards = [[x - y for x, y in zip(rows[i], row, strict=True)] for row in rows]
            lengths = [math.hypot(*one) or 1.0 for one in towards]
            angles += [
                dot(towards[j], towards[item]) / lengths[j] / lengths[item]
                for j in images
                for item in images
            ]
        cosines.append(angles)
    means = [
        sum(smooth_l1(x - y) for x, y in zip(*both, strict=True)) / len(both[0])
        for both in (distances, cosines)
    ]
    return 2.0 * means[0] + 3.0 * means[1]


SOUGHT = ("csd", "rop", "d3still")  # they compare with neighbours
LOOPS: dict[str, Callable[..., float]] = {
    "csd": loop_csd,
    "rop": loop_rop,
    "d3still": loop_d3still,
    "rkd": loop_rkd,
}


@pytest.mark.parametrize("name", LOOPS)
def test_equals_plain_loops(name: str) -> None:
    for seed, (batch, dim) in enumerate([(8, 5), (6, 2), (11, 32)]):
        student, teacher = random_units(batch, dim, seed)
        expected = LOOPS[name](student, teacher)
        assert expected > 0.01
        assert LOSSES[name](student, teacher).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", SOUGHT)
def test_equals_plain_loops_where_neighbours_are_sought_in_a_bank(name: str) -> None:
    for seed, batch in enumerate([8, 1]):
        student, teacher = random_units(batch, 5, seed)
        gallery = torch.cat([teacher[:1], random_units(19, 5, seed + 7)[0]])  # a copy, too
        expected = LOOPS[name](student, teacher, gallery)
        found = LOSSES[name](student, teacher, gallery=gallery).item()
        assert found == pytest.approx(expected, rel=1e-11)
        if batch > 1:
            assert abs(found - LOSSES[name](student, teacher).item()) > 1e-3 * found


@pytest.mark.parametrize("name", SOUGHT)
def test_in_a_bank_no_image_of_the_batch_matters_to_another(name: str) -> None:
    """The loss of a batch is the mean of the losses of its images, but for D3still's own norm."""
    student, teacher = random_units()
    loss = partial(LOSSES[name], gallery=random_units(20, seed=9)[0])
    if name == "d3still":
        loss = partial(loss, alpha=0)
    each = [loss(student[i : i + 1], teacher[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(torch.stack(each).mean(), loss(student, teacher))


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_published_code(shared: Path, name: str) -> None:
    # Origin: the code of D3still (CVPR 2024), which holds all four, run on these embeddings.
    with np.load(shared / "reference" / "rival_losses.npz") as file:
        for case in range(3):
            rows = (torch.from_numpy(file[f"{role}_{case}"]) for role in ("student", "teacher"))
            ours = PUBLISHED[name](*rows).item()
            assert ours == pytest.approx(float(file[f"{name}_{case}"]), rel=1e-12)


BANKS = {
    f"{name} in a bank": partial(LOSSES[name], gallery=random_units(12, seed=4)[0])
    for name in SOUGHT
}


def test_csd_by_hand() -> None:
    # Teacher e1, e2: softmax of (1, 0) / T; the student has both images at e1: (1, 0), (1, 0).
    teacher = torch.eye(2, dtype=torch.float64)
    student = teacher[[0, 0]]
    value = csd(student, teacher, neighbours=2, student_temperature=1, teacher_temperature=1)
    # The first image has no divergence; the second's is (p - q)(log p - log q) = tanh(1/2).
    assert value.item() == pytest.approx(math.tanh(0.5) / 2, rel=1e-14)


def test_an_image_in_its_own_bank_is_no_neighbour_of_itself() -> None:
    """With two neighbours, both itself, nothing would be left to learn."""
    student, teacher = random_units(6, 5, 3)
    value = partial(csd, neighbours=2, student_temperature=1, teacher_temperature=0.1)
    student.requires_grad_()
    loss = value(student, teacher, gallery=torch.cat([teacher, -teacher]))
    loss.backward()
    assert loss.item() > 1e-3
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-3


def test_csd_with_a_bank_by_hand() -> None:
    # t = e1 among e2 and -e1: itself and e2, (1, 0); the student has e2: (0, 1).
    student, teacher, other = torch.eye(3, dtype=torch.float64)[:, None]
    value = partial(csd, student_temperature=1, teacher_temperature=1, neighbours=2)
    found = value(student, teacher, gallery=torch.cat([student, -teacher]))
    assert found.item() == pytest.approx(math.tanh(0.5), rel=1e-14)
    # Where e3 is the neighbour, (1, 0) against (0, 0): log 2 less the entropy of softmax(1, 0).
    found = value(student, teacher, gallery=torch.cat([other, -teacher]))
    share = 1 / (1 + math.exp(-1))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.item() == pytest.approx(math.log(2) - entropy, rel=1e-14)


def test_rop_by_hand() -> None:
    # One neighbour, the image itself: w = 1, and sigma(0) - sigma((a - b) / T) with a - b = -1.
    teacher = torch.eye(2, dtype=torch.float64)
    value = rop(teacher.flip(0), teacher, neighbours=1, temperature=0.5, rank_weight=9)
    assert value.item() == pytest.approx((0.5 - 1 / (1 + math.exp(2))) ** 2, rel=1e-14)


def test_d3still_by_hand() -> None:
    """A student that only turns the order of the two others of three images."""
    # t = e1, and at 60 and 90 degrees of it, so that b_1 = (1, 1/2, 0); s_1 = e2: a_1 = (0, x, 1).
    half = math.sqrt(3) / 2
    teacher = torch.tensor([[1, 0], [0.5, half], [0, 1]], dtype=torch.float64)
    student = teacher.clone()
    student[0] = torch.tensor([0, 1], dtype=torch.float64)
    # D = a_12 - a_13 = half - 1 and E = 1/2: opposite signs, both ways: sqrt(2) |D - E| / 0.6.
    hard = math.sqrt(2) * (1.5 - half) / 0.6 / 2 / 3
    value = partial(d3still, student, teacher, neighbours=3)
    assert value(alpha=3, beta=0, gamma=0).item() == pytest.approx(1.0, rel=1e-14)
    assert value(alpha=0, beta=1, gamma=0).item() == pytest.approx(hard, rel=1e-14)
    assert value(alpha=0, beta=0, gamma=1).item() == 0


def test_rkd_by_hand() -> None:
    # Two images have one distance, which is its own mean, and no angle but those of j = l.
    student, teacher = random_units(2)
    assert rkd(student, teacher, distance_weight=1, angle_weight=1).item() == pytest.approx(0)
    # Corners of a square against three on a line at 0, 1 and 2, unit length or not.
    line = torch.tensor([[0.0, 0], [1, 0], [2, 0]], dtype=torch.float64)
    corner = torch.tensor([[1.0, 0], [0, 0], [0, 1]], dtype=torch.float64)
    mean = (2 + math.sqrt(2)) / 3
    sides = [2 * (0.75 - 1 / mean) ** 2 / 2, (1.5 - math.sqrt(2) / mean) ** 2 / 2]
    distances = rkd(line, corner, distance_weight=1, angle_weight=0)
    assert distances.item() == pytest.approx(2 * sum(sides) / 9, rel=1e-14)
    # Cosines between the two others: at the ends 1 and 1/sqrt(2), in the middle -1 and 0.
    ends = (1 - math.sqrt(0.5)) ** 2 / 2
    angles = rkd(line, corner, distance_weight=0, angle_weight=1)
    assert angles.item() == pytest.approx(2 * (2 * ends + 0.5) / 27, rel=1e-14)


def test_anchors_by_hand_and_by_loops() -> None:
    teacher = torch.eye(2, dtype=torch.float64)
    turned = anchors(teacher.flip(0), teacher, teacher, temperature=1.0)
    assert turned.item() == pytest.approx(math.tanh(0.5), rel=1e-14)
    student, teacher = random_units()
    _, centroids = random_units(4, seed=3)
    expected = [
        divergence(*([10 * dot(row, c) for c in centroids.tolist()] for row in rows))
        for rows in zip(teacher.tolist(), student.tolist(), strict=True)
    ]
    ours = anchors(student, teacher, centroids, temperature=0.1).item()
    assert ours == pytest.approx(sum(expected) / len(expected), rel=1e-12)


@pytest.mark.parametrize("name", [*LOSSES, "anchors", *BANKS])
def test_gradient_by_differences(name: str) -> None:
    student, teacher = random_units()
    loss = (LOSSES | BANKS).get(name) or partial(anchors, centroids=teacher[:3], temperature=0.2)
    assert torch.autograd.gradcheck(lambda rows: loss(rows, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("name", [*LOSSES, "anchors"])
def test_a_student_that_equals_its_teacher_stays(name: str) -> None:
    """No gradient, and none that is not a number, where norms and differences are 0."""
    _, teacher = random_units()
    student = teacher.clone().requires_grad_()
    same = CSD | {"student_temperature": CSD["teacher_temperature"]}
    aligned = LOSSES | {
        "csd": partial(csd, **same),
        "anchors": partial(anchors, centroids=teacher[:3], temperature=0.2),
    }
    value = aligned[name](student, teacher)
    value.backward()
    assert student.grad is not None
    if name == "rop":  # its sigmoids differ: the student's order is soft
        assert value.item() > 0
        assert student.grad.isfinite().all()
        return
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert student.grad.abs().max() < 1e-9


def test_rkd_does_not_align_the_spaces_and_the_others_do() -> None:
    student, teacher = random_units()
    generator = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    for name, loss in LOSSES.items():
        plain = loss(student, teacher)
        torch.testing.assert_close(loss(student @ turn, teacher @ turn), plain)
        if name == "rkd":
            torch.testing.assert_close(loss(student @ turn, teacher), plain)
        else:
            assert abs(loss(student @ turn, teacher) - plain) > 1e-2 * plain


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_images_does_not_matter(name: str) -> None:
    student, teacher = random_units()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    turned = LOSSES[name](student[order], teacher[order])
    torch.testing.assert_close(turned, LOSSES[name](student, teacher))


def test_an_image_is_its_own_first_neighbour_beside_a_copy() -> None:
    """Two images of one embedding: for D3still each leaves out itself, and never the other."""
    student, teacher = random_units()
    teacher[1] = teacher[0]
    loop = loop_d3still(student, teacher)
    assert LOSSES["d3still"](student, teacher).item() == pytest.approx(loop, rel=1e-11)


@pytest.mark.usefixtures("without_shape_checks")
def test_refuses_wrong_shapes_and_too_few_images() -> None:
    student, teacher = random_units()
    wrong = [(student, teacher[:7]), (student[None], teacher[None]), (student, teacher[:, :4])]
    refused = 0
    for loss in [*LOSSES.values(), partial(anchors, centroids=teacher, temperature=1.0)]:
        for rows in wrong:
            with pytest.raises(ValueError, match=r"both must be \[batch, dim\]"):
                loss(*rows)
            refused += 1
    assert refused == 15
    for name in SOUGHT:
        with pytest.raises(ValueError, match="must be from 1 to the batch's 4"):
            LOSSES[name](student[:4], teacher[:4])
    bank = teacher[:3]
    for name in SOUGHT:
        with pytest.raises(ValueError, match="must be from 1 to 4, the image and the gallery's 3"):
            LOSSES[name](student, teacher, gallery=bank)
    with pytest.raises(ValueError, match="must be from 1 to the batch's 8"):
        csd(student, teacher, **CSD | {"neighbours": 0})
    with pytest.raises(ValueError, match="neighbours = 1: must be 2 or more"):
        d3still(student, teacher, **D3 | {"neighbours": 1})
    with pytest.raises(ValueError, match="one image has no relation"):
        rkd(student[:1], teacher[:1], **RKD)
