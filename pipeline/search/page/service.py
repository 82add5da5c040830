"""What the page can search: databases and networks, opened when first asked for."""

import time
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException

from pipeline.config.params import Params
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.models.torch_encoder import TorchEncoder
from pipeline.paths import DatasetPaths
from pipeline.search.databases import Database, open_database
from pipeline.search.index import index_home, index_names, require_card
from pipeline.search.pictures import thumbnail
from pipeline.search.search import (
    TEACHER,
    NamedNetwork,
    leading_network,
    networks_of,
    open_network,
    search_picture,
)
from pipeline.teachers.teacher import Teacher

INDEX = "index "  # what the name of a database begins with that is no study's
EXAMPLES = 8
THUMBNAIL_PX = 192
THUMBNAILS_KEPT = 1000  # of some 10 kB
MAX_FULL_BYTES = 20 << 20  # of a picture that is shown in full: what the page takes as a query
MAX_UPLOAD_PIXELS = 40_000_000
MAX_OPEN = 32  # databases, and networks, those replaced on disk since included


class SearchService:
    """What the page asks for. What has changed on disk since it was opened is opened again.

    Several threads may call it. What is broken disables nothing else.
    """

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params = params
        self.device = device
        self._open_network = lru_cache(MAX_OPEN)(_open_network)
        self._open_database = lru_cache(MAX_OPEN)(_open_database)
        self._thumbnail = lru_cache(THUMBNAILS_KEPT)(
            lambda *place, row: _shown(self._open_database(*place), row)[1]
        )

    def names(self) -> list[str]:
        """The databases that are there, whole or not: the study's, then the indexes."""
        studied = [name for name in self.params.datasets if DatasetPaths(name).index.exists()]
        return studied + [f"{INDEX}{name}" for name in index_names()]

    def networks(self, dataset: str) -> dict[str, NamedNetwork]:
        """The trained networks of a data set, the teacher last; those whose champion is damaged
        are left out.
        """
        found = {}
        for key in networks_of(self.params, dataset):
            with suppress(ValueError):
                network = leading_network(key, dataset)
                if network.path.exists():
                    found[key] = network
        return found

    def catalogue(self) -> list[dict[str, Any]]:
        """What the page offers to choose from; of a database that is broken, what is wrong."""
        return [entry for name in self.names() if (entry := self._entry(name))]

    def _entry(self, name: str) -> dict[str, Any] | None:
        """None for an index of a data set that is not selected now."""
        try:
            database = self.database(name)
            networks = list(self.networks(database.dataset))
        except HTTPException:
            return None
        except (ValueError, OSError) as error:
            return {"name": name, "fault": str(error)}
        examples = sorted({i * len(database) // EXAMPLES for i in range(EXAMPLES)})
        counts = {"images": len(database), "networks": networks, "examples": examples}
        return {"name": name, **counts}

    def database(self, name: str) -> Database:
        """Raises HTTPException 404, or ValueError for a database that cannot be opened."""
        dataset, index, changed_ns = self._place(name)
        return self._open_database(dataset, index, changed_ns)

    def _place(self, name: str) -> tuple[str, str | None, int]:
        """Data set, index, and when the files were changed. Raises as `database`."""
        names = self.names()
        if name not in names:
            raise HTTPException(404, f"no database is called {name!r}; known: {', '.join(names)}")
        if not name.startswith(INDEX):
            return name, None, DatasetPaths(name).index.stat().st_mtime_ns
        index = name.removeprefix(INDEX)
        dataset = require_card(index).dataset
        if dataset not in self.params.datasets:
            raise HTTPException(404, f"{name} belongs to {dataset}, which is not selected")
        return dataset, index, (index_home(index) / "index.json").stat().st_mtime_ns

    def picture(self, database: str, row: int) -> bytes:
        """The encoded picture of a row. Raises HTTPException 404, UnreadableImage for what is none,
        or too large to be shown in full.
        """
        opened = self.database(database)
        encoded, _ = _shown(opened, row)  # what is no picture is not given away
        if len(encoded) > MAX_FULL_BYTES:
            reason = f"has {len(encoded)} bytes, more than {MAX_FULL_BYTES}"
            raise UnreadableImage(opened.names[row], reason)
        return encoded

    def thumbnail(self, database: str, row: int) -> bytes:
        """A small JPEG of a row. Raises HTTPException 404, UnreadableImage."""
        return self._thumbnail(*self._place(database), row=row)

    def search(self, encoded: bytes, database: str, network: str, k: int) -> dict[str, Any]:
        """The answers of the network and of the teacher, as the page shows them.

        Raises HTTPException 404, UnreadableImage for the picture, ValueError for files that do not
        fit together.
        """
        opened = self.database(database)
        known = self.networks(opened.dataset)
        if network not in known:
            if network in networks_of(self.params, opened.dataset):
                leading_network(network, opened.dataset)  # raises what is wrong with its champion
            message = f"{database} has no network {network!r}; known: {', '.join(known)}"
            raise HTTPException(404, message)
        if TEACHER not in known:
            raise ValueError(f"the teacher of {opened.dataset} is not there: run `l2s study`")
        started_s = time.perf_counter()
        picture = decode_image(encoded, "the picture", max_pixels=MAX_UPLOAD_PIXELS)
        decode_ms = 1000 * (time.perf_counter() - started_s)
        answers = {}
        for role, named in (("network", known[network]), ("teacher", known[TEACHER])):
            opened_network = self._open_network(named, self.device, named.path.stat().st_mtime_ns)
            answer = search_picture(picture, opened_network, opened, k)
            answers[role] = {
                "name": named.key,
                "champion_version": named.version,
                "query_px": opened_network.size_px,
                "times_ms": {"decode": decode_ms, **answer.times_ms},
                "hits": [asdict(hit) for hit in answer.hits],
            }
        return answers


def _shown(database: Database, row: int) -> tuple[bytes, bytes]:
    """The encoded picture of a row, and a small JPEG of it."""
    if not 0 <= row < len(database):
        raise HTTPException(404, f"{database.name} has no picture {row}: it has {len(database)}")
    encoded = database.read(row)
    return encoded, thumbnail(encoded, THUMBNAIL_PX, database.names[row])


def _open_database(dataset: str, index: str | None, changed_ns: int) -> Database:
    return open_database(dataset, index)


def _open_network(
    named: NamedNetwork, device: torch.device, changed_ns: int
) -> TorchEncoder | Teacher:
    network = open_network(named, device)
    view = np.zeros((1, network.size_px, network.size_px, 3), np.uint8)
    network.embed(view)  # the first run of a network is slow, and would be timed
    return network
