"""An exported query encoder with its convolutions in 8 bits."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.files import replacing
from pipeline.models.query_encoder import INPUT

# What stands between convolutions and loses little in 8 bits.
_KINDS = ("Conv", "Add", "Clip", "MaxPool", "Relu")


def quantise_onnx(
    source: Path, target: Path, views: UInt8[np.ndarray, "image height width 3"]
) -> None:
    """Write `source`, an encoder by `write_onnx`, with its convolutions in 8 bits.

    Quantised after training, statically. Weights have 7 bits and a scale a channel: with 8 bits,
    processors without VNNI overflow. Activations have 8 bits and a scale a tensor, from their
    extremes over `views`, of training images. What comes after the last convolution (GeM,
    projection, normalisation), the input's normalisation, and layers of other kinds (the attention
    of a transformer) stay float32. Input and output are those of `source`.

    Raises ValueError for a network without convolutions.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = ({INPUT: view[None]} for view in views)
    with TemporaryDirectory() as folder, replacing(target) as temporary:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        nodes = _leading_to_convolutions(onnx.load(prepared).graph.node)
        if not nodes:
            raise ValueError(f"{source}: holds no convolution, and only these are quantised")
        quantize_static(
            prepared,
            temporary,
            SimpleNamespace(get_next=lambda: next(feeds, None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_KINDS),
            nodes_to_quantize=nodes,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


def _leading_to_convolutions(nodes: Sequence[Any]) -> list[str]:
    """The names of convolutions, and of nodes of the other kinds whose result reaches one."""
    needed: set[str] = set()
    names = []
    for node in reversed(nodes):  # in an ONNX graph a node follows what it takes
        if node.op_type == "Conv" or not needed.isdisjoint(node.output):
            needed.update(node.input)
            if node.op_type in _KINDS:
                names.append(node.name)
    return names
