"""The databases and networks of a workspace, opened when first asked for, anew when they change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from fastapi import HTTPException
from PIL import Image

from pipeline.config.params import Params
from pipeline.datasets.decode import decode_image, encode_jpeg
from pipeline.files import beside
from pipeline.models.encoders import Encoder
from pipeline.models.query_encoder import square_view
from pipeline.paths import DatasetPaths
from pipeline.search.concurrency import in_force
from pipeline.search.databases import Database, VectorDatabase, open_database
from pipeline.search.index import INDEXES, index_home, index_names, require_card
from pipeline.search.search import (
    TEACHER,
    NamedNetwork,
    embed_view,
    leading_network,
    networks_of,
    open_query_encoder,
)
from pipeline.search.structures import use_threads
from pipeline.search.upkeep import hold_index, open_index
from pipeline.search.vector_index import CARD, VectorIndexCard
from pipeline.teachers import teacher_card
from pipeline.teachers.stored_vectors import KIND as STORED

INDEX = "index "  # what the name of a database begins with that is no study's
MAX_OPEN = 32  # networks, those replaced on disk since included


@dataclass(frozen=True)
class Place:
    """Where a database lies, and when it was changed.

    dataset: whose teacher embedded it; None for an index of vectors, which has a `card`. index:
    its name, where it is one.
    """

    name: str
    dataset: str | None
    index: str | None
    changed_ns: int
    card: VectorIndexCard | None = None


class Opened:
    """Several threads may ask. What is broken disables nothing else."""

    def __init__(self, params: Params, file: NamedNetwork | None = None) -> None:
        """file: a network for the indexes whose vectors are its own, or of nobody known."""
        self.params, self.file = params, file
        self._network = lru_cache(MAX_OPEN)(_open_network)
        self._databases: dict[str, tuple[Place, Database | VectorDatabase]] = {}
        self._qdrant = Lock()  # its local mode is open once

    def names(self) -> list[str]:
        """The databases that are there, whole or not: the study's, then the indexes."""
        studied = [name for name in self.params.datasets if DatasetPaths(name).index.exists()]
        return studied + [f"{INDEX}{name}" for name in _index_names()]

    def place(self, name: str | None) -> Place:
        """Of a database, by default the first. Raises HTTPException 404, ValueError for a card
        that cannot be read.
        """
        names = self.names()
        name = name or next(iter(names), None)
        if name is None or name not in names:
            known = ", ".join(names) or "none"
            raise HTTPException(404, f"no database is called {name!r}; known: {known}")
        if not name.startswith(INDEX):
            return Place(name, name, None, DatasetPaths(name).index.stat().st_mtime_ns)
        index = name.removeprefix(INDEX)
        folder = INDEXES / index
        try:
            return in_force(folder, lambda card: Place(name, None, index, _newest_ns(folder), card))
        except ValueError:
            if index not in index_names():  # those of pictures
                raise
        dataset = require_card(index).dataset
        if dataset not in self.params.datasets:
            raise HTTPException(404, f"{name} belongs to {dataset}, which is not selected")
        return Place(name, dataset, index, (index_home(index) / "index.json").stat().st_mtime_ns)

    @contextmanager
    def database(self, place: Place) -> Iterator[Database | VectorDatabase]:
        """Raises ValueError for a database that cannot be opened."""
        # Of this thread. A single query is not shared among threads, but wakes and awaits them.
        use_threads(self.params.threads)
        if place.card is None or place.card.kind != "qdrant":
            yield self._kept(place)
            return
        assert place.index is not None
        with self._qdrant, open_index(INDEXES / place.index) as index:  # others may write to it
            yield VectorDatabase(place.name, index)

    def _kept(self, place: Place) -> Database | VectorDatabase:
        """The open database; of each name one is kept, so that replaced ones hold no memory."""
        known = self._databases.get(place.name)
        if known is None or known[0] != place:
            known = self._databases[place.name] = place, _open_database(place)
        return known[1]

    def networks(self, place: Place) -> dict[str, NamedNetwork]:
        """The trained networks that a database can be searched with, a teacher last; those whose
        champion is damaged are left out, and teachers of which only vectors are known.

        Of vectors these are all of a data set whose teacher has embedded them, or the student that
        has; where nobody knows, all whose embeddings are as long.
        """
        found: dict[str, NamedNetwork] = {}
        for dataset in [place.dataset] if place.dataset else self.params.datasets:
            for key in networks_of(self.params, dataset):
                with suppress(ValueError):
                    named = leading_network(self.params, key, dataset)
                    if named.path.exists() and _embeds(named) and _fits(place.card, named):
                        found.setdefault(key, named)
        if (file := self.file) and place.card and file.path.exists() and _fits(place.card, file):
            found[file.key] = file
        return found

    def network(self, place: Place, key: str | None) -> tuple[NamedNetwork, Encoder]:
        """A network of a database, by default the first. Raises HTTPException 404, ValueError for
        one that cannot be opened.
        """
        known = self.networks(place)
        key = key or next(iter(known), None)
        if key is None or key not in known:
            for dataset in [place.dataset] if place.dataset else self.params.datasets:
                if key in networks_of(self.params, dataset):
                    # Raises what is wrong with its champion.
                    leading_network(self.params, key, dataset)
            names = ", ".join(known) or "none"
            raise HTTPException(404, f"{place.name} has no network {key!r}; known: {names}")
        named = known[key]
        changed_ns = named.path.stat().st_mtime_ns
        return named, self._network(named, self.params.threads, changed_ns)


