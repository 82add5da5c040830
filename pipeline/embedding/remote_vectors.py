"""Vectors wherever `l2s embed` has put them: in a folder, or in a store by an fsspec address."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.datasets.vector_batches import (
    Findings,
    VectorBatch,
    VectorsError,
    checked,
    parquet_batches,
    without_ids,
)
from pipeline.datasets.vectors import (
    CARD,
    LISTS,
    TOMBSTONES,
    Vectors,
    VectorsCard,
    read_tombstones,
    read_vectors,
)
from pipeline.embedding.destination import Destination


@dataclass(frozen=True)
class RemoteVectors:
    """As `Vectors`, in a store. A file at a time is fetched into the temporary folder, and deleted
    when it is read: neither memory nor disk holds more.
    """

    folder: Destination
    card: VectorsCard
    files: tuple[str, ...]

    def tombstones(self) -> dict[str, frozenset[str]]:
        """As `Vectors.tombstones`."""
        if not self.card.tombstones:
            return {}
        with self._fetched(TOMBSTONES) as file:
            return read_tombstones(file)

    def batches(self) -> Iterator[VectorBatch]:
        """As `Vectors.batches`."""
        gone = self.tombstones()
        rows = (
            batch
            for name in self.files
            for batch in without_ids(self._rows(name), gone.get(name, frozenset()))
        )
        for batch in checked(rows, str(self.folder), Findings()):
            if (length := batch.vectors.shape[1]) != self.card.dim:
                raise VectorsError(
                    f"{self.folder}: its vectors have {length} numbers, {CARD} says {self.card.dim}"
                )
            yield batch

    def _rows(self, name: str) -> Iterator[VectorBatch]:
        with self._fetched(name) as file:
            yield from parquet_batches(file, "id", "vector")

    @contextmanager
    def _fetched(self, name: str) -> Iterator[Path]:
        """A copy of a file; what is wrong with it is said of the file."""
        with self.folder.fetched(name) as copy:
            try:
                yield copy
            except VectorsError as error:
                said = str(error).replace(str(copy), f"{self.folder}/{name}")
                raise VectorsError(said) from error


OpenVectors = Vectors | RemoteVectors


def open_vectors(place: Destination) -> OpenVectors:
    """Open a folder of vectors. Raises VectorsError as `read_vectors`, DatasetError for a store
    that cannot be reached.
    """
    if not place.is_remote:
        return read_vectors(Path(place.address))
    names = place.names()
    if CARD not in names:
        raise VectorsError(
            f"{place}/{CARD}: there is no such file: {place} is no folder of vectors"
        )
    try:
        card = VectorsCard.model_validate_json(place.read(CARD))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "all"
        raise VectorsError(f"{place}/{CARD}: {at}: {first['msg']}") from error
    files = tuple(sorted(n for n in names if n.endswith(".parquet") and n not in LISTS))
    if not files:
        raise VectorsError(f"{place}: holds no .parquet file")
    return RemoteVectors(place, card, files)
