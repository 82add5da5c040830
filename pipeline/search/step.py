"""How far an index is in step with vectors: which of their rows it lacks, or holds otherwise."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from pipeline.datasets.vector_batches import VectorBatch, hashes
from pipeline.datasets.vectors import Vectors
from pipeline.search.vector_index import VectorIndex, chosen, contents, joined

ROWS_AT_ONCE = 1 << 16


class Step:
    """How far an index is in step with vectors: what `lacking` has counted when it is through.

    gone: the ids that are deleted in the vectors. held: gets hashes of those that the index holds.
    """

    def __init__(
        self,
        index: VectorIndex,
        vectors: Vectors,
        held: list[Int[np.ndarray, " id"]] | None = None,
    ) -> None:
        self.index, self.vectors, self.held = index, vectors, held
        self.rows = self.absent = self.changed = 0
        self.gone = set().union(*vectors.tombstones().values())

    def lacking(self) -> Iterator[VectorBatch]:
        """The vectors that the index lacks, or holds with other content, in blocks."""
        for batch in regrouped(self.vectors.batches(may_be_empty=True), ROWS_AT_ONCE):
            held: dict[str, str] = {}
            for found in self.index.rows(batch.ids):
                held |= zip(found.ids, found.content, strict=True)
            if self.held is not None:
                self.held.append(hashes([*held]))
            said = contents(batch)
            new = [place for place, one in enumerate(batch.ids) if held.get(one) != said[place]]
            changed = sum(batch.ids[place] in held for place in new)
            self.rows += len(batch.ids)
            self.changed += changed
            self.absent += len(new) - changed
            self.gone.difference_update(batch.ids)  # an image that has changed has another row
            if new:
                yield chosen(VectorBatch(batch.ids, batch.vectors, said), np.array(new))


def regrouped(batches: Iterable[VectorBatch], rows: int) -> Iterator[VectorBatch]:
    """The same rows in batches of `rows` or a little more, the last of fewer."""
    held: list[VectorBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(len(one.ids) for one in held) >= rows:
            yield joined(held)
            held = []
    if held:
        yield joined(held)
