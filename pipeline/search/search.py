"""One picture to its results: decoded, viewed, embedded by the chosen network, searched."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pipeline.config.params import Params
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.models.embedder import Embedder, unit_range
from pipeline.models.query_encoder import least_decoded_px
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.search.champions import Champion, kept_champion
from pipeline.search.databases import Database, Hit
from pipeline.search.pictures import read_file
from pipeline.views.evaluation import evaluation_view

TEACHER = "teacher"


@dataclass(frozen=True)
class NamedNetwork:
    """A key of params.students or `teacher`, and the data set that it belongs to.

    `champion`: the version of the student that leads, where one does and is meant.
    """

    key: str
    dataset: str
    champion: Champion | None = None

    @property
    def path(self) -> Path:
        paths = DatasetPaths(self.dataset)
        if self.champion is not None:
            return self.champion.path
        return paths.teacher if self.key == TEACHER else paths.student(self.key)


def choose_network(
    params: Params, network: str | None, dataset: str | None, *, newest: bool = False
) -> NamedNetwork:
    """The network of that name, or the first student of the data set in params.yaml.

    Without a data set: the network's own, or the first of params.yaml. A data set without students
    is searched with its teacher. A student's champion stands for it, where there is one, unless the
    `newest` is wanted: the one that was trained last, a refused candidate too.

    Raises ValueError for names that are not there or do not agree.
    """
    if dataset not in (None, *params.datasets):
        known = ", ".join(params.datasets)
        raise ValueError(f"--dataset {dataset!r}: no such data set; known: {known}")
    if network not in (None, TEACHER, *params.students):
        known = ", ".join([TEACHER, *params.students])
        raise ValueError(f"--network {network!r}: no such network; known: {known}")
    student = params.students.get(network or "")
    owner = dataset or (student.dataset if student else next(iter(params.datasets)))
    if student and student.dataset != owner:
        raise ValueError(
            f"--network {network!r} belongs to {student.dataset}, not to {owner}: "
            f"choose one of {', '.join(networks_of(params, owner))}"
        )
    key = network or networks_of(params, owner)[0]
    return NamedNetwork(key, owner) if newest else leading_network(key, owner)


def leading_network(key: str, dataset: str) -> NamedNetwork:
    """The network, or the champion that stands for it."""
    return NamedNetwork(key, dataset, kept_champion(dataset, key) if key != TEACHER else None)


def networks_of(params: Params, dataset: str) -> list[str]:
    """The students of a data set in the order of params.yaml, then its teacher."""
    return [*params.cells_of(dataset)[1:], TEACHER]


@dataclass(frozen=True)
class QueryNetwork:
    """An open network. `size_px` is the side of the evaluation view that it is fed, `version` that
    of the champion that it is, if it is one.
    """

    name: str
    network: Embedder
    size_px: int
    device: torch.device
    version: str | None = None

    @torch.inference_mode()
    def embed(
        self, views: UInt8[Tensor, "batch channel size size"]
    ) -> Float[np.ndarray, "batch dim"]:
        """Unit vectors of evaluation views, float32. Raises ValueError where one is not finite."""
        vectors: np.ndarray = self.network(unit_range(views, self.device)).float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise ValueError(f"{self.name} gives embeddings that are not finite: train it again")
        return vectors


def open_network(named: NamedNetwork, device: torch.device) -> QueryNetwork:
    """Load a trained network. Raises ValueError when it is not there or cannot be read."""
    if not named.path.exists():
        raise ValueError(f"{named.key} is not trained yet ({named.path}): run `l2s study`")
    try:
        network, card = load_network(named.path, device)
    except RuntimeError as error:  # of weights that are another network's
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{named.path}: is not a network of this program ({reason})") from error
    version = named.champion.version if named.champion else None
    return QueryNetwork(named.key, network, card.size_px, device, version)


@dataclass(frozen=True)
class Answer:
    """The results of one picture, and how long each step took: decode, view, embed, search."""

    hits: list[Hit]
    times_ms: dict[str, float]


def search_picture(
    encoded: bytes,
    name: str,
    network: QueryNetwork,
    database: Database,
    k: int,
    *,
    reduced_decode: bool = False,
) -> Answer:
    """The `k` images of the database most similar to an encoded picture.

    reduced_decode: a JPEG much larger than the view is decoded to a fraction of its size, which is
    faster and changes pixels slightly.
    Raises UnreadableImage for a picture that cannot be used, ValueError where network and database
    do not fit.
    """
    started_s = time.perf_counter()
    least_px = least_decoded_px(network.size_px) if reduced_decode else None
    picture = decode_image(encoded, name, least_px=least_px)
    decode_ms = 1000 * (time.perf_counter() - started_s)
    answer = search_decoded(picture, network, database, k)
    return Answer(answer.hits, {"decode": decode_ms, **answer.times_ms})


def search_decoded(
    picture: Image.Image, network: QueryNetwork, database: Database, k: int
) -> Answer:
    """As `search_picture`, of a picture in RGB; its times have no decode."""
    marks_s = [time.perf_counter()]
    view = evaluation_view(picture, network.size_px)
    marks_s.append(time.perf_counter())
    vector = network.embed(view[None])[0]
    marks_s.append(time.perf_counter())
    hits = database.search(vector, k)
    marks_s.append(time.perf_counter())
    steps_ms = (1000 * np.diff(marks_s)).tolist()
    return Answer(hits, dict(zip(("view", "embed", "search"), steps_ms, strict=True)))


def search_file(
    file: Path,
    name: str,
    network: QueryNetwork,
    database: Database,
    k: int,
    *,
    reduced_decode: bool = False,
) -> dict[str, Any]:
    """What `l2s search --json` says of a picture: its `image` name, and `results` or `error`.

    Arguments as for `search_picture`.
    """
    try:
        encoded = read_file(file, name)
        answer = search_picture(encoded, name, network, database, k, reduced_decode=reduced_decode)
    except UnreadableImage as failure:
        return {"image": name, "error": failure.reason}
    return {"image": name, "results": [asdict(hit) for hit in answer.hits]}
