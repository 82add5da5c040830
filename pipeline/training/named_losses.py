"""The distillation losses by the names that params.yaml gives them, as the terms of a training.

Each takes the embeddings of the views by student and teacher and gives its weighted terms, whose
sum is the loss. What compares the images of a batch does so for each number of view by itself, one
view an image, and takes the mean over these numbers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.training import losses
from pipeline.training.centroids import cluster_centroids

Views = Float[Tensor, "batch view dim"]
Terms = dict[str, Float[Tensor, ""]]


def absolute_terms(student: Views, teacher: Views) -> Terms:
    return {"absolute": losses.absolute_distillation(student, teacher)}


def raml_terms(student: Views, teacher: Views, *, lambda_ts: float, lambda_ss: float) -> Terms:
    """L_abs + lambda_ts L_ts + lambda_ss L_ss, the relations being those of one image's views."""
    to_teacher, to_student = losses.relational_distillation(student, teacher)
    return absolute_terms(student, teacher) | {
        "relational_ts": lambda_ts * to_teacher,
        "relational_ss": lambda_ss * to_student,
    }


def raml_batch_terms(
    student: Views, teacher: Views, *, lambda_ts: float, lambda_ss: float
) -> Terms:
    """As `raml_terms`, the relations being those between the images of the batch."""
    turned = student.transpose(0, 1), teacher.transpose(0, 1)
    return raml_terms(*turned, lambda_ts=lambda_ts, lambda_ss=lambda_ss)


def anchors_terms(
    student: Views,
    teacher: Views,
    *,
    centroids: Float[Tensor, "centroid dim"],
    temperature: float,
    absolute_weight: float,
) -> Terms:
    """absolute_weight L_abs, and the divergence of the similarities to the centroids."""
    rows = student.flatten(0, 1), teacher.flatten(0, 1)
    absolute = losses.absolute_distillation(student, teacher)
    return {
        "absolute": absolute_weight * absolute,
        "anchors": losses.anchors(*rows, centroids, temperature=temperature),
    }


def _between_images(name: str, loss: Callable[..., Tensor]) -> Callable[..., Terms]:
    def terms(student: Views, teacher: Views, **parameters: float | Tensor | None) -> Terms:
        pairs = zip(student.unbind(1), teacher.unbind(1), strict=True)
        return {name: torch.stack([loss(*pair, **parameters) for pair in pairs]).mean()}

    return terms


# The keyword arguments of each are its keys in params.yaml; see pipeline.config.losses.
TERMS: dict[str, Callable[..., Terms]] = {
    "absolute": absolute_terms,
    "raml": raml_terms,
    "raml_batch": raml_batch_terms,
    "csd": _between_images("csd", losses.csd),
    "rop": _between_images("rop", losses.rop),
    "d3still": _between_images("d3still", losses.d3still),
    "rkd": _between_images("rkd", losses.rkd),
    "anchors": anchors_terms,
}


def loss_of(
    loss: Mapping[str, Any],
    vectors: Callable[[], Float[Tensor, "vector dim"]],
    seed: int,
    device: torch.device,
) -> Callable[[Views, Views], Terms]:
    """The terms of a loss as params.yaml has it: its `kind` and its values.

    vectors: gives the teacher's, that a loss with a bank seeks neighbours among, and that the
    `centroids`, so many, of a loss are of; not called for a loss without. Centroids are drawn from
    `seed`.
    """
    values = {key: value for key, value in loss.items() if key != "kind"}
    if "centroids" in values:
        centroids = cluster_centroids(vectors(), values["centroids"], seed)
        values["centroids"] = centroids.to(device)
    if "gallery" in values:
        is_bank = values["gallery"] == "bank"
        values["gallery"] = vectors().to(device) if is_bank else None
    return partial(TERMS[loss["kind"]], **values)
