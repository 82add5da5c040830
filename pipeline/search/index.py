"""Indexes on disk: of a study's database, and of further images under stable ids, indexes/NAME/.

index.json names the generation in force; the files of a generation lie in a folder of its number.
A new one is written beside it, then index.json is replaced: a reader sees the old or the new.

    index.json                     version, generation, data set, teacher, kind, counts
    GENERATION/images.parquet      id, name, class_name, sha256, folder; ascending ids
    GENERATION/vectors.npy         teacher embeddings, row by row as in images.parquet
    GENERATION/index.faiss         made of the vectors; answers with ids
"""

import hashlib
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float
from pydantic import TypeAdapter

from pipeline.files import replacing, replacing_folder, write_json
from pipeline.search.structures import IndexKind, write_image_index
from pipeline.search.vector_index import is_vector_index

INDEXES = Path("indexes")
MOST_TEXT_BYTES = 4096  # of a name or a folder: the longest path of Linux
IMAGE_COLUMNS = pa.schema(
    [("id", pa.int64())]
    + [(name, pa.string()) for name in ("name", "class_name", "sha256", "folder")]
)


def read_vectors(path: Path) -> Float[np.ndarray, "database dim"]:
    """The vectors of a file, memory-mapped. Raises ValueError for a damaged one, OSError."""
    try:
        vectors = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        reason = "allow_pickle" in str(error) and "no numbers"  # what numpy says of other files
        raise ValueError(f"{path}: cannot be read ({reason or error})") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ValueError(f"{path}: holds {vectors.dtype} {vectors.shape}, no vectors")
    return vectors


@dataclass(frozen=True)
class IndexCard:
    """What an index is. `teacher_sha256` is that of the teacher's file, which embedded it all.

    version: of the form of the index; a card without one is of the first.
    """

    generation: int
    dataset: str
    teacher_sha256: str
    kind: IndexKind
    images: int
    version: Literal[1] = 1


def index_home(name: str) -> Path:
    """The folder of an index. Raises ValueError for a name that is no plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"index {name!r}: must be letters, digits, '_', '.' or '-'")
    return INDEXES / name


def index_names() -> list[str]:
    """The indexes of pictures that are there."""
    folders = (path.parent for path in INDEXES.glob("*/index.json"))
    return sorted(folder.name for folder in folders if not is_vector_index(folder))


def find_index(name: str, path: Path) -> str | Path:
    """What `--index` names: an index of vectors, by its folder here or in `indexes`, else the name
    of one of pictures, which may be given by its folder, too.
    """
    for place in (INDEXES / name, path):
        if (place / "index.json").is_file():
            if is_vector_index(place):
                return place
            return place.name if place.parent.resolve() == INDEXES.resolve() else name
    return name


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(home: Path) -> IndexCard | None:
    """The card of the index in force, or None where there is none yet.

    Raises ValueError for a file that is no such card.
    """
    path = home / "index.json"
    if is_vector_index(home):
        raise ValueError(f"{home}: is an index of vectors: `l2s index add` extends it")
    try:
        return TypeAdapter(IndexCard).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except ValueError as error:  # pydantic's too
        raise ValueError(
            f"{path}: is not the card of an index of this version; delete the folder"
        ) from error


def require_card(name: str) -> IndexCard:
    """The card of an index that must be there. Raises ValueError that lists those that are."""
    card = read_card(index_home(name))
    if card is None:
        known = ", ".join(index_names())
        raise ValueError(f"index {name}: there is none; known: {known or 'none'}")
    return card


def read_content(home: Path, card: IndexCard) -> tuple[pa.Table, Float[np.ndarray, "database dim"]]:
    """The images, with the columns `IMAGE_COLUMNS`, and row by row their memory-mapped vectors.

    Raises ValueError for a damaged file.
    """
    folder = home / str(card.generation)
    try:
        images = _read_images(folder / "images.parquet")
        vectors = read_vectors(folder / "vectors.npy")
    except (ValueError, OSError) as error:  # pyarrow's errors are of these
        raise ValueError(f"{folder}: cannot be read; index with --rebuild ({error})") from error
    if len(images) != len(vectors):
        raise ValueError(f"{home}: its files do not fit together; index with --rebuild")
    return images, vectors


def _read_images(file: Path) -> pa.Table:
    """The table of images, by ascending ids. Raises ValueError for another table, and for endless
    texts: one that is repeated stands once in the file, and in what is read of it, but in a column
    of texts as often as it is meant.
    """
    texts = [column.name for column in IMAGE_COLUMNS if column.type == pa.string()]
    held = pq.ParquetFile(file).schema_arrow
    if not held.equals(IMAGE_COLUMNS):
        raise ValueError(f"{file} holds other columns than {', '.join(IMAGE_COLUMNS.names)}")
    images = pq.read_table(file, read_dictionary=texts)
    ids = images["id"].to_numpy()
    if any(column.null_count for column in images.columns) or (ids[1:] <= ids[:-1]).any():
        raise ValueError(f"{file} has gaps, or ids that do not ascend")
    for chunk in (chunk for name in texts for chunk in images[name].chunks):
        if (pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0) > MOST_TEXT_BYTES:
            raise ValueError(f"{file} has a text of more than {MOST_TEXT_BYTES} bytes")
    return images.cast(IMAGE_COLUMNS)


def write_generation(
    home: Path,
    card: IndexCard,
    images: pa.Table,
    vectors: Float[np.ndarray, "database dim"],
    *,
    threads: int,
) -> None:
    """Write the generation of `card` and put it in force; the earlier ones are deleted.

    images, vectors: as from `read_content`, in any order. Raises ValueError where two names share
    an id, or for a kind that needs more images; the index in force then stays.
    """
    order = np.argsort(images["id"].to_numpy(), kind="stable")
    images = images.take(order)
    vectors = np.ascontiguousarray(vectors[order], dtype=np.float32)
    ids = images["id"].to_numpy()
    if len(clashing := np.flatnonzero(ids[1:] == ids[:-1])):
        names = images["name"][clashing[0] : clashing[0] + 2].to_pylist()
        raise ValueError(f"these images share an id: {', '.join(names)}; rename one")
    with replacing_folder(home / str(card.generation)) as folder:
        write_image_index(folder / "index.faiss", vectors, ids, card.kind, threads=threads)
        with replacing(folder / "vectors.npy") as temporary, temporary.open("wb") as file:
            np.save(file, vectors)
        with replacing(folder / "images.parquet") as temporary:
            pq.write_table(images, temporary)
    write_json(home / "index.json", asdict(card))
    for other in home.iterdir():
        if other.is_dir() and other.name != str(card.generation):
            shutil.rmtree(other, ignore_errors=True)
