"""The user's own images by a table (Parquet, Arrow or CSV): ids, and where or what each image is.

Columns: `id`, one of `path`, `uri` and `image` (bytes), and if wanted `class` and `split`.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline.datasets.archives import MEMBERS
from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.object_storage import check_address, read_object
from pipeline.datasets.parquet import read_column, read_columns, read_images
from pipeline.datasets.reader import (
    MAX_FILE_BYTES,
    SPLITS,
    DatasetError,
    DatasetReader,
    ListedImage,
    check_files,
    check_inside,
    check_names,
    check_split,
    enumerate_names,
    read_file,
)

PLACES = ("path", "uri", "image")  # in one of these columns an image stands
_TEXTS, _LABELS = ("id", "path", "uri"), ("class", "split")
_FORMATS = (".parquet", ".arrow", ".feather", ".csv")
_FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError)


def list_table(table: Path, allow: Sequence[str], *, is_study: bool = True) -> DatasetReader:
    """The images of a table in its order; their names are the ids.

    Paths are relative to the table's folder and lie in it; addresses lie under one of `allow`,
    SCHEME://BUCKET each. Without a column `class` the images have no classes, and without `split`
    their splits are not settled. An image's bytes are read when they are asked for; where there are
    none UnreadableImage is raised. is_study: else `class` and `split` are not read, and a file may
    be missing.

    Raises DatasetError: a column that is not there or is empty in a row, an id that comes twice, a
    file that is missing or outside, an address that is not allowed.
    """
    if not table.is_file():
        raise DatasetError(f"{table}: is not a file")
    if table.suffix not in _FORMATS:
        raise DatasetError(f"{table}: must be {', '.join(_FORMATS)}")
    names = _column_names(table)
    places = [name for name in PLACES if name in names]
    if "id" not in names or len(places) != 1:
        raise DatasetError(
            f"{table}: needs the column id and one of {', '.join(PLACES)}; it has "
            f"{', '.join(names) or 'none'}"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DatasetError(f"{table}: has two columns called {enumerate_names(twice)}")
    meant = (*_TEXTS, *_LABELS) if is_study else _TEXTS
    texts = {name: _texts(table, name) for name in meant if name in names}
    for name, values in texts.items():
        if empty := [row for row, value in enumerate(values, 1) if not value]:
            rows = enumerate_names(empty, 5)
            raise DatasetError(f"{table}: the column {name!r} is empty in row {rows}")
    images = _listed(table, texts)
    check_names(str(table), images)
    if "split" in texts:
        check_split(str(table), images)
    place, files = places[0], {}
    if place == "image":
        read = _image_reader(table, texts["id"])
    elif place == "path":
        (check_files if is_study else check_inside)(table, texts["path"])
        folder = Path(os.path.realpath(table.parent))
        files = {one: folder / path for one, path in zip(texts["id"], texts["path"], strict=True)}

        def read(name: str) -> bytes:
            return read_file(files[name], name)

    else:
        for address in texts["uri"]:
            check_address(str(table), address, allow)
        addresses = dict(zip(texts["id"], texts["uri"], strict=True))

        def read(name: str) -> bytes:
            return read_object(addresses[name], name)

    return DatasetReader(tuple(images), read, files=files)


def _listed(table: Path, texts: dict[str, list[str]]) -> list[ListedImage]:
    ids = texts["id"]
    classes, splits = texts.get("class", [""] * len(ids)), texts.get("split", [None] * len(ids))
    if wrong := [word for word in dict.fromkeys(splits) if word not in (None, *SPLITS)]:
        raise DatasetError(f"{table}: split is {wrong[0]!r}, must be train or test")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(classes), 1)}
    rows = zip(ids, classes, splits, strict=True)
    return [
        ListedImage(name, class_name, numbers[class_name] if class_name else 0, split)  # type: ignore[arg-type]
        for name, class_name, split in rows
    ]


def _column_names(table: Path) -> list[str]:
    if table.suffix == ".parquet":
        return read_columns(table)
    try:
        if table.suffix == ".csv":
            with pyarrow.csv.open_csv(table) as opened:
                return list(opened.schema.names)
        return list(pa.ipc.open_file(pa.memory_map(str(table))).schema.names)
    except _FAULTS as error:
        raise _unreadable(table, error) from error


def _texts(table: Path, column: str) -> list[str]:
    """The values of a column as text without blanks around it, empty where there is none."""
    if table.suffix == ".parquet":
        values = read_column(table, column)
    else:
        try:
            if table.suffix == ".csv":
                options = pyarrow.csv.ConvertOptions(
                    include_columns=[column], column_types={column: pa.string()}
                )
                read = pyarrow.csv.read_csv(table, convert_options=options)
                parts: Iterable[pa.Array] = read.column(column).chunks
            else:
                parts = _arrow_parts(table, column)
            values = [value for part in parts for value in part.cast(pa.string()).to_pylist()]
        except _FAULTS as error:
            raise _unreadable(table, error) from error
    if len(values) > MEMBERS:
        raise DatasetError(f"{table}: has {len(values)} rows, more than {MEMBERS}")
    return ["" if value is None else str(value).strip() for value in values]


def _arrow_column(table: Path, column: str) -> pa.RecordBatchFileReader:
    """An Arrow file mapped into memory, whose batches are read one by one, of one column alone."""
    mapped = pa.memory_map(str(table))
    place = pa.ipc.open_file(mapped).schema.get_field_index(column)
    return pa.ipc.open_file(mapped, options=pa.ipc.IpcReadOptions(included_fields=[place]))


def _arrow_part(opened: pa.RecordBatchFileReader, number: int) -> pa.Array:
    """The values of a batch, checked to the last: unpacked, where the file is compressed."""
    batch = opened.get_batch(number)
    batch.validate(full=True)
    return batch.column(0)


def _arrow_parts(table: Path, column: str) -> Iterator[pa.Array]:
    opened = _arrow_column(table, column)
    return (_arrow_part(opened, number) for number in range(opened.num_record_batches))


def _unreadable(table: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{table}: cannot be read: {' '.join(str(error).split())}")


def _image_reader(table: Path, ids: list[str]) -> Callable[[str], bytes]:
    """Gives the bytes of an image by its id: fast in the table's order, over and over.

    A Parquet file is read a row at a time, from its start again for an earlier row; of an Arrow
    file one batch is in memory.
    """
    rows = {one: row for row, one in enumerate(ids)}
    if table.suffix == ".csv":
        raise DatasetError(f"{table}: a CSV file holds no bytes of images: name path or uri")
    if table.suffix != ".parquet":
        return _arrow_image_reader(table, rows)
    lock = threading.Lock()
    at: int = -1
    cells: Iterator[bytes | None] = iter(())

    def read(name: str) -> bytes:
        nonlocal at, cells
        with lock:
            if rows[name] <= at or at < 0:
                at, cells = -1, read_images(table)
            start, at = at + 1, -1  # after a fault the next image is read from the start again
            for row, content in enumerate(cells, start):
                if row == rows[name]:
                    at = row
                    return _bytes(table, name, content)
            raise DatasetError(f"{table}: has fewer images than ids")

    return read


def _arrow_image_reader(table: Path, rows: Mapping[str, int]) -> Callable[[str], bytes]:
    opened = _arrow_column(table, "image")
    ends = np.cumsum([len(part) for part in _arrow_parts(table, "id")])

    @lru_cache(maxsize=1)
    def part_of(number: int) -> pa.Array:
        try:
            return _arrow_part(opened, number)
        except _FAULTS as error:
            raise _unreadable(table, error) from error

    lock = threading.Lock()

    def read(name: str) -> bytes:
        number = int(np.searchsorted(ends, rows[name], side="right"))
        with lock:
            part = part_of(number)
        return _bytes(table, name, part[rows[name] - int(ends[number])].as_py())

    return read


def _bytes(table: Path, name: str, value: object) -> bytes:
    value = value.get("bytes") if isinstance(value, dict) else value
    if value is None:
        raise UnreadableImage(name, f"its row of {table.name} holds no bytes")
    if not isinstance(value, bytes):
        raise DatasetError(f"{table}: {name}: the column 'image' holds no bytes of an image")
    if len(value) > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"has {len(value)} bytes, more than {MAX_FILE_BYTES}")
    return value
