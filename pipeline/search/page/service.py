"""What the page can search: databases and networks, opened when first asked for."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.config.params import Params
from pipeline.paths import DatasetPaths
from pipeline.search.databases import Database, open_image_index, open_study_database
from pipeline.search.index import index_names, require_card
from pipeline.search.search import (
    TEACHER,
    Answer,
    NamedNetwork,
    QueryNetwork,
    answering,
    networks_of,
    open_network,
    search_picture,
)

EXAMPLES = 8
MAX_UPLOAD_PIXELS = 40_000_000

Opened = TypeVar("Opened")


class UnknownNameError(ValueError):
    """There is no database, network or picture of this name."""


@dataclass
class SearchService:
    """One search at a time. What has changed on disk since it was opened is opened again."""

    params: Params
    device: torch.device
    max_pixels: int = MAX_UPLOAD_PIXELS
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _databases: dict[str, tuple[int, Database]] = field(default_factory=dict)
    _networks: dict[Path, tuple[int, QueryNetwork]] = field(default_factory=dict)

    def owners(self) -> dict[str, str]:
        """The data set of each database that is there: those of the study, then the indexes."""
        studied = {name: name for name in self.params.datasets if DatasetPaths(name).index.exists()}
        indexed = {f"index {name}": require_card(name).dataset for name in index_names()}
        return studied | {n: owner for n, owner in indexed.items() if owner in self.params.datasets}

    def networks(self, dataset: str) -> list[NamedNetwork]:
        """The trained networks of a data set, the teacher last."""
        keys = networks_of(self.params, dataset)
        named = [answering(NamedNetwork(key, dataset)) for key in keys]
        return [network for network in named if network.path.exists()]

    def catalogue(self) -> list[dict[str, Any]]:
        """What the page offers to choose from."""
        return [
            {
                "name": name,
                "images": len(database),
                "networks": [network.key for network in self.networks(owner)],
                "examples": sorted({i * len(database) // EXAMPLES for i in range(EXAMPLES)}),
            }
            for name, owner in self.owners().items()
            for database in [self.database(name)]
        ]

    def database(self, name: str) -> Database:
        """Raises UnknownNameError, or ValueError for a database that cannot be opened."""
        owners = self.owners()
        if name not in owners:
            raise UnknownNameError(f"no database is called {name!r}; known: {', '.join(owners)}")
        paths = DatasetPaths(owners[name])
        if name in self.params.datasets:
            stamp = paths.index.stat().st_mtime_ns
            return _reopened(self._databases, name, stamp, lambda: open_study_database(name))
        index = name.removeprefix("index ")
        stamp = require_card(index).generation
        return _reopened(
            self._databases, name, stamp, lambda: open_image_index(index, paths.teacher)
        )

    def picture(self, database: str, row: int) -> bytes:
        """The encoded picture of a row. Raises UnknownNameError, UnreadableImage."""
        opened = self.database(database)
        if not 0 <= row < len(opened):
            raise UnknownNameError(f"{database} has no picture {row}: it has {len(opened)}")
        return opened.read(row)

    def search(
        self, encoded: bytes, database: str, network: str, k: int
    ) -> dict[str, tuple[QueryNetwork, Answer]]:
        """The answers of the network and of the teacher.

        Raises UnknownNameError, UnreadableImage for the picture, ValueError for files that do not
        fit together.
        """
        with self._lock:
            opened = self.database(database)
            known = {named.key: named for named in self.networks(opened.dataset)}
            if network not in known:
                raise UnknownNameError(
                    f"{database} has no network {network!r}; known: {', '.join(known)}"
                )
            if TEACHER not in known:
                raise ValueError(f"the teacher of {opened.dataset} is not there: run `l2s study`")
            used = {"network": self._open(known[network]), "teacher": self._open(known[TEACHER])}
            return {
                role: (
                    found,
                    search_picture(
                        encoded, "the picture", found, opened, k, max_pixels=self.max_pixels
                    ),
                )
                for role, found in used.items()
            }

    def _open(self, named: NamedNetwork) -> QueryNetwork:
        def opened() -> QueryNetwork:
            network = open_network(named, self.device)
            view = torch.zeros(1, 3, network.size_px, network.size_px, dtype=torch.uint8)
            network.embed(view)  # the first run of a network is slow, and would be timed
            return network

        stamp = named.path.stat().st_mtime_ns
        return _reopened(self._networks, named.path, stamp, opened)


def _reopened(
    kept: dict[Any, tuple[int, Opened]], key: object, stamp: int, opened: Callable[[], Opened]
) -> Opened:
    """What is kept under `key`, or, where its stamp is another one, what is opened anew."""
    if key not in kept or kept[key][0] != stamp:
        kept[key] = (stamp, opened())
    return kept[key][1]
