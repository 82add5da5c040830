"""What a query costs: arithmetic, parameters, bytes."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.teachers.onnx_teacher import OnnxNetwork

BACKWARD = 3  # times what a forward pass takes, that one with its gradients takes


def training_gmacs(query_gmacs: float | None, history: Path) -> float | None:
    """10^9 multiply-accumulates that a network was trained with: BACKWARD * query_gmacs * views.

    Those of the network itself, at the size of its queries, without its teacher's. history: its
    table of epochs, whose `views` are counted; triplets' negatives out of the whole data set are
    not among them. None for a network that was not trained, or whose cost nobody knows.
    """
    table = pd.read_csv(history)
    if query_gmacs is None or "views" not in table:
        return None
    return BACKWARD * query_gmacs * float(table["views"].sum())


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
