"""Where a picture remains whose vector was taken out of an index."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.datasets.packs import open_pack
from pipeline.datasets.vectors import MANIFEST, read_vectors
from pipeline.search.index import INDEXES, index_home, index_names, read_content, require_card
from pipeline.search.upkeep import index_folders, open_index
from pipeline.search.vector_index import VectorIndexCard

IN_PLACE = {
    "lancedb": "earlier versions of its table, until LanceDB's optimize() clears them away",
    "qdrant": "",
}
BUILT_ANEW = "its files, where the row counts no more, until the index is built anew"


def find_copies(folder: Path, card: VectorIndexCard, ids: Sequence[str]) -> Iterator[str]:
    """Lines that say where these ids remain: this index's own files, the vectors that it was built
    from, the pictures that they were made of, other indexes beside it and in `indexes`, and the
    packs of studies in the current folder. What lies elsewhere is not known here.
    """
    wanted = frozenset(ids)
    if own := IN_PLACE.get(card.kind, BUILT_ANEW):
        yield f"{folder}: {own}"
    for source in map(Path, card.sources):
        if source.exists():
            yield from _searched(f"vectors {source}", _in_vectors(source, wanted))
    known = chain(index_folders(folder.parent), index_folders(INDEXES))
    for place in sorted({one.resolve() for one in known} - {folder.resolve()}):
        yield from _searched(f"index {place}", _in_index(place, ids))
    for name in index_names():
        yield from _searched(f"index {name} of pictures", _in_pictures(name, wanted))
    for pack in sorted(Path("data").glob("*/pack.arrow")):
        yield from _searched(f"{pack}, of a study", _in_pack(pack, wanted))


def _searched(place: str, lines: Iterator[str]) -> Iterator[str]:
    """The lines; of a place that is broken that it is: what was removed is removed."""
    try:
        yield from lines
    except ValueError as fault:
        yield f"{place}: nobody knows: {fault}"


def _in_index(place: Path, ids: Sequence[str]) -> Iterator[str]:
    with open_index(place) as index:
        held = sum(len(rows.ids) for rows in index.rows(ids))
    yield from _told(f"index {place}", held, f"`l2s index remove {place} ID`")


def _in_pictures(name: str, wanted: frozenset[str]) -> Iterator[str]:
    images, _ = read_content(index_home(name), require_card(name))
    held = len(wanted & {*images["name"].to_pylist()})
    yield from _told(f"index {name} of pictures", held, "index their folder with --rebuild")


def _in_pack(pack: Path, wanted: frozenset[str]) -> Iterator[str]:
    held = len(wanted & {*open_pack(pack).names})
    yield from _told(f"{pack}, of a study", held, "`l2s study` makes it anew of its images")


def _in_vectors(source: Path, wanted: frozenset[str]) -> Iterator[str]:
    """What a folder of vectors has of the ids, and the images that it was made of."""
    vectors = read_vectors(source)
    held = sum(len(wanted.intersection(batch.ids)) for batch in vectors.batches())
    again = "take the picture away and embed again, or `l2s index add` brings it back"
    yield from _told(f"vectors {source}", held, again)
    gone = sum(len(wanted & ids) for ids in vectors.tombstones().values())
    yield from _told(f"vectors {source}", gone, "deleted, but still in its files")
    if (manifest := source / MANIFEST).exists():
        origin = json.loads((pq.read_schema(manifest).metadata or {}).get(b"origin", b"{}"))
        place = str(origin.get("source", ""))
        held = sum((Path(place) / one).is_file() for one in wanted) if place else 0
        yield from _told(f"pictures {place}", held, "the files themselves")


def _told(place: str, count: int, what: str) -> Iterator[str]:
    if count:
        yield f"{place}: {count} ({what})"
