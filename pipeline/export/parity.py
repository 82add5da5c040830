"""Whether two programs embed alike: how far apart, and whether the same image is found first."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

LARGEST_DIFFERENCE = 1e-4  # of any number of an embedding
TIE = 1e-5  # similarities that differ by less than this are as good as equal


@dataclass(frozen=True)
class Parity:
    """`ties` of the `images` find another image first that is, to the reference, as similar."""

    images: int
    largest_difference: float
    least_cosine: float
    ties: int
    other_first_hits: int

    @property
    def holds(self) -> bool:
        return self.largest_difference <= LARGEST_DIFFERENCE and not self.other_first_hits

    @property
    def same_first_share(self) -> float:
        """The share of the images, between 0 and 1, that find the same image first, or as good."""
        return 1 - self.other_first_hits / self.images


def embedding_parity(
    reference: Float[np.ndarray, "query dim"],
    other: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> Parity:
    """Compare embeddings of the same images, and what they find first in a database.

    own_row: the database row of each image, left out of its own result. Raises ValueError where
    `other` has another shape, and for a database of fewer than two rows.
    """
    if reference.shape != other.shape:
        raise ValueError(f"{other.shape} embeddings where {reference.shape} were expected")
    if len(database) < 2:
        raise ValueError("parity needs a database of two images or more")
    rows = np.arange(len(reference))
    similarity = reference @ database.T
    other_similarity = other @ database.T
    for scores in (similarity, other_similarity):
        scores[rows, own_row] = -np.inf
    first, other_first = similarity.argmax(1), other_similarity.argmax(1)
    behind = similarity[rows, first] - similarity[rows, other_first]
    differs = first != other_first
    difference = np.abs(reference - other).max() if np.isfinite(other).all() else np.inf
    return Parity(
        images=len(reference),
        largest_difference=float(difference),
        least_cosine=float((reference * other).sum(1).min()),
        ties=int((differs & (behind <= TIE)).sum()),
        other_first_hits=int((differs & (behind > TIE)).sum()),
    )
