"""Whether two programs embed alike: how far apart, and whether the same image is found first."""

import numpy as np
from jaxtyping import Float, Int

LARGEST_DIFFERENCE = 1e-4  # of any number of an embedding
TIE = 1e-5  # similarities that differ by less than this are as good as equal


def embedding_parity(
    reference: Float[np.ndarray, "query dim"],
    other: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> dict[str, float]:
    """Compare embeddings of the same images, and what they find first in a database.

    own_row: the database row of each image, left out of its own result. Gives the number of
    `images`, the `largest_difference` of any number of an embedding, the `least_cosine`, and how
    many images find another one first: `ties` of these are, to the reference, as similar,
    `other_first_hits` are not.
    """
    rows = np.arange(len(reference))
    similarity = similarities_to_others(reference, database, own_row)
    other_similarity = similarities_to_others(other, database, own_row)
    first, other_first = similarity.argmax(1), other_similarity.argmax(1)
    behind = similarity[rows, first] - similarity[rows, other_first]
    differs = first != other_first
    difference = np.abs(reference - other).max() if np.isfinite(other).all() else np.inf
    return {
        "images": len(reference),
        "largest_difference": float(difference),
        "least_cosine": float((reference * other).sum(1).min()),
        "ties": int((differs & (behind <= TIE)).sum()),
        "other_first_hits": int((differs & (behind > TIE)).sum()),
    }


def similarities_to_others(
    queries: Float[np.ndarray, "query dim"],
    database: Float[np.ndarray, "database dim"],
    own_row: Int[np.ndarray, " query"],
) -> Float[np.ndarray, "query database"]:
    """Inner products, that of a query and its own row being minus infinity."""
    similarity = queries @ database.T
    similarity[np.arange(len(queries)), own_row] = -np.inf
    return similarity
