"""What a program opens: an encoder of pictures, and a database that it searches.

Names are those of the study in the current folder; files may lie anywhere.
"""

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from pipeline.config.params import load_params
from pipeline.config.studies import with_inactive
from pipeline.datasets.decode import decode_image, upright_rgb
from pipeline.datasets.reader import read_file
from pipeline.models.encoders import Encoder
from pipeline.models.encoders import open_encoder as open_network
from pipeline.models.onnx_refusals import onnx_refusals
from pipeline.models.query_encoder import BATCH_IMAGES, EXPORTED, QueryEncoder, square_view
from pipeline.search.databases import (
    Database,
    VectorDatabase,
    open_image_index,
    open_study_database,
)
from pipeline.search.index import find_index, index_home
from pipeline.search.search import TEACHER, choose_network, open_query_encoder
from pipeline.search.upkeep import open_index

Picture = str | Path | bytes | Image.Image


@dataclass(frozen=True)
class PictureEncoder:
    """Pictures to unit vectors, by the evaluation view: shorter side to 8/7 of `size_px` by
    antialiased Lanczos, central square. `size_px`: the side of what the network sees.
    """

    encoder: Encoder

    @property
    def size_px(self) -> int:
        return self.encoder.size_px

    def encode(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "picture dim"]:
        """Unit vectors, float32, of picture files, their bytes, or pictures of Pillow.

        Raises ValueError for what is no picture, or is damaged, and for no picture at all.
        """
        is_one = isinstance(pictures, str | bytes | Path | Image.Image)
        if is_one or len(pictures) == 0:
            raise ValueError(f"pictures = {pictures!r:.60}: must be a list of one or more")
        pictures = list(pictures)  # a column of pandas counts by its own index
        parts = []
        for start in range(0, len(pictures), BATCH_IMAGES):
            batch = enumerate(pictures[start : start + BATCH_IMAGES], start)
            views = [square_view(_decoded(one, i), self.size_px) for i, one in batch]
            parts.append(self.encoder.embed(np.stack(views)))
        return np.concatenate(parts)


def open_encoder(network: str | Path, *, threads: int = 1) -> PictureEncoder:
    """The encoder of a network.

    network: a student of the study or of an inactive one (its champion, where one leads); a data
        set, whose teacher is meant; a trained network (.safetensors); an exported encoder (.onnx),
        or the folder that `l2s export` wrote, which comes before a name.
    threads: of the computation on a CPU.

    Raises ValueError for a name that is neither, and for a file that is not there or holds no
    network.
    """
    path, name = Path(network), str(network)
    if (path / EXPORTED).is_file():
        path = path / EXPORTED
    if path.suffix in (".onnx", ".safetensors"):
        return PictureEncoder(_open_file(path, threads))
    params = with_inactive(load_params())
    if name not in (*params.students, *params.datasets):
        known = ", ".join([*params.students, *params.datasets])
        raise ValueError(
            f"network = {name!r}: no such network; known: {known}, or a file, or a folder with "
            f"{EXPORTED}"
        )
    owner = name if name in params.datasets else None
    named = choose_network(params, TEACHER if owner else name, owner)
    return PictureEncoder(open_query_encoder(named, threads))


def _open_file(path: Path, threads: int) -> Encoder:
    if not path.is_file():
        raise ValueError(f"{path}: is not there: a study writes .safetensors, `l2s export` .onnx")
    if path.suffix == ".safetensors":
        return open_network(path, threads)
    refused: tuple[type[Exception], ...] = (*onnx_refusals(), ValueError, TypeError, IndexError)
    try:
        encoder = QueryEncoder(path, threads=threads)
        encoder.embed(np.zeros((1, encoder.size_px, encoder.size_px, 3), np.uint8))
    except refused as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no exported encoder ({reason})") from error
    return encoder


def open_database(name: str | Path) -> Database | VectorDatabase:
    """What is searched by `search(vector, k)`, by its name or its folder.

    name: a data set of the study, whose test images are meant; an index of pictures that
        `l2s index` made; or the folder of an index of vectors that `l2s index build` made, here or
        below `indexes`. The last is a `VectorDatabase`, which holds no pictures; of its vectors
        only the length is compared with a query's. It is closed when nothing refers to it.

    Raises ValueError for one that is not there, is damaged, does not fit its teacher any more, or
    needs a library that is not installed.
    """
    found = find_index(str(name), Path(name))
    if isinstance(found, Path):
        opened = ExitStack()
        database = VectorDatabase(found.name, opened.enter_context(open_index(found)))
        weakref.finalize(database, opened.close)
        return database
    return open_image_index(found) if index_home(found).is_dir() else open_study_database(found)


def _decoded(picture: Picture, place: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return upright_rgb(picture, f"picture {place}")
    if isinstance(picture, bytes):
        return decode_image(picture, f"picture {place}")
    return decode_image(read_file(Path(picture), str(picture)), str(picture))
