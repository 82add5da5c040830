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
from pipeline.files import user_path
from pipeline.models.encoders import Encoder, open_encoder
from pipeline.models.query_encoder import least_decoded_px, square_view
from pipeline.paths import DatasetPaths
from pipeline.search.champions import Champion, kept_champion
from pipeline.search.databases import Database, Hit, VectorDatabase, open_database
from pipeline.search.index import require_card
from pipeline.search.pictures import name_pictures
from pipeline.search.upkeep import open_index
from pipeline.search.vector_index import VectorIndexCard
from pipeline.teachers import teacher_card

if TYPE_CHECKING:
    import torch

    from pipeline.models.torch_encoder import TorchEncoder
    from pipeline.teachers.teacher import Teacher

TEACHER = "teacher"


@dataclass(frozen=True)
class NamedNetwork:
    """A key of params.students or `teacher`, and the data set that it belongs to; or a file.

    champion: the version of the student that leads, where one does and is meant. file: of a network
    that is named by it, which no data set is known of.
    """

    key: str
    dataset: str
    champion: Champion | None = None
    file: Path | None = None

    @property
    def path(self) -> Path:
        if self.file is not None:
            return self.file
        paths = DatasetPaths(self.dataset)
        if self.champion is not None:
            return self.champion.path
        return paths.teacher if self.key == TEACHER else paths.student(self.key)

    @property
    def version(self) -> str | None:
        """That of the champion that it is, if it is one."""
        return self.champion.version if self.champion else None

    def fits(self, card: VectorIndexCard) -> bool:
        """Whether vectors are its own or those of its data set's teacher, as it is now, as far as
        their card says of what they are. Raises ValueError for a damaged file.
        """
        teacher = [] if self.file else [DatasetPaths(self.dataset).teacher]
        return not card.network or any(
            has_embedded(path, card.network) for path in (*teacher, self.path)
        )

    def trained(self) -> Path:
        """Its file. Raises ValueError when it is not there."""
        if not self.path.exists():
            raise ValueError(f"{self.key} is not trained yet ({self.path}): run `l2s study`")
        return self.path


def named_file(network: str | None, here: Path) -> NamedNetwork | None:
    """The network that a user names by its file, NAME.safetensors, which refers to the folder
    `here`; None for what names none. Raises ValueError for a file that is not there.
    """
    if network is None or not network.endswith(".safetensors"):
        return None
    file = user_path(network, here).resolve()
    if not file.is_file():
        raise ValueError(f"--network {network}: there is no such file")
    return NamedNetwork(file.name, "", file=file)


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
    return NamedNetwork(key, owner) if newest else leading_network(params, key, owner)


def leading_network(params: Params, key: str, dataset: str) -> NamedNetwork:
    """The network, or the champion that stands for it. Raises ValueError as `kept_champion`."""
    if key == TEACHER:
        return NamedNetwork(key, dataset)
    return NamedNetwork(key, dataset, kept_champion(dataset, key, params.students[key].query_px))


def networks_of(params: Params, dataset: str) -> list[str]:
    """The students of a data set in the order of params.yaml, then its teacher."""
    return [*params.cells_of(dataset)[1:], TEACHER]


def open_network(named: NamedNetwork, device: "torch.device") -> "TorchEncoder | Teacher":
    """Load a network. Raises ValueError when it is not there, cannot be read, or embeds nothing."""
    from pipeline.models.torch_encoder import open_torch_encoder
    from pipeline.teachers.teacher import open_teacher

    opened = open_teacher if named.key == TEACHER or named.file else open_torch_encoder
    return opened(named.trained(), device)


# The parameters that have a data set and a network, if any is named, of an inactive study too.
ParamsFor = Callable[[str | None, str | None], Params]


def choose_with_params(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | None,
    *,
    newest: bool,
) -> tuple[Params, NamedNetwork]:
    """As `choose_network`, by default for the data set of an index of pictures."""
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


def _check_embedder(index: Path, card: VectorIndexCard, named: NamedNetwork) -> None:
    """Raise ValueError where a network's vectors are not of the length or the space of an index."""
    if (dim := int(teacher_card(named.path)["dim"])) != card.dim:
        raise ValueError(
            f"{index}: its vectors have {card.dim} numbers, and those of {named.key} {dim}: they "
            "come from different networks: choose with --network or --dataset"
        )
    if not named.fits(card):
        teacher = DatasetPaths(named.dataset).teacher
        neither = f"neither of {teacher} as it is now nor of {named.key}"
        what = f"not of {named.key} as it is now" if named.file else neither
        raise ValueError(
            f"{index}: its vectors are {what}: `l2s embed` the pictures anew, or choose with "
            "--network (a student's key, or the file that embedded them) or --dataset"
        )


@contextmanager
def open_searcher(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | Path | None,
    *,
    here: Path = Path(),
    newest: bool = False,
) -> Iterator[Searcher]:
    """Open the network as `choose_network` finds it, and the database of the data set or the index:
    one of pictures by its name, one of vectors by its folder.

    here: what a network's file refers to; of such a network an index of vectors is searched, and no
    study is needed.

    Raises ValueError for names that are not there or do not agree, and files that cannot be read.
    """
    if named := named_file(network, here):
        if dataset is not None or not isinstance(index, Path):
            raise ValueError(
                f"--network {network}: a file searches an index of vectors: name its folder with "
                "--index, and no --dataset"
            )
        threads = 1  # as `l2s embed` computes
    else:
        pictures = None if isinstance(index, Path) else index
        params, named = choose_with_params(params_for, network, dataset, pictures, newest=newest)
        threads = params.threads
    encoder = open_query_encoder(named, threads)
    if isinstance(index, Path):
        with open_index(index) as opened:
            _check_embedder(index, opened.card, named)
            yield Searcher(named, encoder, VectorDatabase(index.name, opened))
    else:
        yield Searcher(named, encoder, open_database(named.dataset, index))


def open_query_encoder(named: NamedNetwork, threads: int) -> Encoder:
    """The encoder of a network, as fast as this machine has it. Raises ValueError where the network
    is not there, cannot be read, or embeds nothing.
    """
    path = named.trained()
    if (named.key == TEACHER or named.file) and teacher_card(path)["kind"] != "network":
        from pipeline.devices import resolve_device

        return open_network(named, resolve_device(threads))
    return open_encoder(path, threads)
