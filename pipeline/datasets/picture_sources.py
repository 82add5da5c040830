"""Any number of images, wherever they lie: listed in batches, and read by their ids.

A folder at any depth, object storage below an address, a table, or tar shards. Of folders and
storage one sub-folder's list is held at a time, as Arrow columns; of tables and shards all of it.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.object_storage import (
    check_own_address,
    content_mark,
    is_address,
    listed_at,
    read_object,
    shown_address,
    store_errors,
)
from pipeline.datasets.parquet import read_columns
from pipeline.datasets.reader import (
    DatasetError,
    DatasetReader,
    is_image_name,
    is_system_name,
    read_file,
)
from pipeline.datasets.tables import list_table
from pipeline.datasets.tars import list_tars, tar_files
from pipeline.files import is_utf8, user_path

# `bytes` is 0 where unknown. `stamp`: as long as it is the same the image is, too.
LISTING = pa.schema([("id", pa.large_string()), ("bytes", pa.int64()), ("stamp", pa.string())])
ROWS_AT_ONCE = 1 << 14


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    size_bytes: int
    stamp: str


@dataclass(frozen=True)
class PictureSource:
    """Where images lie: an absolute path, or an address SCHEME://BUCKET/NAME.

    allow: SCHEME://BUCKET of the addresses that a table may name.
    """

    address: str
    allow: tuple[str, ...] = ()

    @property
    def is_remote(self) -> bool:
        return is_address(self.address)

    @property
    def is_sequential(self) -> bool:
        """Whether images are read fast in their order alone: as bytes in a Parquet table."""
        table = Path(self.address)
        return table.suffix == ".parquet" and table.is_file() and "image" in read_columns(table)

    def listing(self) -> Iterator[pa.Table]:
        """All images as tables of `LISTING`, in the same order as long as they stay.

        Raises DatasetError for a source that is not there or is refused, as `list_table`,
        `list_tars` and `check_address` do.
        """
        if (reader := self._reader()) is not None:
            yield from _tables(_reader_rows(reader, Path(self.address)))
        elif self.is_remote:
            yield from _walk(_store_entries(self.address))
        else:
            yield from _walk(_folder_entries(Path(self.address)))

    def open(self) -> Callable[[str], bytes]:
        """A function that gives the encoded image of an id.

        It raises UnreadableImage, also for an id that the source has not, or not any more, and
        DatasetError where a store cannot be reached.
        """
        if (reader := self._reader()) is not None:
            return _of_known_ids(reader)
        if self.is_remote:
            return lambda name: read_object(f"{self.address}/{name}", name)
        return lambda name: read_file(Path(self.address, name), name)

    def _reader(self) -> DatasetReader | None:
        """The reader of a table or of tar shards."""
        place = Path(self.address)
        if self.is_remote:
            return None
        if place.is_dir():
            return list_tars(place) if any(tar_files(place)) else None
        return list_table(place, self.allow, is_study=False)


def picture_source(given: str, here: Path, allow: Iterable[str] = ()) -> PictureSource:
    """The source that a user names: an address, or a path that refers to the folder `here`.

    Raises DatasetError for a path where nothing is, an address of no known form, and one that holds
    a password.
    """
    if not is_address(given):
        path = user_path(given, here).resolve()
        if not path.exists():
            raise DatasetError(f"{path}: there is no such folder, table or address")
        return PictureSource(str(path), tuple(allow))
    check_own_address("SOURCE", given)
    return PictureSource(given.rstrip("/"))


def _of_known_ids(reader: DatasetReader) -> Callable[[str], bytes]:
    known, read = frozenset(image.name for image in reader.images), reader.read

    def read_known(name: str) -> bytes:
        if name not in known:
            raise UnreadableImage(name, "there is no such image any more")
        return read(name)

    return read_known


def _tables(rows: Iterable[tuple[str, int, str]]) -> Iterator[pa.Table]:
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        columns = [list(column) for column in zip(*some, strict=True)]
        yield pa.table(columns, schema=LISTING)


def _walk(entries: Callable[[str], Iterable[_Entry]]) -> Iterator[pa.Table]:
    """The images of a tree of folders; `entries` gives what lies in one, by its path below."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folders: list[str] = []

        def images(below: str = below, folders: list[str] = folders) -> Iterator[tuple]:
            for entry in entries(below):
                if not (entry.is_folder or is_image_name(entry.name)) or _is_hidden(entry.name):
                    continue
                if not is_utf8(entry.name):
                    raise DatasetError(f"{below}{entry.name!a}: is no name in UTF-8: rename it")
                if entry.is_folder:
                    folders.append(f"{below}{entry.name}/")
                else:
                    yield below + entry.name, entry.size_bytes, entry.stamp

        found = pa.concat_tables([LISTING.empty_table(), *_tables(images())])
        yield from (one for one in (found.sort_by("id"),) if len(one))
        waiting += sorted(folders, reverse=True)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_system_name(name)


def _folder_entries(root: Path) -> Callable[[str], Iterable[_Entry]]:
    def entries(below: str) -> Iterator[_Entry]:
        with os.scandir(root / below) as found:
            for entry in found:
                is_folder = _is_folder(entry)
                if is_folder and entry.is_symlink() and not _is_hidden(entry.name):
                    raise DatasetError(
                        f"{root / below / entry.name}: is a link to a folder, whose changes go "
                        "unnoticed: put the folder there"
                    )
                yield _Entry(entry.name, is_folder, *_file_state(entry))

    return entries


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is one; not, where nobody can say, as of a link to itself: reading will tell."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file_state(file: "Path | os.DirEntry[str]") -> tuple[int, str]:
    """Size and time of change; none of what cannot be asked, which reading will tell."""
    try:
        state = file.stat()
    except OSError:
        return 0, ""
    return state.st_size, str(state.st_mtime_ns)


def _store_entries(address: str) -> Callable[[str], Iterable[_Entry]]:
    shown = shown_address(address)

    def entries(below: str) -> Iterator[_Entry]:
        import fsspec

        try:
            with store_errors(shown):
                store, root = fsspec.url_to_fs(address)
                found = listed_at(store, f"{root}/{below}".rstrip("/"))
        except FileNotFoundError as error:
            raise DatasetError(f"{shown}: there is nothing at this address") from error
        for one in found:
            name, is_folder = one["name"].rstrip("/").rpartition("/")[2], one["type"] == "directory"
            yield _Entry(name, is_folder, one.get("size") or 0, content_mark(one))

    return entries


def _reader_rows(reader: DatasetReader, place: Path) -> Iterator[tuple[str, int, str]]:
    """Images whose stamp is that of all files that hold them, where they are no files of their own.

    A table's addresses are not asked: a change behind one that stays the same goes unnoticed.
    """
    files = sorted(tar_files(place)) if place.is_dir() else [place]
    states = repr([(file.name, *_file_state(file)) for file in files])
    whole = hashlib.sha256(states.encode()).hexdigest()[:16]
    for image in reader.images:
        file = reader.files.get(image.name)
        size_bytes, stamp = _file_state(file) if file else (0, whole)
        yield image.name, size_bytes, stamp
