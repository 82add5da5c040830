"""An index of further images, embedded by a teacher without training: indexes/NAME/.

index.json names the generation in force; the files of a generation lie in a folder of its number.
A new one is written beside it, then index.json is replaced: a reader sees the old or the new.

    index.json                     generation, data set, teacher, kind, counts
    GENERATION/images.parquet      id, name, class_name, sha256, folder; ascending ids
    GENERATION/vectors.npy         teacher embeddings, row by row as in images.parquet
    GENERATION/index.faiss         made of the vectors; answers with ids
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from jaxtyping import Float
from pydantic import TypeAdapter

from pipeline.files import replacing, write_json
from pipeline.search.databases import Database
from pipeline.search.index import IndexKind, read_index, write_image_index
from pipeline.search.pictures import read_file

INDEXES = Path("indexes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
COLUMNS = ["id", "name", "class_name", "sha256", "folder"]


@dataclass(frozen=True)
class IndexCard:
    """What an index is. `teacher_sha256` is that of the teacher's file, which embedded it all."""

    generation: int
    dataset: str
    teacher_sha256: str
    kind: IndexKind
    images: int


def index_home(name: str) -> Path:
    """The folder of an index. Raises ValueError for a name that is no plain file name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"index {name!r}: must be letters, digits, '_', '.' or '-'")
    return INDEXES / name


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(home: Path) -> Iterator[None]:
    """One writer at a time; the next waits."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_name(f".{home.name}.lock")):
        yield


def read_card(home: Path) -> IndexCard | None:
    """The card of the index in force, or None where there is none yet.

    Raises ValueError for a file that is no such card.
    """
    path = home / "index.json"
    try:
        return TypeAdapter(IndexCard).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except ValueError as error:  # pydantic's too
        raise ValueError(f"{path}: is not the card of an index; delete the folder") from error


def read_images(home: Path, card: IndexCard) -> pd.DataFrame:
    """The side table of an index. Raises ValueError for a file that is damaged."""
    path = home / str(card.generation) / "images.parquet"
    try:
        return pd.read_parquet(path, columns=COLUMNS)
    except (ValueError, OSError) as error:  # pyarrow's errors are of these
        raise ValueError(f"{path}: cannot be read; index with --rebuild ({error})") from error


def read_vectors(home: Path, card: IndexCard) -> Float[np.ndarray, "database dim"]:
    """The vectors of an index, memory-mapped. Raises ValueError for a file that is damaged."""
    path = home / str(card.generation) / "vectors.npy"
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read; index with --rebuild ({error})") from error


def write_generation(
    home: Path,
    card: IndexCard,
    images: pd.DataFrame,
    vectors: Float[np.ndarray, "database dim"],
    *,
    threads: int,
) -> None:
    """Write the generation of `card` and put it in force; the earlier ones are deleted.

    images, vectors: row by row the same, in any order. Raises ValueError where two names share an
    id, or for a kind that needs more images; the index in force then stays.
    """
    order = np.argsort(images["id"].to_numpy(), kind="stable")
    images, vectors = images.iloc[order], np.ascontiguousarray(vectors[order], dtype=np.float32)
    ids = images["id"].to_numpy()
    if len(clashing := images.loc[images["id"].duplicated(keep=False), "name"]):
        raise ValueError(f"these images share an id: {', '.join(clashing)}; rename one")
    folder = home / str(card.generation)
    shutil.rmtree(folder, ignore_errors=True)  # left by a writer that was killed
    try:
        write_image_index(folder / "index.faiss", vectors, ids, card.kind, threads=threads)
        with replacing(folder / "vectors.npy") as temporary, temporary.open("wb") as file:
            np.save(file, vectors)
        with replacing(folder / "images.parquet") as temporary:
            images.to_parquet(temporary, index=False)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    write_json(home / "index.json", asdict(card))
    for other in home.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)


def open_image_index(name: str, teacher: Path) -> Database:
    """An index by its name, for searching.

    teacher: the file of the data set's teacher, which must be the one that embedded the index.
    Raises ValueError when there is no such index, it is damaged, or of another teacher.
    """
    card = require_card(name)
    if not teacher.exists() or file_sha256(teacher) != card.teacher_sha256:
        raise ValueError(
            f"index {name} was embedded by another teacher than {teacher}: `l2s index FOLDER "
            f"--name {name} --rebuild` embeds it anew"
        )
    try:
        return _open_generation(name, card)
    except (ValueError, OSError):
        newer = require_card(name)
        if newer == card:
            raise
        return _open_generation(name, newer)  # a writer has put it in force in between


def _open_generation(name: str, card: IndexCard) -> Database:
    home = index_home(name)
    images, vectors = read_images(home, card), read_vectors(home, card)
    index = read_index(home / str(card.generation) / "index.faiss")
    if not index.ntotal == len(images) == len(vectors) or index.d != vectors.shape[1]:
        raise ValueError(f"{home}: its files do not fit together; index with --rebuild")
    names, folders = images["name"].tolist(), images["folder"].tolist()

    def read(row: int) -> bytes:
        return read_file(Path(folders[row], names[row]), names[row])

    return Database(
        name=name,
        dataset=card.dataset,
        index=index,
        is_exact=card.kind == "exact",
        vectors=vectors,
        ids=images["id"].to_numpy(),
        names=names,
        class_names=images["class_name"].tolist(),
        read=read,
    )


def require_card(name: str) -> IndexCard:
    """The card of an index that must be there. Raises ValueError that lists those that are."""
    card = read_card(index_home(name))
    if card is None:
        known = ", ".join(sorted(path.parent.name for path in INDEXES.glob("*/index.json")))
        raise ValueError(f"index {name}: there is none; known: {known or 'none'}")
    return card
