"""Indexes of vectors: built, kept in step with folders of vectors, listed and verified.

They depend on no study: an index is a folder, and what it holds are vectors by their ids.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.reader import enumerate_names
from pipeline.datasets.vector_batches import are_in, hashes
from pipeline.embedding.destination import Destination, destination_of, may_open
from pipeline.embedding.golden import UncheckableError, check_folder
from pipeline.embedding.manifest import noted_network
from pipeline.files import replacing_folder
from pipeline.search.concurrency import foreign_in, in_force, writing
from pipeline.search.faiss_index import FaissIndex
from pipeline.search.step import Step
from pipeline.search.stores import LanceIndex, QdrantIndex, qdrant_client
from pipeline.search.vector_index import (
    CARD,
    Kind,
    Number,
    VectorIndex,
    VectorIndexCard,
    is_vector_index,
)

_NOT = "not checked against their network"
UNCHECKED = f"{_NOT}: as you wish"


@contextmanager
def open_index(folder: Path) -> Iterator[VectorIndex]:
    """The index in a folder. Raises ValueError for one that is not there, damaged, or of another
    version, and a library that is not installed.
    """
    with ExitStack() as opened:

        def enter(card: VectorIndexCard) -> VectorIndex:
            opened.close()  # what was opened of a state that is in force no more
            return opened.enter_context(_opened(folder, card))

        yield in_force(folder, enter)


@contextmanager
def _opened(folder: Path, card: VectorIndexCard, *, is_new: bool = False) -> Iterator[VectorIndex]:
    if card.kind == "qdrant":
        with qdrant_client(folder, card.server, is_new=is_new) as client:
            yield QdrantIndex(client, folder, card, is_new=is_new)
    else:
        yield open_kept(folder, card, is_new=is_new)


def hold_index(folder: Path) -> FaissIndex | LanceIndex:
    """An index, of another kind than qdrant, that may stay open: others read and write it as well.

    What they write is not seen. Raises ValueError as `open_index`.
    """
    return in_force(folder, partial(open_kept, folder))


def open_kept(
    folder: Path, card: VectorIndexCard, *, is_new: bool = False
) -> FaissIndex | LanceIndex:
    """An index of another kind than qdrant by its card, which may be in force no more."""
    made = LanceIndex if card.kind == "lancedb" else FaissIndex
    return made(folder, card, is_new=is_new)


@dataclass(frozen=True)
class Built:
    """An index that was built, and how many vectors it took.

    golden: how some of them were found to be those of their network, in words, or why none was
    checked. network: the file of this network, where that is known.
    """

    card: VectorIndexCard
    vectors: int
    golden: str
    network: Path | None


def build_index(
    folder: Path,
    source: str | Path,
    kind: Kind,
    *,
    number: Number = "float32",
    server: str = "",
    is_checked: bool = True,
) -> Built:
    """Make the index of a folder of vectors, in the place of one that is there.

    source: a path, or an address of object storage, which is read file by file. number: how the
    kinds of FAISS keep vectors; float16 takes half the room (but hnsw's graph has its own).
    server: as in `VectorIndexCard`. is_checked: an image of each shard is embedded anew first
    (`check_folder`).

    Raises ValueError for a folder that is something else, vectors that are not whole or not those
    of their network, ivfpq of too few, options of another kind, and as `open_index` does; what is
    there then stays.
    """
    if server and kind != "qdrant":
        raise ValueError(f"--server {server}: is Qdrant's, and the kind is {kind}")
    if number != "float32" and kind in ("lancedb", "qdrant"):
        raise ValueError(f"--number {number}: {kind} keeps float32")
    place = destination_of(str(source), Path.cwd(), "VECTORS")
    place.vectors()  # so that nothing is locked or made for what is none
    if foreign := foreign_in(folder):
        raise ValueError(f"{folder}: is there, and is no index: {foreign}: name another place")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: is the current folder, which a build would replace: leave it")
    golden, network = _check(place) if is_checked else UNCHECKED, noted_network(place)
    with writing(folder) as home, replacing_folder(home) as new:
        vectors = place.vectors()  # as they are when the writer before is done
        card = VectorIndexCard(
            kind=kind,
            dim=vectors.card.dim,
            network=vectors.card.network,
            number=number,
            server=server,
            sources=(place.address,),
        )
        card.write(new)
        with _opened(new, card, is_new=True) as index:
            if held := len(index):  # of a server, whose collection is not in the folder
                raise ValueError(
                    f"--server {server}: has {held} points already: name another collection, or "
                    "delete that one there"
                )
            count = index.upsert(vectors.batches())
    return Built(card, count, golden, network)


def _check(place: Destination, is_meant: Callable[[Sequence[str]], bool] = lambda _: True) -> str:
    try:
        return str(check_folder(place, is_meant))
    except UncheckableError as reason:
        return f"{_NOT}: {reason}"


@dataclass(frozen=True)
class Change:
    """What was put into an index and taken out of it.

    golden: as in `Built`, of what was put in; empty where that is nothing.
    """

    added: int
    replaced: int
    removed: int
    unchanged: int
    golden: str = ""


def add_vectors(folder: Path, source: str | Path, *, is_checked: bool = True) -> Change:
    """Bring an index in step with a folder of vectors: what it lacks, or holds of other content,
    is put in, and what is deleted there is taken out. Other ids stay.

    source: as of `build_index`. is_checked: of each shard with such vectors an image is embedded
    anew first (`check_folder`).

    Raises ValueError for vectors of another network, and a further folder that has other vectors
    under ids of the index, which leave it as it was, and as `open_index` does.
    """
    place = destination_of(str(source), Path.cwd(), "VECTORS")
    with writing(folder), open_index(folder) as index:
        card, vectors = index.card, place.vectors()  # as they are when the writer before is done
        if (card.dim, card.network) != (vectors.card.dim, vectors.card.network):
            raise ValueError(
                f"{place}: its vectors are of {_told(vectors.card.network, vectors.card.dim)}, "
                f"those of {folder} of {_told(card.network, card.dim)}: they cannot be compared; "
                "build another index"
            )
        step, golden = Step(index, vectors), ""
        fresh = [hashes(batch.ids) for batch in step.lacking()]
        is_further = step.changed and place.address not in card.sources
        if is_further and (former := list(filter(_may_be_there, card.sources))):
            raise ValueError(
                f"{place}: {step.changed} of its ids have other vectors in {folder}, of "
                f"{enumerate_names(former)}: an id is the path of an image below the folder that "
                "was embedded; embed a folder above both, or build another index"
            )
        if fresh:
            known = np.sort(np.concatenate(fresh))

            def is_meant(ids: Sequence[str]) -> bool:
                return bool(are_in(hashes(ids), known).any())

            golden = _check(place, is_meant) if is_checked else UNCHECKED
            index.upsert(Step(index, vectors).lacking())
        removed = index.delete(sorted(step.gone))
        if place.address not in card.sources:
            card.model_copy(update={"sources": (*card.sources, place.address)}).write(folder)
    unchanged = step.rows - step.absent - step.changed
    return Change(step.absent, step.changed, removed, unchanged, golden)


def _may_be_there(source: str) -> bool:
    """Of a folder whether it is; nobody but the user may ask a store."""
    return not may_open(source, ()) or bool(Destination(source).names())


def remove_vectors(folder: Path, ids: Sequence[str]) -> int:
    """Take vectors out of an index; how many were there. Raises ValueError where none was."""
    with writing(folder), open_index(folder) as index:
        removed = index.delete(ids)
    if not removed:
        raise ValueError(
            f"{folder}: holds none of {enumerate_names(ids)}: an id is the path of an image below "
            "the folder that was embedded, as a search shows it"
        )
    return removed


def _told(network: str, dim: int) -> str:
    return f"{dim} numbers by the network {network[:12] or 'that nobody knows'}"


def index_folders(folder: Path) -> list[Path]:
    """The indexes of vectors that are a folder, or lie below it."""
    return [place for place in all_indexes(folder) if is_vector_index(place)]


def all_indexes(folder: Path) -> list[Path]:
    """The same, and those of pictures. None is what a build has not put in its place yet, in a
    folder whose name begins with ".".
    """
    cards = [path for path in folder.glob(f"**/{CARD}") if _may_be_card(path)]
    places = [path.parent.relative_to(folder) for path in cards]
    return sorted(folder / one for one in places if not any(p.startswith(".") for p in one.parts))


def _may_be_card(path: Path) -> bool:
    """Whether a file is the card of an index, or damaged; other programs call files so, too."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return True
    return isinstance(found, dict) and "kind" in found and bool({"format", "dataset"} & {*found})
