"""Faults of what networks start from, and of teachers that are files."""

from collections.abc import Container, Mapping
from typing import Any

from pipeline.config import LIBRARY_WEIGHTS
from pipeline.config.recipes import (
    DistillationRecipe,
    FrozenTeacher,
    Network,
    OnnxTeacher,
    TeacherRecipe,
    TrainedTeacher,
    VectorsTeacher,
)

_SHARED = (
    "backbone",
    "pooling",
    "mean",
    "std",
)  # of a teacher and of a student that starts from it


def weights_faults(
    place: str, network: Mapping[str, Any], key: str, files: Mapping[str, Any]
) -> list[str]:
    """Faults of where the weights come from that the mapping at `place` names, if it does: a file
    stands in `weights`, at its `key`; a student may start from its teacher.
    """
    if "weights" not in network:
        return []
    weights = network["weights"]
    fault = f"{place}.network.weights = {weights!r}"
    named = [*LIBRARY_WEIGHTS, *(["teacher"] if place.startswith("students.") else [])]
    if weights not in (*named, "file"):
        listed = ", ".join(named)
        return [f"{fault}: must be {listed} or file, whose path stands at weights.{key}"]
    if weights == "file" and not str(files.get(key)).endswith(".safetensors"):
        return [f"{fault}: weights.{key} must hold the path of a .safetensors file"]
    return []


def teacher_faults(
    name: str,
    teacher: TeacherRecipe,
    network: Network,
    weights: Container[str],
    vectors: Container[str],
) -> list[str]:
    """Faults of a data set's teacher towards the entries that `weights` and `vectors` have."""
    kind, faults = f"datasets.{name}.teacher.kind = {teacher.kind!r}", []
    if isinstance(teacher, VectorsTeacher) and name not in vectors:
        faults.append(f"vectors.{name}: is missing with {kind}: must be the folder of its vectors")
    if isinstance(teacher, TrainedTeacher) and name in vectors:
        faults.append(f"vectors.{name}: {kind} has not made them: must be frozen, onnx or vectors")
    if isinstance(teacher, FrozenTeacher) and teacher.whitening and name in vectors:
        faults.append(
            f"datasets.{name}.teacher.whitening = {teacher.whitening}: must be empty with "
            f"vectors.{name}: whitened vectors are not the stored ones"
        )
    if not isinstance(teacher, OnnxTeacher):
        return faults
    if name not in weights:
        faults.append(f"weights.{name}: is missing with {kind}: must be the path of its file")
    if network.weights == "file":
        faults.append(
            f"datasets.{name}.network.weights = 'file': weights.{name} is the teacher's with "
            f"{kind}: students may name files of their own"
        )
    return faults


def start_faults(
    place: str, network: Network, name: str, teacher: TeacherRecipe, taught: Network
) -> list[str]:
    """Faults of the `network` of a student of data set `name` towards what it starts from.

    taught: the teacher's network, where it is one.
    """
    if network.weights != "teacher":
        return []
    fault = f"{place}.network.weights = 'teacher'"
    if isinstance(teacher, OnnxTeacher | VectorsTeacher):
        kind = f"datasets.{name}.teacher.kind = {teacher.kind!r}"
        return [f"{fault}: {kind} is no network to start from"]
    return [
        f"{fault}: {place}.network.{field} = {own!r} must be the teacher's, "
        f"{getattr(taught, field)!r}"
        for field in _SHARED
        if (own := getattr(network, field)) != getattr(taught, field)
    ]


def mixture_faults(place: str, teacher: TeacherRecipe, recipe: DistillationRecipe) -> list[str]:
    """Faults of the distillation at `place` from stored vectors, of which mixtures have none."""
    if not isinstance(teacher, VectorsTeacher) or not recipe.mixup_alpha:
        return []
    return [
        f"{place}.distillation.mixup_alpha = {recipe.mixup_alpha:g}: must be 0 with teacher.kind = "
        "'vectors': no vector is stored of a mixture"
    ]


def offset_faults(
    place: str, teacher: TeacherRecipe, start: str, recipe: DistillationRecipe
) -> list[str]:
    """Faults of the fitted offset of a student, which its projection takes in. `start`: what its
    weights are.
    """
    is_bare = isinstance(teacher, FrozenTeacher) and not teacher.whitening and start == "teacher"
    if recipe.offset == "learned" or not is_bare:
        return []
    return [
        f"{place}: distillation.offset = 'fitted': must be learned where the student starts as a "
        "frozen teacher without whitening, which has no projection to take it in"
    ]
