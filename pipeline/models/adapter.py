"""The map from a network's embeddings of small images to those of large ones: no training."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def procrustes(
    small: Float[Tensor, "image dim"], large: Float[Tensor, "image dim"]
) -> Float[Tensor, "dim dim"]:
    """The orthogonal W that makes the sum of ||small_i W - large_i||^2 least: U V' of the singular
    value decomposition U S V' of small' large, computed in float64.

    small, large: embeddings of the same images, row by row, of one network at two sizes. Where
    they span fewer than `dim` dimensions, W is one of several that are as good.

    Raises ValueError where the shapes differ.
    Sources: Schoenemann, A generalized solution of the orthogonal Procrustes problem (1966); as an
    adapter between embeddings: Drift-Adapter (EMNLP 2025).
    """
    if small.shape != large.shape:
        raise ValueError(
            f"small is {tuple(small.shape)} and large {tuple(large.shape)}: must be of one shape"
        )
    left, _, right = torch.linalg.svd(small.double().T @ large.double())
    return (left @ right).to(small.dtype)


def adapt(
    small: Float[Tensor, "query dim"], matrix: Float[Tensor, "dim dim"]
) -> Float[Tensor, "query dim"]:
    """Unit embeddings of small images, mapped by `procrustes`: normalize(small W).

    A network's last layer could take W in, so that the map costs a query nothing.
    """
    return normalize(small @ matrix)
