"""One picture to its results: decoded, viewed, embedded by the chosen network, searched."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.config.params import Params
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.datasets.reader import read_file
from pipeline.embedding.golden import has_embedded
from pipeline.models.encoders import Encoder, open_encoder
from pipeline.models.query_encoder import least_decoded_px, square_view
from pipeline.paths import DatasetPaths
from pipeline.search.champions import Champion, kept_champion
from pipeline.search.databases import (
    Database,
    Hit,
    VectorDatabase,
    open_database,
    open_study_database,
)
from pipeline.search.index import require_card
from pipeline.search.pictures import name_pictures
from pipeline.search.upkeep import open_index
from pipeline.teachers import teacher_card

if TYPE_CHECKING:
    import torch

    from pipeline.models.torch_encoder import TorchEncoder
    from pipeline.teachers.teacher import Teacher

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

    @property
    def version(self) -> str | None:
        """That of the champion that it is, if it is one."""
        return self.champion.version if self.champion else None

    def trained(self) -> Path:
        """Its file. Raises ValueError when it is not there."""
        if not self.path.exists():
            raise ValueError(f"{self.key} is not trained yet ({self.path}): run `l2s study`")
        return self.path


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


def open_network(named: NamedNetwork, device: "torch.device") -> "TorchEncoder | Teacher":
    """Load a network. Raises ValueError when it is not there, cannot be read, or embeds nothing."""
    from pipeline.models.torch_encoder import open_torch_encoder
    from pipeline.teachers.teacher import open_teacher

    opened = open_teacher if named.key == TEACHER else open_torch_encoder
    return opened(named.trained(), device)


# The parameters that have a data set and a network, if any is named, of an inactive study too.
ParamsFor = Callable[[str | None, str | None], Params]


@dataclass(frozen=True)
class Trained:
    """A network under PyTorch, the database of its study, and that which was asked for; all open,
    with the parameters of their study.
    """

    params: Params
    named: NamedNetwork
    encoder: "TorchEncoder"
    studied: Database
    database: Database


def open_for_export(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | None = None,
    *,
    newest: bool = False,
) -> Trained:
    """Open the network as `choose_network` finds it, on the CPU, the database of its data set, and
    the index, if one is named.

    Raises ValueError for names that are not there or do not agree, and files that cannot be read.
    """
    import torch

    from pipeline.models.torch_encoder import open_torch_encoder

    params, named = _choose(params_for, network, dataset, index, newest=newest)
    torch.set_num_threads(params.threads)
    encoder = open_torch_encoder(named.trained(), torch.device("cpu"))
    studied = open_study_database(named.dataset)
    database = studied if index is None else open_database(named.dataset, index)
    return Trained(params, named, encoder, studied, database)


def _choose(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | None,
    *,
    newest: bool,
) -> tuple[Params, NamedNetwork]:
    owner = dataset or (require_card(index).dataset if index is not None else None)
    params = params_for(owner, network)
    return params, choose_network(params, network, owner, newest=newest)


@dataclass(frozen=True)
class Answer:
    """The results of one picture, and how long each step took: view, embed, search."""

    hits: list[Hit]
    times_ms: dict[str, float]


def embed_view(
    view: UInt8[np.ndarray, "size size 3"], encoder: Encoder
) -> Float[np.ndarray, " dim"]:
    """The unit vector of a picture's view. Raises ValueError where it is not finite."""
    vector = encoder.embed(view[None])[0]
    if not np.isfinite(vector).all():
        raise ValueError("the network gives embeddings that are not finite: train it again")
    return vector


def search_picture(
    picture: Image.Image, encoder: Encoder, database: Database | VectorDatabase, k: int
) -> Answer:
    """The `k` images of the database most similar to a picture in RGB.

    Raises ValueError where network and database do not fit.
    """
    marks_s = [time.perf_counter()]
    view = square_view(picture, encoder.size_px)
    marks_s.append(time.perf_counter())
    vector = embed_view(view, encoder)
    marks_s.append(time.perf_counter())
    hits = database.search(vector, k)
    marks_s.append(time.perf_counter())
    steps_ms = (1000 * np.diff(marks_s)).tolist()
    return Answer(hits, dict(zip(("view", "embed", "search"), steps_ms, strict=True)))


@dataclass(frozen=True)
class Searcher:
    """A network and a database that its teacher has embedded, both open."""

    named: NamedNetwork
    encoder: Encoder
    database: Database | VectorDatabase

    def search(
        self,
        arguments: Iterable[str],
        here: Path,
        listed: Iterable[str],
        k: int,
        *,
        reduced_decode: bool = False,
    ) -> list[dict[str, Any]]:
        """What `l2s search --json` says of each picture: its `image` name, `results` or `error`.

        arguments, here, listed: as `name_pictures` takes them. reduced_decode: a JPEG much larger
        than the view is decoded to a fraction of its size: faster, and pixels change slightly.
        """
        least_px = least_decoded_px(self.encoder.size_px) if reduced_decode else None
        found: list[dict[str, Any]] = []
        for name in name_pictures(arguments, here, listed):
            try:
                picture = decode_image(read_file(here / name, name), name, least_px=least_px)
                hits = search_picture(picture, self.encoder, self.database, k).hits
                found.append({"image": name, "results": [asdict(hit) for hit in hits]})
            except UnreadableImage as failure:
                found.append({"image": name, "error": failure.reason})
        return found


def _check_embedder(index: Path, vectors: str, named: NamedNetwork) -> None:
    """Raise ValueError where vectors are neither of the network nor of its data set's teacher, as
    far as their card says of what they are.
    """
    teacher = DatasetPaths(named.dataset).teacher
    if vectors and not any(has_embedded(path, vectors) for path in (teacher, named.path)):
        raise ValueError(
            f"{index}: its vectors are neither of {teacher} as it is now nor of {named.key}: "
            "`l2s embed` the pictures anew, or choose with --network or --dataset"
        )


@contextmanager
def open_searcher(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | Path | None,
    *,
    newest: bool = False,
) -> Iterator[Searcher]:
    """Open the network as `choose_network` finds it, and the database of the data set or the index:
    one of pictures by its name, one of vectors by its folder.

    Raises ValueError for names that are not there or do not agree, and files that cannot be read.
    """
    named_index = None if isinstance(index, Path) else index
    params, named = _choose(params_for, network, dataset, named_index, newest=newest)
    encoder = open_query_encoder(named, params.threads)
    if isinstance(index, Path):
        with open_index(index) as opened:
            _check_embedder(index, opened.card.network, named)
            yield Searcher(named, encoder, VectorDatabase(index.name, opened))
    else:
        yield Searcher(named, encoder, open_database(named.dataset, named_index))


def open_query_encoder(named: NamedNetwork, threads: int) -> Encoder:
    """The encoder of a network, as fast as this machine has it. Raises ValueError where the network
    is not there, cannot be read, or embeds nothing.
    """
    path = named.trained()
    if named.key == TEACHER and teacher_card(path)["kind"] != "network":
        from pipeline.devices import resolve_device

        return open_network(named, resolve_device(threads))
    return open_encoder(path, threads)
