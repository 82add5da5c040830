"""What the page can search: databases and networks, opened when first asked for."""

import threading
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from fastapi import HTTPException

from pipeline.config.params import Params
from pipeline.paths import DatasetPaths
from pipeline.search.databases import Database, open_database
from pipeline.search.index import index_home, index_names, require_card
from pipeline.search.search import (
    TEACHER,
    NamedNetwork,
    QueryNetwork,
    leading_network,
    networks_of,
    open_network,
    search_picture,
)

EXAMPLES = 8
MAX_UPLOAD_PIXELS = 40_000_000
MAX_OPEN = 32  # databases, and networks, those replaced on disk since included


class SearchService:
    """One search at a time. What has changed on disk since it was opened is opened again."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params = params
        self.device = device
        self._lock = threading.Lock()
        self._open_network = lru_cache(MAX_OPEN)(_open_network)
        self._open_database = lru_cache(MAX_OPEN)(_open_database)

    def databases(self) -> dict[str, tuple[str, str | None]]:
        """Data set and index of each database that is there: the study's, which have no index,
        then the indexes.
        """
        datasets = self.params.datasets
        studied = {name: (name, None) for name in datasets if DatasetPaths(name).index.exists()}
        indexed = {f"index {name}": (require_card(name).dataset, name) for name in index_names()}
        return studied | {name: found for name, found in indexed.items() if found[0] in datasets}

    def networks(self, dataset: str) -> dict[str, NamedNetwork]:
        """The trained networks of a data set, the teacher last."""
        keys = networks_of(self.params, dataset)
        named = [leading_network(key, dataset) for key in keys]
        return {network.key: network for network in named if network.path.exists()}

    def catalogue(self) -> list[dict[str, Any]]:
        """What the page offers to choose from."""
        return [
            {
                "name": name,
                "images": len(database),
                "networks": list(self.networks(database.dataset)),
                "examples": sorted({i * len(database) // EXAMPLES for i in range(EXAMPLES)}),
            }
            for name, database in ((name, self.database(name)) for name in self.databases())
        ]

    def database(self, name: str) -> Database:
        """Raises HTTPException 404, or ValueError for a database that cannot be opened."""
        known = self.databases()
        if name not in known:
            raise HTTPException(404, f"no database is called {name!r}; known: {', '.join(known)}")
        dataset, index = known[name]
        file = index_home(index) / "index.json" if index else DatasetPaths(dataset).index
        return self._open_database(dataset, index, file.stat().st_mtime_ns)

    def picture(self, database: str, row: int) -> bytes:
        """The encoded picture of a row. Raises HTTPException 404, UnreadableImage."""
        opened = self.database(database)
        if not 0 <= row < len(opened):
            raise HTTPException(404, f"{database} has no picture {row}: it has {len(opened)}")
        return opened.read(row)

    def search(self, encoded: bytes, database: str, network: str, k: int) -> dict[str, Any]:
        """The answers of the network and of the teacher, as the page shows them.

        Raises HTTPException 404, UnreadableImage for the picture, ValueError for files that do not
        fit together.
        """
        with self._lock:
            opened = self.database(database)
            known = self.networks(opened.dataset)
            if network not in known:
                message = f"{database} has no network {network!r}; known: {', '.join(known)}"
                raise HTTPException(404, message)
            if TEACHER not in known:
                raise ValueError(f"the teacher of {opened.dataset} is not there: run `l2s study`")
            return {
                role: self._answer(encoded, known[key], opened, k)
                for role, key in (("network", network), ("teacher", TEACHER))
            }

    def _answer(
        self, encoded: bytes, named: NamedNetwork, database: Database, k: int
    ) -> dict[str, Any]:
        changed_ns = named.path.stat().st_mtime_ns
        network = self._open_network(named, self.device, changed_ns)
        answer = search_picture(
            encoded, "the picture", network, database, k, max_pixels=MAX_UPLOAD_PIXELS
        )
        return {
            "name": network.name,
            "champion_version": network.version,
            "query_px": network.size_px,
            "times_ms": answer.times_ms,
            "hits": [asdict(hit) for hit in answer.hits],
        }


def _open_database(dataset: str, index: str | None, changed_ns: int) -> Database:
    return open_database(dataset, index)


def _open_network(named: NamedNetwork, device: torch.device, changed_ns: int) -> QueryNetwork:
    network = open_network(named, device)
    view = torch.zeros(1, 3, network.size_px, network.size_px, dtype=torch.uint8)
    network.embed(view)  # the first run of a network is slow, and would be timed
    return network
