"""Batch norms folded into the convolutions before them, for a network that no longer trains."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from pipeline.models.embedder import Embedder

_TOLERANCE = 1e-4  # of a unit vector's numbers; rounding alone stays below a tenth of it


def folded(network: Embedder, size_px: int) -> Embedder:
    """A copy that embeds as `network` does in evaluation, up to rounding, in less time.

    Which batch norm follows which convolution is seen in a forward pass of one image of `size_px`
    pixels, as different libraries wire them. A network that embeds the image otherwise when folded
    comes back as it is. The copy is for inference alone. Source: Jacob et al., CVPR 2018, eq. 14.
    """
    image = torch.rand(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    image = image.to(network.p.device)
    lighter = copy.deepcopy(network).eval()
    with torch.inference_mode():
        expected = lighter(image)
        pairs = _followers(lighter, image)
    for convolution, norm in pairs:
        before, after = lighter.get_submodule(convolution), lighter.get_submodule(norm)
        assert isinstance(before, nn.Conv2d)
        assert isinstance(after, nn.BatchNorm2d)
        lighter.set_submodule(convolution, fuse_conv_bn_eval(before, after))
        lighter.set_submodule(norm, nn.Sequential(*after.children()))
    with torch.inference_mode():
        difference = (lighter(image) - expected).abs().max()
    return lighter if difference < _TOLERANCE else network


def _followers(network: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Names of each convolution and the batch norm that takes what it gives; both run once."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, or an id could come twice
    pairs: list[tuple[str, str]] = []
    runs: Counter[str] = Counter()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            runs[name] += 1
            if isinstance(module, nn.Conv2d):
                made[id(output)] = name, output
            elif id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], name))

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) or _is_batch_norm(module)
    ]
    network(image)
    for handle in handles:
        handle.remove()
    taken = Counter(convolution for convolution, _ in pairs)
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if runs[convolution] == runs[norm] == taken[convolution] == 1
    ]


def _is_batch_norm(module: nn.Module) -> bool:
    """PyTorch's batch norm, or timm's with dropout and activation; with running statistics."""
    children = [name for name, _ in module.named_children()]
    known = type(module) is nn.BatchNorm2d or children == ["drop", "act"]
    return isinstance(module, nn.BatchNorm2d) and known and module.running_var is not None
