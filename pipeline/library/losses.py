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
    **values: float | Float[Tensor, "vector dim"],
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
        `temperature`, `absolute_weight` of anchors. The weights are factors. Neighbours are sought
        in the batch, or among the teacher's vectors `gallery`, which csd, rop and d3still take.

    Raises ValueError for another kind, values that are missing, unknown or out of range, unequal
    shapes, and fewer images than `neighbours`. Sources and formulas: the functions of
    `pipeline.training.losses`.
    """
    if student.ndim != 3 or student.shape != teacher.shape:
        raise ValueError(
            f"student {[*student.shape]}, teacher {[*teacher.shape]}: must be two of "
            "[batch, view, dim], of one shape"
        )
    named: dict[str, object] = dict(values)
    dim = student.shape[2]
    if kind == "anchors" and "centroids" in values:
        named["centroids"] = _vector_count("centroids", values["centroids"], dim)
    if "gallery" in values:
        _vector_count("gallery", values["gallery"], dim)
        named["gallery"] = "bank"
    try:
        _VALUES.validate_python({"kind": kind, **named})
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, one['loc'])) or 'kind'}: {one['msg']}" for one in error.errors()
        )
        raise ValueError(f"distillation_loss({kind!r}): {'; '.join(faults)}") from error
    terms = TERMS[kind](student, teacher, **values)
    return sum(terms.values(), start=student.new_zeros(()))


def _vector_count(key: str, vectors: object, dim: int) -> int:
    """How many there are. Raises ValueError for what is no vectors of so many numbers."""
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or vectors.shape[1] != dim:
        given = [*vectors.shape] if isinstance(vectors, Tensor) else repr(vectors)
        raise ValueError(f"{key} = {given}: must be vectors [vector, {dim}]")
    return len(vectors)
