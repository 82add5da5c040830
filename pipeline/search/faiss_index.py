"""An index of FAISS: vectors row by row on disk, mapped, and a structure that proposes rows.

A row that is replaced or deleted stays in the files, and counts no more. parts.json names the files
in force; what is new is written beside them first, so that a reader sees the old or the new.

    parts.json            rows of each part, the names of the files below, their SHA-256
    part-N.vectors        the vectors of one `upsert`, row by row
    part-N.arrow          their ids and contents
    structure-N.faiss     of hnsw and ivfpq: all rows, by their number
    removed-N.npy         the rows that count no more, ascending
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.datasets.vector_batches import VectorBatch
from pipeline.files import replacing, write_text
from pipeline.search.index import file_sha256
from pipeline.search.structures import (
    SCANNED,
    IndexKind,
    choose_lists,
    empty_structure,
    proposals,
    proposed_rows,
    read_index,
    row_blocks,
    vectors_of_rows,
)
from pipeline.search.vector_index import Neighbours, VectorIndexCard, contents, exact_neighbours

PARTS = "parts.json"
_IDS = pa.schema([("id", pa.string()), ("content", pa.string())])


class Parts(BaseModel):
    """The files in force. rows: of each part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, ...] = ()
    structure: str = ""
    removed: str = ""
    sha256: dict[str, str] = {}


