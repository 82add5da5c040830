"""Teachers that are files, looked at before anything runs."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.recipes import OnnxTeacher


def teacher_faults(params: Params) -> Iterator[str]:
    """What keeps teachers at `weights`, and stored vectors, from being used; files that are missing
    are told by others.
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
    for name, folder in params.vectors.items():
        if Path(folder).exists():
            yield from (f"vectors.{name}: {fault}" for fault in _store_faults(folder))


def _store_faults(address: str) -> Iterator[str]:
    """Why a store of vectors cannot be read, as far as its first rows tell."""
    from pipeline.datasets.vector_stores import open_store

    try:
        next(open_store(address).batches())
    except ValueError as error:
        yield str(error)
