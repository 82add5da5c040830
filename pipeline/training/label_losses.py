"""The losses of pytorch-metric-learning that params.yaml can name for a teacher."""

import torch
from pytorch_metric_learning import losses
from torch import nn

from pipeline.training.process_group import ProcessGroup


def label_loss(kind: str, values: dict[str, float], classes: int, dim: int, seed: int) -> nn.Module:
    """The loss `kind` with its `values`, a function of embeddings and labels from 0 to `classes`.

    Its proxies, a vector a class, are drawn from `seed`; the global random state stays as it was.
    normalised_softmax: Zhai & Wu, BMVC 2019; proxy_anchor: Kim et al., CVPR 2020;
    multi_similarity: Wang et al., CVPR 2019, without its mining; as in pytorch-metric-learning.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match kind:
            case "normalised_softmax":
                return losses.NormalizedSoftmaxLoss(classes, dim, **values)
            case "proxy_anchor":
                return losses.ProxyAnchorLoss(classes, dim, **values)
            case "multi_similarity":
                return losses.MultiSimilarityLoss(**values)
    raise ValueError(f"loss.kind = {kind!r}: no loss of labels is called so")


def shared_by(group: ProcessGroup, module: nn.Module) -> None:
    """Let each process give its share of the proxies' gradient, which each has whole."""
    for parameter in module.parameters():
        parameter.register_hook(lambda gradient: gradient / group.size)
