"""What can be searched: embeddings of the teacher, and what each of them shows."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.packs import open_pack
from pipeline.paths import DatasetPaths
from pipeline.search.index import (
    file_sha256,
    index_home,
    index_names,
    read_content,
    read_vectors,
    require_card,
)
from pipeline.search.pictures import read_indexed
from pipeline.search.structures import proposed_rows, read_index
from pipeline.search.vector_index import VectorIndex


def image_id(name: str) -> int:
    """53 bits of the SHA-256 of an image's name: the same in every rebuild, on every machine, and
    exact in every JSON reader.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11


@dataclass(frozen=True)
class Hit:
    """One result. `similarity` is the cosine, `id` that of the image's name, `rank` from 1.

    row: the place in the database; of an index of vectors, which has no rows, `rank` - 1.
    """

    rank: int
    similarity: float
    id: int
    class_name: str
    name: str
    row: int


@dataclass(frozen=True)
class Database:
    """An open database. Row i of `vectors`, `ids`, `names` and `class_names` is one image.

    `ids` ascend. `dataset` is the one whose teacher embedded it; `read` gives the encoded image of
    a row; `what` says which images they are.
    """

    name: str
    dataset: str
    index: Any
    is_exact: bool
    vectors: Float[np.ndarray, "database dim"]
    ids: Int[np.ndarray, " database"]
    names: Sequence[str]
    class_names: Sequence[str]
    read: Callable[[int], bytes]
    what: str = "images"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def search(self, query: Float[np.ndarray, " dim"], k: int) -> list[Hit]:
        """The `k` images most similar to a unit vector, best first; fewer where there are fewer.

        Raises ValueError for a vector of another length or with numbers that are not finite, and
        for a `k` under 1.
        """
        _check(query, k, self, "run `l2s study`")
        if self.is_exact:
            scores, ids = (one[0] for one in self.index.search(query[None], min(k, len(self))))
            rows, scores = self._rows(ids[ids >= 0]), scores[ids >= 0]
        else:  # the most similar of those that the index proposes
            [ids] = proposed_rows(self.index, query[None], min(k, len(self)))
            rows = self._rows(ids[ids >= 0])
            scores = self.vectors[rows] @ query
            best = np.argsort(-scores, kind="stable")[:k]
            rows, scores = rows[best], scores[best]
        if not np.isfinite(scores).all():
            raise ValueError(
                f"{self.name}: its index holds vectors that are not finite: rebuild it"
            )
        hits = []
        for rank, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True), 1):
            name = self.names[row]
            hits.append(Hit(rank, score, image_id(name), self.class_names[row], name, row))
        return hits

    def _rows(self, ids: Int[np.ndarray, " found"]) -> Int[np.ndarray, " found"]:
        """The rows of ids. Raises ValueError for those that the table does not know."""
        rows = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        if not np.array_equal(self.ids[rows], ids):
            raise ValueError(
                f"{self.name}: its index knows other images than its table: rebuild it"
            )
        return rows


@dataclass(frozen=True)
class VectorDatabase:
    """An index of vectors that is searched as a database is. It knows no pictures."""

    name: str
    index: VectorIndex
    what: str = "vectors"

    def __len__(self) -> int:
        return len(self.index)

    @property
    def dim(self) -> int:
        return self.index.card.dim

    def search(self, query: Float[np.ndarray, " dim"], k: int) -> list[Hit]:
        """As `Database.search`; the class of an image is the folder that its id begins with."""
        _check(query, k, self, "choose with --network or --dataset")
        found = self.index.search(query[None], k)
        return [
            Hit(rank, similarity, image_id(name), class_of(name), name, rank - 1)
            for rank, (name, similarity) in enumerate(
                zip(found.ids[0], found.similarities[0], strict=True), 1
            )
        ]

    def read(self, row: int) -> bytes:
        """Raises UnreadableImage: an index of vectors holds no pictures."""
        raise UnreadableImage(self.name, "an index of vectors holds no pictures")


