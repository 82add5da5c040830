"""Centroids of a teacher's vectors, which the loss `anchors` compares a student with."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.training.samplers import seeded_generator

ROUNDS = 50


def cluster_centroids(
    vectors: Float[Tensor, "image dim"], count: int, seed: int
) -> Float[Tensor, "centroid dim"]:
    """`count` unit centroids of unit vectors, by spherical k-means from vectors drawn by `seed`.

    Lloyd's rounds until no vector changes its cluster, 50 at most; a cluster without vectors keeps
    its centroid. Raises ValueError for fewer vectors than `count`.
    """
    if count > len(vectors):
        raise ValueError(
            f"loss.centroids = {count}: must be at most {len(vectors)}, the training images"
        )
    drawn = torch.randperm(len(vectors), generator=seeded_generator(seed, "centroids"))[:count]
    centroids, clusters = vectors[drawn.to(vectors.device)], None
    for _ in range(ROUNDS):
        nearest = (vectors @ centroids.mT).argmax(1)
        if clusters is not None and torch.equal(nearest, clusters):
            break
        clusters = nearest
        sums = torch.zeros_like(centroids).index_add_(0, clusters, vectors)
        is_empty = clusters.bincount(minlength=count)[:, None] == 0
        centroids = torch.where(is_empty, centroids, normalize(sums))
    return centroids
