"""ONNX files of others: read whole, and what they compute."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

# What takes multiply-accumulates that are not counted here; a graph with one has no figure.
_UNCOUNTED = {
    *("Einsum", "ConvTranspose", "Attention", "LSTM", "GRU", "RNN", "If", "Loop", "Scan"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DeformConv"),
}

_MOST_BYTES = 1 << 31


def onnx_file(given: Path) -> Path:
    """The file itself, or the one that a folder holds. Raises ValueError for another number."""
    if not given.is_dir():
        return given
    files = sorted(given.glob("*.onnx"))
    if len(files) != 1:
        raise ValueError(f"{given}: holds {len(files)} files *.onnx: must be one")
    return files[0]


def read_onnx(given: Path) -> bytes:
    """A model whole: the data that it keeps beside it, too, if `given` is the folder of both.

    Raises ValueError for what is no ONNX, for data that lies outside of the folder, is missing or
    is a link, and for data beside a file that was named alone: DVC would not watch it.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.external_data_helper import load_external_data_for_model
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{given}: needs {error.name}, which is not installed: pip install "
            "'large-to-small[export]'"
        ) from error
    path = onnx_file(given)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
        size_bytes = model.ByteSize()
        load_external_data_for_model(model, str(path.parent.absolute()))
    except DecodeError as error:
        raise ValueError(f"{path}: is no ONNX file ({error})") from error
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: the data that it keeps in other files cannot be read: these must be plain "
            f"files in its own folder ({reason})"
        ) from error
    if path == given and model.ByteSize() != size_bytes:
        raise ValueError(
            f"{path}: keeps data in other files: name its folder, which must hold no other *.onnx"
        )
    if model.ByteSize() >= _MOST_BYTES:
        raise ValueError(f"{path}: is too large: ONNX in one file holds 2 GiB at most")
    content: bytes = model.SerializeToString()
    return content


def onnx_cost(content: bytes, size_px: int) -> dict[str, float | None]:
    """What one image costs: 10^9 multiply-accumulates of convolutions and matrix products, None
    where a node's are not known, and how many numbers the weights are.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    parameters = sum(
        prod(one.dims) for one in model.graph.initializer if one.data_type in _float_types(onnx)
    )
    _fix_input(model, size_px)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = _shapes(inferred)
    counts = [_macs(node, shapes) for node in inferred.graph.node]
    known = [count for count in counts if count is not None]
    gmacs = sum(known) / 1e9 if len(known) == len(counts) else None
    return {"gmacs": gmacs, "parameters": parameters, "input_bytes": 3 * size_px**2}


def _float_types(onnx: Any) -> set[int]:
    kinds = onnx.TensorProto
    return {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE, kinds.INT8, kinds.UINT8}


def _fix_input(model: Any, size_px: int) -> None:
    """One image of a size at the input, so that all other shapes follow from it."""
    weights = {one.name for one in model.graph.initializer}
    (given,) = (one for one in model.graph.input if one.name not in weights)
    dims = given.type.tensor_type.shape.dim
    dims[0].dim_value = 1
    for dim in dims[1:]:
        if not dim.dim_value:
            dim.dim_value = size_px
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _shapes(model: Any) -> dict[str, list[int]]:
    """The shapes that are known in full, by the names of values."""
    graph = model.graph
    found = {one.name: list(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(
            one.HasField("dim_value") for one in dims
        ):
            found[value.name] = [one.dim_value for one in dims]
    for node in graph.node:
        if node.op_type == "Constant":
            for one in _tensors_of(node):
                found[node.output[0]] = list(one.dims)
    return found


def _tensors_of(node: Any) -> Iterator[Any]:
    return (one.t for one in node.attribute if one.name == "value")


def _macs(node: Any, shapes: dict[str, list[int]]) -> int | None:
    """Multiply-accumulates of a node; None where its shapes, or what it computes, are unknown."""
    if node.domain not in ("", "ai.onnx") or node.op_type in _UNCOUNTED:
        return None
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    output, first, second = (shapes.get(name) for name in (node.output[0], *node.input[:2]))
    if output is None or first is None or second is None:
        return None
    if node.op_type == "Conv":
        return prod(output) * prod(second[1:])
    is_turned = any(one.name == "transA" and one.i for one in node.attribute)
    return prod(output) * (first[-2] if is_turned else first[-1])
