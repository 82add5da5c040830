"""The distillation losses by their names in params.yaml."""

from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from pipeline.config.losses import DistillationLoss
from pipeline.training.named_losses import TERMS

_VALUES: TypeAdapter[DistillationLoss] = TypeAdapter(DistillationLoss)


def distillation_loss(
    kind: str,
    student: Float[Tensor, "batch view dim"],
    teacher: Float[Tensor, "batch view dim"],
    **values: float | Float[Tensor, "centroid dim"],
) -> Float[Tensor, ""]:
    """The loss that params.yaml names `kind`, as a training sums its terms; a mean over images.

    kind: absolute, raml, raml_batch, csd, rop, d3still, rkd or anchors. What compares the images of
        a batch does so for each number of view by itself, and takes the mean over these numbers.
    student, teacher: unit vectors of the same views; the teacher's get no gradient if they have
        none.
    values: those of the kind, all of them: `lambda_ts`, `lambda_ss` of raml and raml_batch;
        `neighbours`, `student_temperature`, `teacher_temperature` of csd; `neighbours`,
        `temperature`, `rank_weight` of rop; `neighbours`, `alpha`, `beta`, `gamma` of d3still;
        `distance_weight`, `angle_weight` of rkd; `centroids` (the vectors themselves),
        `temperature`, `absolute_weight` of anchors. `neighbours` counts images of the batch, the
        weights are factors.

    Raises ValueError for another kind, values that are missing, unknown or out of range, unequal
    shapes, and a batch with fewer images than `neighbours`. Sources and formulas: the functions of
    `pipeline.training.losses`.
    """
    if student.ndim != 3 or student.shape != teacher.shape:
        raise ValueError(
            f"student {[*student.shape]}, teacher {[*teacher.shape]}: must be two of "
            "[batch, view, dim], of one shape"
        )
    counted = dict(values)
    if kind == "anchors" and "centroids" in values:
        counted["centroids"] = _centroid_count(values["centroids"], student.shape[2])
    try:
        _VALUES.validate_python({"kind": kind, **counted})
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, one['loc'])) or 'kind'}: {one['msg']}" for one in error.errors()
        )
        raise ValueError(f"distillation_loss({kind!r}): {'; '.join(faults)}") from error
    terms = TERMS[kind](student, teacher, **values)
    return sum(terms.values(), start=student.new_zeros(()))


def _centroid_count(centroids: object, dim: int) -> int:
    """How many there are. Raises ValueError for what is no vectors of so many numbers."""
    if not isinstance(centroids, Tensor) or centroids.ndim != 2 or centroids.shape[1] != dim:
        given = [*centroids.shape] if isinstance(centroids, Tensor) else repr(centroids)
        raise ValueError(f"centroids = {given}: must be vectors [centroid, {dim}]")
    return len(centroids)
