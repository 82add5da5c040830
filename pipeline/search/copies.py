"""Where a picture remains whose vector was taken out of an index."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.datasets.object_storage import is_address, shown_address
from pipeline.datasets.packs import open_pack
from pipeline.datasets.reader import enumerate_names
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import MANIFEST, read_vectors
from pipeline.files import read_json
from pipeline.search.index import INDEXES, index_home, index_names, read_content, require_card
from pipeline.search.upkeep import index_folders, open_index
from pipeline.search.vector_index import VectorIndexCard, contents

IN_PLACE = {
    "lancedb": "earlier versions of its table, until LanceDB's optimize() clears them away",
    "qdrant": "",
}
BUILT_ANEW = "its files, where the row counts no more, until the index is built anew"


def contents_of(folder: Path, ids: Sequence[str]) -> frozenset[str]:
    """What tells the pictures of these ids from others: their `contents` in an index."""
    with open_index(folder) as index:
        return frozenset(one for rows in index.rows(ids) for one in rows.content)


def find_copies(
    folder: Path, card: VectorIndexCard, ids: Sequence[str], held: frozenset[str]
) -> Iterator[str]:
    """Lines that say where these ids remain: this index's own files, the vectors that it was built
    from, the pictures that they were made of, other indexes beside it and in `indexes`, and the
    packs and exports of studies in the current folder. What lies elsewhere is not known here.

    held: what `contents_of` said of the ids before they were removed. In the index and its vectors,
    and in indexes of pictures, the same picture is found under other ids, too.
    """
    wanted = frozenset(ids)
    if own := IN_PLACE.get(card.kind, BUILT_ANEW):
        yield f"{folder}: {own}"
    with open_index(folder) as index:
        yield from _under_other_ids(f"index {folder}", _same(index.rows(), held))
    for one in card.sources:
        if is_address(one):
            again = "embed again without the picture, or `l2s index add` brings it back"
            yield f"vectors {shown_address(one)}: nobody knows, a store is not asked: {again}"
        elif (source := Path(one)).exists():
            yield from _searched(f"vectors {source}", _in_vectors(source, wanted, held))
    known = chain(index_folders(folder.resolve().parent), index_folders(INDEXES))
    for place in sorted({one.resolve() for one in known} - {folder.resolve()}):
        yield from _searched(f"index {place}", _in_index(place, ids))
    for name in index_names():
        yield from _searched(f"index {name} of pictures", _in_pictures(name, wanted, held))
    for pack in sorted(Path("data").glob("*/pack.arrow")):
        yield from _searched(f"{pack}, of a study", _in_pack(pack, wanted))
    for export in sorted(Path("exports").glob("*")):
        yield from _searched(f"export {export}", _in_export(export, wanted))


def _searched(place: str, lines: Iterator[str]) -> Iterator[str]:
    """The lines; of a place that is broken that it is: what was removed is removed."""
    try:
        yield from lines
    except ValueError as fault:
        yield f"{place}: nobody knows: {fault}"


def _in_index(place: Path, ids: Sequence[str]) -> Iterator[str]:
    with open_index(place) as index:
        count = sum(len(rows.ids) for rows in index.rows(ids))
    yield from _told(f"index {place}", count, f"`l2s index remove {place} ID`")


def _in_pictures(name: str, wanted: frozenset[str], held: frozenset[str]) -> Iterator[str]:
    images, _ = read_content(index_home(name), require_card(name))
    listed = zip(images["name"].to_pylist(), images["sha256"].to_pylist(), strict=True)
    count = sum(one in wanted or digest in held for one, digest in listed)
    yield from _told(f"index {name} of pictures", count, "index their folder with --rebuild")


def _in_pack(pack: Path, wanted: frozenset[str]) -> Iterator[str]:
    count = len(wanted & {*open_pack(pack).names})
    yield from _told(f"{pack}, of a study", count, "`l2s study` makes it anew of its images")


def _in_export(folder: Path, wanted: frozenset[str]) -> Iterator[str]:
    """The names of the database and of the page, each of which may be there."""
    table, page = folder / "database/database.parquet", folder / "web/index.json"
    names = pq.read_table(table, columns=["name"])["name"].to_pylist() if table.exists() else []
    shown = read_json(page)["names"] if page.exists() else []
    yield from _told(f"export {folder}", len(wanted & {*names, *shown}), "export it anew")


def _in_vectors(source: Path, wanted: frozenset[str], held: frozenset[str]) -> Iterator[str]:
    """What a folder of vectors has of the ids, and the images that it was made of."""
    vectors = read_vectors(source)
    count, others = 0, []
    for batch in vectors.batches(may_be_empty=True):
        known = wanted.intersection(batch.ids)
        count += len(known)
        others += [one for one in _same([batch], held) if one not in known]
    again = "take the picture away and embed again, or `l2s index add` brings it back"
    yield from _told(f"vectors {source}", count, again)
    yield from _under_other_ids(f"vectors {source}", others)
    gone = sum(len(wanted & ids) for ids in vectors.tombstones().values())
    yield from _told(f"vectors {source}", gone, "deleted, but still in its files")
    if (manifest := source / MANIFEST).exists():
        origin = json.loads((pq.read_schema(manifest).metadata or {}).get(b"origin", b"{}"))
        place = str(origin.get("source", ""))
        count = sum((Path(place) / one).is_file() for one in wanted) if place else 0
        yield from _told(f"pictures {place}", count, "the files themselves")


def _same(batches: Iterable[VectorBatch], held: frozenset[str]) -> list[str]:
    """The ids of the rows whose pictures are among these."""
    return [
        one
        for batch in batches
        for one, content in zip(batch.ids, contents(batch), strict=True)
        if content in held
    ]


def _under_other_ids(place: str, ids: Sequence[str]) -> Iterator[str]:
    what = f"the same picture under other ids: {enumerate_names(ids)}"
    yield from _told(place, len(ids), what)


def _told(place: str, count: int, what: str) -> Iterator[str]:
    if count:
        yield f"{place}: {count} ({what})"
