"""What is to be embedded: a source against the manifest of what was cut from it before."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.picture_sources import LISTING, PictureSource
from pipeline.datasets.vectors import MANIFEST
from pipeline.embedding.destination import Destination
from pipeline.embedding.manifest import (
    Manifest,
    Shard,
    cut,
    open_manifest,
    opened_output,
    output_name,
    write_manifest,
)
from pipeline.embedding.shards import NOT_READ, Job, unreadable_in


@dataclass(frozen=True)
class Changes:
    """How many images a source has, and how it differs from what was cut before.

    changed: with those that could not be read when they were to be embedded, and now can.
    """

    images: int
    added: int
    changed: int = 0
    deleted: int = 0


def plan(job: Job, shard_images: int) -> Changes:
    """Bring the manifest of a destination up to the source as it is now.

    An image of another size or time of change is read, and has changed if its content is another
    than the embedded one. So is one that could not be read before: where it can, it counts as
    changed. A shard that is not done, or not any more, and lost an image is cut anew.

    The manifest says what was embedded, and by which file in which way, so that it can be checked.
    Raises ValueError for a source without images, a destination with other files, and one of
    another source, network or preprocessing.
    """
    destination, source, network = job.destination, job.source, job.digest()
    names = destination.names()
    origin = {
        "source": source.address,
        "allow": list(source.allow),
        "network": network,
        "file": str(job.network),
        "is_reduced": job.is_reduced,
    }
    if MANIFEST not in names:
        if foreign := sorted(name for name in names if not name.startswith(".")):
            raise ValueError(
                f"{destination.address}: holds {foreign[0]}, but no {MANIFEST}: name a new folder"
            )
        counted = _Counted(source)
        write_manifest(destination, _some(counted, source, shard_images), origin)
        return Changes(counted.images, counted.images)
    with open_manifest(destination) as earlier:
        _require_same(destination, earlier, origin)
    listing = pa.concat_tables([LISTING.empty_table(), *source.listing()]).combine_chunks()
    if not len(listing):
        raise ValueError(f"{source.address}: holds no image any more")
    read = source.open()
    with open_manifest(destination) as earlier:
        known = _Known(earlier, listing, names, network)
        changed = _changed(known, earlier, read, destination)
        changed |= _readable_again(known, earlier, read, destination)
        gone = known.alive & ((known.match < 0) | changed)
        dropped = np.zeros(len(earlier), bool)
        dropped[np.unique(known.shard[gone | known.moved | ~known.alive])] = True
        dropped &= ~known.done
        kept = known.alive & ~gone & ~dropped[known.shard]
        is_new = np.ones(len(listing), bool)
        is_new[known.match[kept]] = False
        moved = known.moved & kept
        is_noted = earlier.origin | origin == earlier.origin  # else its file has moved
        if is_new.any() or gone.any() or moved.any() or dropped.any() or not is_noted:
            rows = listing.filter(pa.array(is_new))
            shards = _renewed(earlier, known, gone, dropped)
            later = cut([rows], shard_images, known.digests)
            write_manifest(destination, (s for part in (shards, later) for s in part), origin)
    deleted = int((known.alive & (known.match < 0)).sum())
    added = len(listing) - int((known.alive & (known.match >= 0)).sum())
    return Changes(len(listing), added, int(changed.sum()), deleted)


class _Counted:
    """The listing of a source as it passes by."""

    def __init__(self, source: PictureSource) -> None:
        self.tables, self.images = source.listing(), 0

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self.tables:
            self.images += len(table)
            yield table


def _some(counted: _Counted, source: PictureSource, shard_images: int) -> Iterator[Shard]:
    yield from cut(counted, shard_images)
    if not counted.images:
        raise ValueError(f"{source.address}: holds no image")


def _require_same(
    destination: Destination, earlier: Manifest, origin: Mapping[str, object]
) -> None:
    if earlier.origin["source"] != origin["source"]:
        raise ValueError(
            f"{destination.address}: holds vectors of the images in {earlier.origin['source']}, "
            f"not of {origin['source']}: name another folder"
        )
    if earlier.origin["network"] != origin["network"]:
        raise ValueError(
            f"{destination.address}: holds vectors of another network, or of another "
            "preprocessing: name another folder; an index of both would compare nothing"
        )


class _Known:
    """The images of a manifest, each with its place in a listing, as columns.

    shard: the number of its shard. alive: its row holds. match: its row in the listing, or -1.
    moved: it is there with another size or stamp. digests: of the shards. done: of each shard,
    whether it is embedded.
    """

    def __init__(
        self, earlier: Manifest, listing: pa.Table, names: frozenset[str], network: str
    ) -> None:
        columns = ["ids", "bytes", "stamps", "gone"]
        shards = [earlier.file.read_row_group(n, columns=columns) for n in range(len(earlier))]
        flat = {
            name: pa.chunked_array([pc.list_flatten(one[name]).combine_chunks() for one in shards])
            for name in columns
        }
        self.counts = np.array([len(pc.list_flatten(one["ids"])) for one in shards])
        self.shard = np.repeat(np.arange(len(shards)), self.counts)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.alive: Bool[np.ndarray, " image"] = ~flat["gone"].to_numpy()
        ids = flat["ids"].cast(pa.large_string())
        found = pc.index_in(ids, value_set=listing["id"].combine_chunks())
        match = found.fill_null(-1).to_numpy()
        self.match: Int[np.ndarray, " image"] = np.where(self.alive, match, -1)
        here = pa.array(np.where(self.match < 0, 0, self.match))
        sizes, stamps = listing["bytes"].take(here), listing["stamp"].take(here)
        resized = pc.not_equal(sizes, flat["bytes"]).to_numpy()
        differs = resized | pc.not_equal(stamps, flat["stamps"]).to_numpy()
        self.moved: Bool[np.ndarray, " image"] = differs & (self.match >= 0)
        self.resized: Bool[np.ndarray, " image"] = resized & self.moved
        self.stamps = stamps
        digests = [summary.digest for summary in earlier.summaries()]
        self.digests = frozenset(digests)
        self.outputs = [output_name(digest, network) for digest in digests]
        self.done = np.array([name in names for name in self.outputs])

    def places(self, shard: int) -> slice:
        return slice(self.starts[shard], self.starts[shard + 1])


def _changed(
    known: _Known, earlier: Manifest, read: Callable[[str], bytes], destination: Destination
) -> Bool[np.ndarray, " image"]:
    """Of each image whether its content is another than the one that is, or may be, embedded."""
    changed = known.resized.copy()
    for number in np.unique(known.shard[known.moved & ~known.resized]).tolist():
        if not known.done[number]:
            continue  # it is cut anew
        with opened_output(destination, known.outputs[number]) as file:
            rows = file.read(columns=["id", "content"]).to_pydict()
        content = dict(zip(rows["id"], rows["content"], strict=True))
        ids, start = earlier[number].ids, known.starts[number]
        places = known.places(number)
        for place in np.flatnonzero(known.moved[places] & ~known.resized[places]).tolist():
            changed[start + place] = content_now(read, ids[place]) != content.get(ids[place])
    return changed


def _readable_again(
    known: _Known, earlier: Manifest, read: Callable[[str], bytes], destination: Destination
) -> Bool[np.ndarray, " image"]:
    """Of each image whether it could not be read when its shard was embedded, and now can."""
    again = np.zeros(len(known.shard), bool)
    for number in np.flatnonzero(known.done).tolist():
        reasons = unreadable_in(destination, known.outputs[number])
        if not (unread := {one for one, why in reasons.items() if why.startswith(NOT_READ)}):
            continue
        for place, name in enumerate(earlier[number].ids, known.starts[number]):
            if name in unread and known.match[place] >= 0:
                again[place] = content_now(read, name) != ""
    return again


def content_now(read: Callable[[str], bytes], name: str) -> str:
    """The hash of an image as it is now; empty where it cannot be read."""
    try:
        return hashlib.sha256(read(name)).hexdigest()
    except UnreadableImage:
        return ""


def _renewed(
    earlier: Manifest,
    known: _Known,
    gone: Bool[np.ndarray, " image"],
    dropped: Bool[np.ndarray, " shard"],
) -> Iterator[Shard]:
    """The earlier shards but those dropped, with what is gone, and the stamps of what stays."""
    for number in range(len(earlier)):
        if dropped[number]:
            continue
        shard, places = earlier[number], known.places(number)
        if gone[places].any() or known.moved[places].any():
            now = known.stamps.slice(places.start, known.counts[number]).to_pylist()
            moved = known.moved[places].tolist()
            stamps = [n if m else s for n, m, s in zip(now, moved, shard.stamps, strict=True)]
            all_gone = (gone[places] | ~known.alive[places]).tolist()
            shard = replace(shard, stamps=stamps, gone=all_gone)
        yield shard
