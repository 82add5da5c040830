"""A teacher of which nothing is known but the vectors that it gave images."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from pipeline.datasets.vector_batches import Findings, VectorsError, id_key, vectors_of
from pipeline.datasets.vector_stores import VectorStore
from pipeline.files import known_md5, replacing

View = Literal["cropped", "squashed"]
KIND: Literal["vectors"] = "vectors"
BACKBONE = "stored vectors"  # what tables say in place of a network's name
_TENSOR, _HEADER_BYTES = "vectors", 1 << 20


@dataclass(frozen=True)
class StoredVectorsCard:
    """`images` of the rows are those of the pack, in its order; the others are further ones.

    size_px: the side at which images were seen, and how they were made square, as the user says.
    network: the digest that came with the vectors; empty where none did.
    """

    kind: Literal["vectors"]
    dim: int
    images: int
    size_px: int
    view: View
    network: str = ""
    backbone: str = BACKBONE


@dataclass(frozen=True)
class StoredVectors:
    """An open file of them; `rows` stay on disk until they are asked for."""

    path: Path
    card: StoredVectorsCard
    rows: Float[np.ndarray, "row dim"]

    @property
    def dim(self) -> int:
        return self.card.dim

    @property
    def size_px(self) -> int:
        return self.card.size_px

    @property
    def digest(self) -> str:
        return self.card.network or known_md5(self.path)


def write_stored_vectors(
    path: Path, names: Sequence[str], store: VectorStore, *, size_px: int, view: View
) -> Findings:
    """Write the vectors of the images `names`, in their order, and after them all others.

    The store is read twice; memory holds the vectors of `names` and one batch. What the vectors
    looked like comes back. Raises VectorsError for images without a vector, and as `checked` does.
    """
    own, findings = _read(names, store)
    shape = findings.rows, findings.dim
    card = StoredVectorsCard(KIND, shape[1], len(names), size_px, view, store.network)
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": (0, 4 * shape[0] * shape[1])}
    head = {"__metadata__": {"card": json.dumps(asdict(card), sort_keys=True)}, _TENSOR: tensor}
    header = json.dumps(head).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.write(own.astype("<f4").tobytes())
        for others in _others(names, store, findings.rows - len(names)):
            file.write(others.astype("<f4").tobytes())
    return findings


def open_stored_vectors(path: Path) -> StoredVectors:
    """Raises ValueError for a file that `write_stored_vectors` did not write."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            head: dict[str, Any] = json.loads(file.read(min(length, _HEADER_BYTES)))
        card = StoredVectorsCard(**json.loads(head["__metadata__"]["card"]))
        shape = tuple(head[_TENSOR]["shape"])
        if card.kind != KIND or shape[1] != card.dim or not 0 <= card.images <= shape[0]:
            raise ValueError(f"its card says {card}")
        rows = np.memmap(path, "<f4", "r", offset=8 + length, shape=shape)
    except (struct.error, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: holds no stored vectors of this program ({reason})") from error
    return StoredVectors(path, card, rows)


def write_database(
    path: Path, names: Sequence[str], store: VectorStore, dim: int, *, with_others: bool
) -> Float[np.ndarray, "row dim"]:
    """Write the vectors of the images `names` as a .npy file, and behind them all others.

    dim: of the teacher, which vectors of another length are not of (VectorsError). They come back
    mapped from the file. Reads and raises as `write_stored_vectors` does.
    """
    own, findings = _read(names, store)
    if findings.dim != dim:
        raise VectorsError(
            f"{store.address}: vectors of {findings.dim} numbers, and the teacher's have {dim}"
        )
    rows = findings.rows if with_others else len(own)
    with replacing(path) as temporary:
        written = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(rows, findings.dim)
        )
        written[: len(own)] = own
        place = len(own)
        for others in _others(names, store, rows - len(own)) if with_others else ():
            written[place : place + len(others)] = others
            place += len(others)
        written.flush()
        del written
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _read(
    names: Sequence[str], store: VectorStore
) -> tuple[Float[np.ndarray, "image dim"], Findings]:
    """The vectors of the images `names`, and what all of the store look like."""
    findings = Findings()
    return vectors_of(names, store.batches(findings), store.address), findings


def _others(
    names: Sequence[str], store: VectorStore, count: int
) -> Iterator[Float[np.ndarray, "row dim"]]:
    """The vectors of all other images, batch by batch; VectorsError if they are not `count`."""
    known, left = frozenset(map(id_key, names)), count
    for batch in store.batches():
        others = [place for place, one in enumerate(batch.ids) if id_key(one) not in known]
        left -= len(others)
        if left < 0:
            break
        yield batch.vectors[others]
    if left:
        raise VectorsError(f"{store.address}: has changed while it was read: try again")