class FaissIndex:
    """The kinds exact, hnsw and ivfpq of `VectorIndex`, in a folder of the card's kind.

    exact compares all vectors, and so does hnsw where it holds few for as many as are wanted; else
    hnsw and ivfpq propose rows (`proposed_rows`), which are ranked by their vectors. is_new: the
    folder holds none yet. Raises ValueError for one that has lost its files, and files that do not
    fit together.
    """

    def __init__(self, folder: Path, card: VectorIndexCard, *, is_new: bool = False) -> None:
        self.folder, self.card = folder, card
        if is_new:
            write_text(folder / PARTS, Parts().model_dump_json(indent=2) + "\n")
        self._open()

    def _open(self) -> None:
        state = self.folder / PARTS
        if not state.is_file():
            raise ValueError(f"{self.folder}: has lost its vectors: build it anew")
        try:
            self.parts = Parts.model_validate_json(state.read_bytes())
            self.starts = [0, *np.cumsum(self.parts.rows, dtype=np.int64).tolist()]
            self._map_files()
        except (ValueError, OSError, EOFError) as error:  # pyarrow's errors are of these
            reason = str(error)
            if isinstance(error, ValidationError):  # of several lines
                reason = f"{PARTS}: {error.errors()[0]['msg']}"
            raise ValueError(f"{self.folder}: is damaged: build it anew ({reason})") from error
        count = len(self.ids)
        ascend = (np.diff(self.removed, prepend=-1, append=count) > 0).all()
        shape = (count, self.card.dim)
        structure = self.structure
        if not (
            count == self.starts[-1]
            and ascend
            and (structure is None or (structure.ntotal, structure.d) == shape)
        ):
            raise ValueError(f"{self.folder}: its files do not fit together: build it anew")

    def _map_files(self) -> None:
        numbers, dim = np.dtype(self.card.number), self.card.dim
        self.vectors = []
        tables = [_IDS.empty_table()]
        for part, rows in enumerate(self.parts.rows):
            file = self.folder / f"part-{part}.vectors"
            if file.stat().st_size != rows * dim * numbers.itemsize:
                raise ValueError(f"{file.name} does not hold {rows} vectors of {dim} numbers")
            with pa.memory_map(str(file)) as mapped:  # numpy's map would hold the file open
                flat = np.frombuffer(mapped.read_buffer(), numbers)
            self.vectors.append(flat.reshape(rows, dim))
            with pa.memory_map(str(self.folder / f"part-{part}.arrow")) as mapped:
                tables.append(pa.ipc.open_file(mapped).read_all())
        self.ids = pa.concat_tables(tables)
        self.chunks = self.ids.to_batches()
        self.chunk_starts = np.cumsum([0, *map(len, self.chunks)])
        removed, structure = self.parts.removed, self.parts.structure
        self.removed = np.load(self.folder / removed) if removed else np.empty(0, np.int64)
        self.structure = read_index(self.folder / structure) if structure else None

    def __len__(self) -> int:
        return len(self.ids) - len(self.removed)

    def upsert(self, batches: Iterable[VectorBatch]) -> int:
        """As `VectorIndex.upsert`; all of it is one part.

        Raises ValueError for ivfpq that has fewer vectors than it can learn from.
        """
        number = len(self.parts.rows)
        vectors, names = (self.folder / f"part-{number}.{end}" for end in ("vectors", "arrow"))
        added, replaced = 0, [self.removed]
        with replacing(vectors) as for_vectors, replacing(names) as for_names:
            with (
                for_vectors.open("wb") as file,
                pa.OSFile(str(for_names), "wb") as sink,
                pa.ipc.new_file(sink, _IDS) as table,
            ):
                for batch in batches:
                    file.write(batch.vectors.astype(self.card.number).tobytes())
                    columns = [pa.array(batch.ids), pa.array(contents(batch), pa.string())]
                    table.write_batch(pa.record_batch(columns, schema=_IDS))
                    replaced.append(self._places(batch.ids))
                    added += len(batch.ids)
            if not added:
                return 0
            shape = (added, self.card.dim)
            new = np.memmap(for_vectors, self.card.number, mode="r", shape=shape)
            structure = self._extended(new)
        files = {file.name: file_sha256(file) for file in (vectors, names)}
        self._commit((*self.parts.rows, added), np.concatenate(replaced), structure, files)
        return added

    def _extended(self, new: Float[np.ndarray, "row dim"]) -> Callable[[Path], None] | None:
        """Writes the structure with the new rows, which it takes block by block; for exact None."""
        if self.card.kind == "exact":
            return None
        if self.structure is None:
            structure = empty_structure(new, cast("IndexKind", self.card.kind))
        else:  # in memory, since what is mapped takes nothing up
            structure = faiss.read_index(str(self.folder / self.parts.structure))
        for _, block in row_blocks(new):
            structure.add(block.astype(np.float32))
        rows = len(self.ids)
        if self.card.kind == "ivfpq" and rows.bit_length() < (rows + len(new)).bit_length():
            choose_lists(structure, [*self.vectors, new])  # it has doubled, or is new
        return lambda path: faiss.write_index(structure, str(path))

    def delete(self, ids: Sequence[str]) -> int:
        """As `VectorIndex.delete`: the rows stay in the files, and are found no more."""
        places = self._places(ids)
        if len(places):
            self._commit(self.parts.rows, np.concatenate([self.removed, places]), None, {})
        return len(places)

    def _commit(
        self,
        rows: tuple[int, ...],
        removed: Int[np.ndarray, " row"],
        structure: Callable[[Path], None] | None,
        files: dict[str, str],
    ) -> None:
        """Put new files in force, with the removed rows and the structure that are written here."""
        former, state = self.parts, {"structure": self.parts.structure, "removed": ""}
        writers: dict[str, Callable[[Path], None]] = {}
        if structure is not None:
            state["structure"] = f"structure-{len(rows)}.faiss"
            writers[state["structure"]] = structure
        if len(removed):
            state["removed"] = f"removed-{len(rows)}-{len(removed)}.npy"
            writers[state["removed"]] = lambda path: _save(path, np.sort(removed))
        for name, write in writers.items():
            with replacing(self.folder / name) as temporary:
                write(temporary)
            files[name] = file_sha256(self.folder / name)
        left = {former.structure, former.removed} - {*state.values(), ""}
        kept = {name: digest for name, digest in former.sha256.items() if name not in left}
        self.parts = Parts(rows=rows, sha256=kept | files, **state)
        write_text(self.folder / PARTS, self.parts.model_dump_json(indent=2) + "\n")
        for name in left:
            (self.folder / name).unlink(missing_ok=True)
        self._open()

    def search(
        self, queries: Float[np.ndarray, "query dim"], k: int, *, exhaustive: bool = False
    ) -> Neighbours:
        """As `VectorIndex.search`. Exhaustive is, of ivfpq, to look into all of its lists."""
        k = min(k, len(self))
        if not k:
            return Neighbours([[] for _ in queries], [[] for _ in queries])
        is_small = len(self) <= SCANNED * proposals(k, len(self))
        if self.structure is None or (self.card.kind == "hnsw" and (exhaustive or is_small)):
            scores, rows = exact_neighbours(queries, self._blocks(), k)
            return Neighbours([self._names(found) for found in rows], scores.tolist())
        proposed = proposed_rows(
            self.structure, queries, k, removed=self.removed, exhaustive=exhaustive
        )
        found: list[list[str]] = []
        similarities: list[list[float]] = []
        for query, some in zip(queries, proposed, strict=True):
            rows = some[some >= 0]
            if len(rows) < k:  # a graph of whose rows most are removed
                [scores], [best] = exact_neighbours(query[None], self._blocks(), k)
            else:
                scores = vectors_of_rows(self.vectors, rows) @ query
                order = np.argsort(-scores, kind="stable")[:k]
                scores, best = scores[order], rows[order]
            found.append(self._names(best))
            similarities.append(scores.tolist())
        return Neighbours(found, similarities)

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[VectorBatch]:
        """As `VectorIndex.rows`."""
        if ids is not None:
            if len(places := self._places(ids)):
                yield self._batch(places, vectors_of_rows(self.vectors, places))
            return
        for places, vectors in self._blocks():
            yield self._batch(places, vectors.astype(np.float32))

    def damage(self) -> list[str]:
        """Which files in force are not what was written, in words."""
        return [
            f"{name}: is not the file that was written"
            for name, digest in self.parts.sha256.items()
            if file_sha256(self.folder / name) != digest
        ]

    def _batch(
        self, places: Int[np.ndarray, " row"], vectors: Float[np.ndarray, "row dim"]
    ) -> VectorBatch:
        """places: ascending, and at least one."""
        names, content = [], []
        first, last = np.searchsorted(self.chunk_starts, [places[0], places[-1]], "right") - 1
        for number in range(first, last + 1):  # of the table `take` would join columns, to 2 GiB
            start, chunk = self.chunk_starts[number], self.chunks[number]
            own = places[(places >= start) & (places < start + len(chunk))]
            taken = chunk.take(pa.array(own - start))
            names += taken["id"].to_pylist()
            content += taken["content"].to_pylist()
        return VectorBatch(names, vectors, content)

    def _names(self, rows: Int[np.ndarray, " row"]) -> list[str]:
        column = self.ids["id"]
        return [column[row].as_py() for row in rows.tolist()]

    def _places(self, ids: Sequence[str]) -> Int[np.ndarray, " row"]:
        """The rows that count of these ids, as far as there are such, ascending."""
        wanted = pa.array(list(ids), pa.string())
        found = [
            start
            + pc.is_in(ids["id"], value_set=wanted).to_numpy(zero_copy_only=False).nonzero()[0]
            for start, ids in zip(self.chunk_starts[:-1].tolist(), self.chunks, strict=True)
        ]
        return np.setdiff1d(np.concatenate([np.empty(0, np.int64), *found]), self.removed)

    def _blocks(self) -> Iterator[tuple[Int[np.ndarray, " row"], Float[np.ndarray, "row dim"]]]:
        """The rows that count and their vectors, in blocks."""
        for offset, part in zip(self.starts, self.vectors, strict=False):
            for rows, block in row_blocks(part, offset):
                low, high = np.searchsorted(self.removed, [rows[0], rows[-1] + 1])
                if low == high:
                    yield rows, block
                else:
                    counts = np.isin(rows, self.removed[low:high], invert=True)
                    if counts.any():
                        yield rows[counts], block[counts]


def _save(path: Path, rows: Int[np.ndarray, " row"]) -> None:
    with path.open("wb") as file:
        np.save(file, rows)
