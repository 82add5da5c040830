"""Teachers that are files, looked at before anything runs."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.recipes import OnnxTeacher


def teacher_faults(params: Params) -> Iterator[str]:
    """What keeps the teachers at `weights` from being used; files that are missing are told by
    others.
    """
    for name, dataset in params.datasets.items():
        given = Path(params.weights.get(name, ""))
        if isinstance(dataset.teacher, OnnxTeacher) and name in params.weights and given.exists():
            from pipeline.teachers.onnx_teacher import read_onnx_teacher  # needs PyTorch

            try:
                wanted = dataset.teacher.model_dump(exclude={"kind"})
                read_onnx_teacher(given, size_px=dataset.teacher_px, **wanted)
            except ValueError as error:
                yield f"weights.{name}: {error}"
