"""What a query costs: arithmetic, parameters, bytes, time."""

import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

WARM_UP, REPEATS = 5, 30  # queries whose time is not counted, and is


def query_cost(network: nn.Module, size_px: int) -> dict[str, float]:
    """Count what embedding one image of `size_px` x `size_px` costs; the same on every machine.

    `gmacs` are 10^9 multiply-accumulates, half of the operations that torch counts; `input_bytes`
    those of the raw 8-bit RGB image; `parameters` the network's.
    """
    device = next(network.parameters()).device
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size_px, size_px, device=device))
    return {
        "gmacs": counter.get_total_flops() / 2e9,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "input_bytes": 3 * size_px**2,
    }


@torch.inference_mode()
def query_latency_ms(network: nn.Module, size_px: int) -> float:
    """Median time of embedding one image, batch 1, network only, on the network's device."""
    device = next(network.parameters()).device
    image = torch.rand(1, 3, size_px, size_px, device=device)
    times_s = []
    for _ in range(WARM_UP + REPEATS):
        started_s = time.perf_counter()
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(times_s[WARM_UP:])
