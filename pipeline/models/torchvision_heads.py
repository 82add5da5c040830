"""torchvision's classifiers without their heads: what each family computes before its pooling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Of no feature map: pooling, classifier, and the auxiliary classifiers that training once used.
_HEADS = ("avgpool", "dropout", "fc", "classifier", "aux1", "aux2", "AuxLogits")
_CLASSIFIERS = ("fc", "classifier", "head", "heads", "aux1", "aux2", "AuxLogits")
HALF = (0.5, 0.5, 0.5)
HALF_SCALED = ("googlenet", "inception_v3")  # their weights want pixels between -1 and 1
NATIVE_PX = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}


class PatchTokens(nn.Module):
    """The encoder of torchvision's vision transformer: class token first, then the patches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.conv_proj: nn.Module = network.get_submodule("conv_proj")
        self.class_token: nn.Parameter = network.get_parameter("class_token")
        self.encoder: nn.Module = network.get_submodule("encoder")

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        patches = self.conv_proj(images).flatten(2).mT
        first = self.class_token.expand(len(images), -1, -1)
        return self.encoder(torch.cat([first, patches], dim=1))


def headless(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network before its pooling, and the names of its children that are kept.

    Families without `features` and of no other known form keep all children but the head, in the
    order in which they are run; maps whose channels stand last are left as they are.
    """
    children = dict(network.named_children())
    if {"conv_proj", "encoder"} <= children.keys():
        return PatchTokens(network), ["conv_proj", "encoder"]
    if "features" in children:
        kept = [name for name in children if name in ("features", "norm")]
    else:
        kept = [name for name in children if name not in _HEADS]
    parts = [children[name] for name in kept]
    if len(parts) == 1:
        return parts[0], kept
    lists = (part if isinstance(part, nn.ModuleList) else [part] for part in parts)
    return nn.Sequential(*(part for some in lists for part in some)), kept


def unclassified(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network giving what its own classifier takes, and the names of the children it keeps."""
    for switch in ("aux_logits", "transform_input"):  # what only the published weights' use needs
        if hasattr(network, switch):
            setattr(network, switch, False)
    gone = [name for name, _ in network.named_children() if name in _CLASSIFIERS]
    for name in gone:
        setattr(network, name, None if name.lower().startswith("aux") else nn.Identity())
    return network, [name for name, _ in network.named_children() if name not in gone]
