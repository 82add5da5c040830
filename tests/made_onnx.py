"""Small ONNX files as others make them: a convolution, averaged over the image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 5
Shape = Sequence[int | str]


def kernel() -> np.ndarray:
    """The weights of the convolution, [output, channel, height, width]."""
    return np.random.default_rng(0).standard_normal((DIM, 3, 3, 3)).astype(np.float32)


def averaging_model(
    shape: Shape = ("batch", 3, "height", "width"),
    *,
    kind: int = TensorProto.FLOAT,
    channels_last: bool = False,
    outputs: Sequence[str] = ("vectors",),
) -> Any:
    """From `pixels` to the means of the convolved image, [batch, DIM], once an output."""
    nodes, last = [], "pixels"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["floats"], to=TensorProto.FLOAT))
        last = "floats"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
        last = "first"
    nodes += [
        helper.make_node("Conv", [last, "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        *(helper.make_node("Flatten", ["means"], [name]) for name in outputs),
    ]
    given = [helper.make_tensor_value_info("pixels", kind, shape)]
    got = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", DIM]) for n in outputs]
    weights = [numpy_helper.from_array(kernel(), "kernel")]
    graph = helper.make_graph(nodes, "averaging", given, got, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_model(path: Path, model: Any, *, external: str | None = None) -> Path:
    """Write it, with its weights in another file of the same folder if one is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"save_as_external_data": external is not None, "location": external}
    onnx.save(model, str(path), **beside, size_threshold=0)
    return path
