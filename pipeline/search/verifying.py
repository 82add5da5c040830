"""Whether an index of vectors is sound, and in step with what it was built from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from pipeline.datasets.vector_batches import UNIT_TOLERANCE, hashes
from pipeline.embedding.destination import Destination, may_open
from pipeline.search.concurrency import in_force
from pipeline.search.faiss_index import FaissIndex
from pipeline.search.step import Step
from pipeline.search.upkeep import open_index, open_kept
from pipeline.search.vector_index import Neighbours, VectorIndexCard, sample_rows

ASKED = 200  # of its own vectors
LEAST_FOUND = 0.95  # of these, by an approximate search


@dataclass(frozen=True)
class Verified:
    """What an index was found to be. faults: in words, none where it is sound.

    unread: sources in a store, which were not compared.
    """

    card: VectorIndexCard
    vectors: int
    asked: int
    found: int
    faults: list[str]
    unread: list[str]


def verify_index(folder: Path, allow: Sequence[str] = ()) -> Verified:
    """Compare an index with its digests and its sources, and search some of its own vectors.

    allow: SCHEME://BUCKET of the stores whose sources may be read. A source that is no longer there
    is no fault: nothing depends on it. Raises ValueError as `open_index` does.
    """
    faults: list[str] = []
    with open_index(folder) as index:
        card = index.card
        unread = [source for source in card.sources if not may_open(source, allow)]
        if isinstance(index, FaissIndex):
            faults += in_force(folder, partial(_damage, folder))
        count, own = sample_rows(index.rows(), ASKED, seed=0)
        near = index.search(own.vectors, 1) if own.ids else Neighbours([], [])
        # Of equal vectors any may come first.
        found = sum(best[0] > 1 - UNIT_TOLERANCE for best in near.similarities if best)
        if found < len(own.ids) * (LEAST_FOUND if card.kind in ("hnsw", "ivfpq") else 1):
            faults.append(f"{len(own.ids) - found} of {len(own.ids)} of its vectors are not found")
        known: list[Int[np.ndarray, " id"]] = []
        sources = [Destination(one) for one in card.sources if one not in unread]
        there = [source for source in sources if source.names()]
        for source in there:
            step = Step(index, source.vectors(), known)
            for _ in step.lacking():
                pass
            gone = [hashes(rows.ids) for rows in index.rows(sorted(step.gone))]
            deleted = sum(map(len, gone))
            known += gone
            if step.absent or step.changed or deleted:
                faults.append(
                    f"is not in step with {source}: {step.absent} of {step.rows} vectors are not "
                    f"there, {step.changed} have changed, {deleted} are deleted there: "
                    f"`l2s index add {folder} {source}`"
                )
        if known and len(there) == len(card.sources):
            strange = count - len(np.unique(np.concatenate(known)))
            if strange:
                faults.append(
                    f"{strange} of its vectors are in none of the folders that it was built from: "
                    "build it anew, or take them out with `l2s index remove`"
                )
    return Verified(card, count, len(own.ids), found, faults, unread)


def _damage(folder: Path, card: VectorIndexCard) -> list[str]:
    """Of the state in force, whose files are read by their names: those of another are gone."""
    index = open_kept(folder, card)
    return index.damage() if isinstance(index, FaissIndex) else []
