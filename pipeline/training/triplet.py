"""The supervised loss of teacher and baseline, and the negatives it is given."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def triplet_loss(
    embeddings: Float[Tensor, "batch dim"],
    anchor: Int[Tensor, "triplet"],
    positive: Int[Tensor, "triplet"],
    negative: Int[Tensor, "triplet"],
    margin: float,
) -> Float[Tensor, ""]:
    """Mean over triplets of max(0, |a - p|^2 - |a - n|^2 + margin), squared Euclidean distances.

    anchor, positive, negative: rows of `embeddings`, one of each a triplet.
    Source: Schroff et al., CVPR 2015, eq. 2, averaged over all triplets, the satisfied ones too.
    """
    anchors = embeddings[anchor]
    to_positive = (anchors - embeddings[positive]).square().sum(1)
    to_negative = (anchors - embeddings[negative]).square().sum(1)
    return (to_positive - to_negative + margin).clamp(min=0).mean()


def sampling_log_weights(
    distance: Float[Tensor, "query database"], dim: int, floor: float
) -> Float[Tensor, "query database"]:
    """log 1/q(d), q(d) ~ d^(n-2) (1 - d^2/4)^((n-3)/2): distances as if spread evenly.

    q is the density of distances between random points of the unit sphere in `dim` dimensions.
    Distances under `floor` count as `floor`. Source: Wu et al., ICCV 2017, eq. 3.
    """
    distance = distance.clamp(min=floor, max=1.999)  # at 2 the weight is infinite
    return (2 - dim) * distance.log() - (dim - 3) / 2 * torch.log1p(-distance.square() / 4)


def draw_negatives(
    anchors: Float[Tensor, "query dim"],
    pool: Float[Tensor, "database dim"],
    is_negative: Bool[Tensor, "query database"],
    *,
    negatives: int,
    floor: float,
    generator: torch.Generator,
) -> Int[Tensor, "query negative"]:
    """For each anchor, rows of `pool` of another class, drawn by inverse density of their distance.

    Drawn with replacement, as the weights of far too many candidates are next to 0. Candidates
    farther than 1.4 (nearly orthogonal, without gradient) are left out while nearer ones exist.
    Raises ValueError for an anchor without any candidate. Source: Wu et al., ICCV 2017, section 4.
    """
    if not is_negative.any(1).all():
        raise ValueError("an anchor has no image of another class in the pool")
    distance = torch.cdist(anchors.double(), pool.double())
    weights = sampling_log_weights(distance, anchors.shape[1], floor)
    near = is_negative & (distance < 1.4)
    allowed = torch.where(near.any(1, keepdim=True), near, is_negative)
    weights = weights.masked_fill(~allowed, -torch.inf).softmax(1)
    return torch.multinomial(weights.cpu(), negatives, replacement=True, generator=generator)


def form_triplets(
    labels: Int[Tensor, "batch"], anchors: int, negative: Int[Tensor, "anchor negative"]
) -> tuple[Int[Tensor, "triplet"], Int[Tensor, "triplet"], Int[Tensor, "triplet"]]:
    """Every pair of the first `anchors` rows with one label, with each negative of its anchor."""
    chosen = labels[:anchors]
    same = (chosen[:, None] == chosen) & ~torch.eye(anchors, dtype=torch.bool)
    anchor, positive = same.nonzero(as_tuple=True)
    count = negative.shape[1]
    repeated = anchor.repeat_interleave(count), positive.repeat_interleave(count)
    return *repeated, negative[anchor].flatten()
