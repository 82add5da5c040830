"""What a query costs: arithmetic, parameters, bytes."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.teachers.onnx_teacher import OnnxNetwork


def query_cost(network: nn.Module | OnnxNetwork | None, size_px: int) -> dict[str, float | None]:
    """Count what embedding one image of `size_px` x `size_px` costs; the same on every machine.

    `gmacs` are 10^9 multiply-accumulates, half of the operations that torch counts; `input_bytes`
    those of the raw 8-bit RGB image; `parameters` the network's. Of an ONNX file, whose graph is
    counted, `gmacs` may be None; where there is no network, it and `parameters` are.
    """
    if network is None:
        return {"gmacs": None, "parameters": None, "input_bytes": 3 * size_px**2}
    if isinstance(network, OnnxNetwork):
        return network.cost(size_px)
    device = next(network.parameters()).device
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size_px, size_px, device=device))
    return {
        "gmacs": counter.get_total_flops() / 2e9,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "input_bytes": 3 * size_px**2,
    }
