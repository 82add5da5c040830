"""What the page can search: databases and networks, opened when first asked for."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.paths import DatasetPaths
from pipeline.search.databases import Database, open_study_database
from pipeline.search.image_index import INDEXES, open_image_index, require_card
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


class UnknownNameError(ValueError):
    """There is no database, network or picture of this name."""


@dataclass
class Desk:
    """One search at a time. What has changed on disk since it was opened is opened again."""

    params: Params
    device: torch.device
    max_pixels: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _databases: dict[str, tuple[int, Database]] = field(default_factory=dict)
    _networks: dict[Path, tuple[int, QueryNetwork]] = field(default_factory=dict)

    def owners(self) -> dict[str, str]:
        """The data set of each database that is there: those of the study, then the indexes."""
        studied = {name: name for name in self.params.datasets if DatasetPaths(name).index.exists()}
        cards = (path.parent.name for path in sorted(INDEXES.glob("*/index.json")))
        indexed = {f"index {name}": require_card(name).dataset for name in cards}
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
        index = name.removeprefix("index ") if name not in self.params.datasets else None
        stamp = require_card(index).generation if index else paths.index.stat().st_mtime_ns
        kept = self._databases.get(name)
        if kept is None or kept[0] != stamp:
            opened = open_image_index(index, paths.teacher) if index else open_study_database(name)
            kept = self._databases[name] = (stamp, opened)
        return kept[1]

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
            known = [named.key for named in self.networks(opened.dataset)]
            if network not in known:
                raise UnknownNameError(
                    f"{database} has no network {network!r}; known: {', '.join(known)}"
                )
            answers = {}
            for role, key in (("network", network), ("teacher", TEACHER)):
                used = self._network(answering(NamedNetwork(key, opened.dataset)))
                answers[role] = (
                    used,
                    search_picture(
                        encoded, "the picture", used, opened, k, max_pixels=self.max_pixels
                    ),
                )
            return answers

    def _network(self, named: NamedNetwork) -> QueryNetwork:
        if not named.path.exists():
            raise ValueError(f"{named.key} is not trained yet ({named.path}): run `l2s study`")
        stamp = named.path.stat().st_mtime_ns
        kept = self._networks.get(named.path)
        if kept is None or kept[0] != stamp:
            opened = open_network(named, self.device)
            view = torch.zeros(1, 3, opened.size_px, opened.size_px, dtype=torch.uint8)
            opened.embed(view)  # the first run of a network is slow, and would be timed
            kept = self._networks[named.path] = (stamp, opened)
        return kept[1]