def _embeds(named: NamedNetwork) -> bool:
    """Whether a network can embed pictures; of a damaged one, what opens it says what is wrong."""
    with suppress(ValueError):
        return named.key != TEACHER or teacher_card(named.path)["kind"] != STORED
    return True


def _fits(card: VectorIndexCard | None, named: NamedNetwork) -> bool:
    """Whether the vectors of an index can be searched with a network."""
    if card is None:
        return True
    return int(teacher_card(named.path)["dim"]) == card.dim and named.fits(card)


def _index_names() -> list[str]:
    """The indexes of either kind, whole or not; what else begins with a dot is half built."""
    listed = {re.sub(r"\A\.(.+)\.former\Z", r"\1", path.name) for path in INDEXES.glob("*")}
    return sorted(name for name in listed if name[0] != "." and _is_index(INDEXES / name))


def _is_index(folder: Path) -> bool:
    """Whether it holds an index, or a build that takes its place has just renamed it aside."""
    with suppress(OSError, RuntimeError):  # a folder that may not be entered, a link to itself
        former = beside(folder.resolve(), "former")
        return any(path.exists() for path in (folder / CARD, former, folder / CARD))
    return False


def _newest_ns(folder: Path) -> int:
    """When anything of an index was written last: of LanceDB a version is a new file."""
    places = (folder, *folder.glob("*"), *folder.glob("*/_versions"))
    changed_ns = []
    for place in places:
        with suppress(FileNotFoundError):  # a writer may delete it meanwhile
            changed_ns.append(place.stat().st_mtime_ns)
    return max(changed_ns, default=0)


def _open_database(place: Place) -> Database | VectorDatabase:
    database: Database | VectorDatabase
    if place.card is not None:
        assert place.index is not None
        database = VectorDatabase(place.name, hold_index(INDEXES / place.index))
    else:
        assert place.dataset is not None
        database = open_database(place.dataset, place.index)
    # The first search reads what is mapped, and starts threads: it would be timed, too.
    database.search(np.full(database.dim, database.dim**-0.5, np.float32), 1)
    return database


def _open_network(named: NamedNetwork, threads: int, changed_ns: int) -> Encoder:
    encoder = open_query_encoder(named, threads)
    # The first run of a decoder and of a network is slow, and would be timed.
    picture = decode_image(encode_jpeg(Image.new("RGB", (8, 8)), quality=85), "an empty picture")
    embed_view(square_view(picture, encoder.size_px), encoder)
    return encoder
