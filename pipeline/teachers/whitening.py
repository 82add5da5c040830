"""Whitening by principal components, as the projection of a frozen network."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LEAST_SHARE = 1e-10  # of the largest variance: below lies rounding


def whitening_layer(vectors: Float[Tensor, "image channel"], dim: int) -> nn.Linear:
    """The map y = W (x - m), m being the mean of the vectors, whose `dim` outputs are their first
    principal components, each divided by its deviation; computed in float64.

    An embedder brings y to unit length. The sign of a component is that of its largest number.
    Raises ValueError where the vectors span fewer than `dim` dimensions.
    Source: Jegou & Chum, Negative evidences and co-occurrences in image retrieval (ECCV 2012).
    """
    rows = vectors.double()
    mean = rows.mean(0)
    centred = rows - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / max(1, len(rows) - 1))
    rank = int((variances > _LEAST_SHARE * variances[-1]).sum()) if variances[-1] > 0 else 0
    if dim > min(rank, len(rows) - 1):
        raise ValueError(
            f"{len(rows)} training images of {rows.shape[1]} numbers span "
            f"{min(rank, len(rows) - 1)} dimensions, and whitening to {dim} needs as many"
        )
    kept = directions.T.flip(0)[:dim]
    largest = kept.gather(1, kept.abs().argmax(1, keepdim=True))
    weight = kept * largest.sign() / variances.flip(0)[:dim, None].sqrt()
    layer = nn.Linear(rows.shape[1], dim)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(-weight @ mean)
    return layer
