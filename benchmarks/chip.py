"""What a chip can do at best for the operations of a network, with nothing else around them."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TERA = 1e12


def median_s(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a run, of some series of runs, after one series that does not count.

    A GPU is waited for after a series of ten only: to wait takes as long as a small operation.
    """
    on_gpu = device.type == "cuda"
    runs = 10 if on_gpu else 1
    times_s = []
    for _ in range(repeats + 1):
        started_s = time.perf_counter()
        for _ in range(runs):
            work()
        if on_gpu:
            torch.cuda.synchronize(device)
        times_s.append((time.perf_counter() - started_s) / runs)
    return statistics.median(times_s[1:])


def product_tflops(side: int, device: torch.device, repeats: int = 20) -> float:
    """10^12 operations a second of a product of two square bfloat16 matrices of random numbers."""
    first, second = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    result = torch.empty_like(first)
    took_s = median_s(lambda: torch.mm(first, second, out=result), device, repeats)
    return 2 * side**3 / took_s / TERA


@dataclass(frozen=True)
class Convolution:
    """One convolution of a network and the shape of its input."""

    shape: tuple[int, ...]
    filters: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Work:
    """Seconds that operations take by themselves, and how many operations they are."""

    seconds: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.seconds + other.seconds, self.operations + other.operations)


def convolutions_of(network: nn.Module, images: Tensor) -> Counter[Convolution]:
    """The convolutions of a forward pass of one image, and how often each occurs."""
    seen: Counter[Convolution] = Counter()

    def note(module: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        padding = module.padding
        assert not isinstance(padding, str), "convolutions that pad by name are not measured"
        key = Convolution(
            tuple(inputs[0].shape),
            tuple(module.weight.shape),
            module.stride,
            padding,
            module.dilation,
            module.groups,
        )
        seen[key] += 1

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def convolution_work(
    network: nn.Module, images: Tensor, *, batch: int, backward: bool, repeats: int = 10
) -> Work:
    """The convolutions of a pass of `batch` images as `images` in bfloat16, channels last, alone.

    backward: with the gradients of filters and inputs, but not of the images themselves.
    """
    total = Work(0.0, 0.0)
    for convolution, count in convolutions_of(network, images[:1]).items():
        one = _one_convolution(convolution, batch, images.device, repeats, backward=backward)
        total += Work(count * one.seconds, count * one.operations)
    return total


def _one_convolution(
    convolution: Convolution, batch: int, device: torch.device, repeats: int, *, backward: bool
) -> Work:
    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, device=device).bfloat16()
        return made.contiguous(memory_format=torch.channels_last)

    inputs, filters = random(batch, *convolution.shape[1:]), random(*convolution.filters)
    geometry = (convolution.stride, convolution.padding, convolution.dilation)

    def forward() -> Tensor:
        return torch.conv2d(inputs, filters, None, *geometry, convolution.groups)

    outputs = forward()
    operations = 2.0 * outputs.numel() * filters[0].numel()
    took_s = median_s(forward, device, repeats)
    if not backward:
        return Work(took_s, operations)
    gradient = torch.randn_like(outputs)
    of_images = convolution.shape[1] == 3
    wanted = [not of_images, True, False]

    def gradients() -> object:
        return torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            filters,
            None,
            *geometry,
            False,
            [0, 0],
            convolution.groups,
            wanted,
        )

    took_s += median_s(gradients, device, repeats)
    return Work(took_s, operations * (2 if of_images else 3))