def _check(
    query: Float[np.ndarray, " dim"], k: int, database: Database | VectorDatabase, mend: str
) -> None:
    if query.shape != (database.dim,):
        raise ValueError(
            f"the query has {len(query)} numbers and {database.name} {database.dim}: they come "
            f"from different networks: {mend}"
        )
    if not np.isfinite(query).all():
        raise ValueError("the query has numbers that are not finite")
    if k < 1:
        raise ValueError(f"k = {k}: must be 1 or more")


def class_of(name: str) -> str:
    """The class that a path of an image below a folder tells: its first folder, if it has one."""
    return name.partition("/")[0] if "/" in name else ""


def open_database(dataset: str, index: str | None) -> Database:
    """The database of a data set, or of an index that its teacher has embedded.

    Raises ValueError for one that is not there, does not fit together, or is of another data set.
    """
    if index is None:
        return open_study_database(dataset)
    if (owner := require_card(index).dataset) != dataset:
        raise ValueError(f"--index {index} belongs to {owner}, not to {dataset}")
    return open_image_index(index)


def open_study_database(dataset: str) -> Database:
    """The test images of a data set, as the stage embed_database left them; ids are the rows.

    Raises ValueError when they are not there, or do not fit together.
    """
    paths = DatasetPaths(dataset)
    missing = [str(p) for p in (paths.pack, paths.index, paths.database) if not p.exists()]
    if missing:
        there = sorted(one.parent.name for one in Path().glob(str(DatasetPaths("*").index)))
        known = ", ".join([*there, *index_names()]) or "none"
        raise ValueError(
            f"{dataset} has no database yet ({missing[0]}): run `l2s study`; known: {known}"
        )
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    index = read_index(paths.index)
    vectors = read_vectors(paths.database)[: len(test)]  # stored ones may follow
    if not index.ntotal == len(vectors) == len(test) or index.d != vectors.shape[1]:
        raise ValueError(
            f"{dataset}: {index.ntotal} vectors of {index.d} are indexed and {vectors.shape} "
            f"stored, of {len(test)} test images: run `l2s study`"
        )
    return Database(
        name=dataset,
        dataset=dataset,
        index=index,
        is_exact=True,
        vectors=vectors,
        ids=np.arange(len(test)),
        names=[pack.names[row] for row in test],
        class_names=[pack.class_of(int(row)) for row in test],
        read=lambda row: pack.encoded(int(test[row])),
        what=f"test images of {len(pack)}; `l2s index FOLDER` takes all images of a folder",
    )


def open_image_index(name: str) -> Database:
    """An index by its name, for searching.

    Raises ValueError when there is no such index, it is damaged, or it was embedded by another
    teacher than the present one of its data set.
    """
    card = require_card(name)
    teacher = DatasetPaths(card.dataset).teacher
    if not teacher.exists() or file_sha256(teacher) != card.teacher_sha256:
        raise ValueError(
            f"index {name} was embedded by another teacher than {teacher}: `l2s index FOLDER "
            f"--name {name} --rebuild` embeds it anew"
        )
    home = index_home(name)
    try:
        images, vectors = read_content(home, card)
        index = read_index(home / str(card.generation) / "index.faiss")
    except (ValueError, OSError):
        if require_card(name) == card:
            raise
        return open_image_index(name)  # a writer has put another generation in force
    if (index.ntotal, index.d) != vectors.shape:
        raise ValueError(f"{home}: its files do not fit together; index with --rebuild")
    names, folders = images["name"].to_pylist(), images["folder"].to_pylist()
    digests = images["sha256"]
    return Database(
        name=name,
        dataset=card.dataset,
        index=index,
        is_exact=card.kind == "exact",
        vectors=vectors,
        ids=images["id"].to_numpy(),
        names=names,
        class_names=images["class_name"].to_pylist(),
        read=lambda row: read_indexed(Path(folders[row]), names[row], digests[row].as_py()),
    )
