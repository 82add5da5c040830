"""Hugging Face parquet files of a data set: an image column of bytes, and columns that label it.

The files are read a row at a time and spooled, as a tar archive's members are, because
their rows need not stand in the official order of classes.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets import archives
from pipeline.datasets.archives import OpenArchive, spool_members
from pipeline.datasets.reader import SPLITS, DatasetError, Split, natural_key

Cell = TypeVar("Cell")
Tests = tuple[Callable[[pa.DataType], bool], ...]
TEXT_BYTES = 4096  # of a label or a path: the longest path of Linux
PART_RATIO = 4  # how many times its size a part of a column may unpack to, beyond 64 MiB
_PLAIN = "numbers or texts", (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
_BYTES = "bytes", (pa.types.is_binary, pa.types.is_large_binary)
BUFFER_BYTES = 1 << 20  # else a whole row group is held, which may be a whole file
_FAULTS = (pa.ArrowException, OSError, ValueError, KeyError, AttributeError, TypeError)


def split_of(file: Path) -> Split | None:
    """The split that a file's name begins with, or else that its folder is called by, or None.

    The Hugging Face library writes `data/train-00000-of-00001.parquet`, the site's own conversion
    `default/train/0000.parquet`.
    """
    for split in SPLITS:
        if file.name.startswith(split):
            return split
    return next((split for split in SPLITS if file.parent.name == split), None)


def with_splits(files: Collection[Path]) -> list[tuple[Split, Path]]:
    """The files with their splits, train first, in natural order. Raises DatasetError."""
    if other := [file.name for file in files if split_of(file) is None]:
        raise DatasetError(f"{', '.join(other)}: names must begin with train or test")
    in_order = sorted(files, key=lambda file: natural_key(file.name))
    return [(split, file) for split in SPLITS for file in in_order if split_of(file) == split]


def shown(file: Path) -> str:
    """The file's name, with its folder's where that is what tells the split."""
    return file.name if file.name.startswith(SPLITS) else f"{file.parent.name}/{file.name}"


def read_column(file: Path, column: str) -> list[object]:
    """The values of a column of numbers or short texts. Raises DatasetError."""
    with _named_faults(file, f"cannot read the column {column!r}"):
        return list(_bounded(file, column, _cells(file, column, _PLAIN), TEXT_BYTES))


def read_columns(file: Path) -> list[str]:
    """The names of a file's columns. Raises DatasetError."""
    with _named_faults(file, "has no readable parquet schema"):
        return list(pq.read_schema(file).names)


def read_label_names(file: Path) -> list[str]:
    """The class names that the Hugging Face library writes into the schema, or none."""
    with _named_faults(file, "has no readable parquet schema"):
        features = json.loads((pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
        label: Mapping[str, list[object]]
        label = features.get("info", {}).get("features", {}).get("label", {})
        return [str(name) for name in label.get("names", [])]


def spool_images(
    files: Collection[Path], names: Sequence[str], spool_dir: Path | None
) -> AbstractContextManager[OpenArchive]:
    """The column `image` of the files, in the order of `with_splits`, under the names given.

    Raises DatasetError.
    """
    return spool_members(zip(names, _images(files), strict=True), spool_dir)


def _images(files: Collection[Path]) -> Iterable[bytes]:
    for _, file in with_splits(files):
        images = _bounded(file, "image", read_images(file), archives.MEMBER_BYTES)
        for row, content in enumerate(images):
            if content is None:
                raise DatasetError(f"{shown(file)}: row {row}: the column 'image' holds no bytes")
            yield content


def read_images(file: Path) -> Iterator[bytes | None]:
    """The column `image` of a file, one in memory at a time; None in a row that is empty.

    However large they are in all. Raises DatasetError.
    """
    with _named_faults(file, "cannot read its images"):
        for content in _cells(file, "image", _BYTES):
            assert content is None or isinstance(content, bytes), "no other column comes so far"
            yield content


def _cells(file: Path, column: str, meant: tuple[str, Tests]) -> Iterator[object]:
    """The values of a column, or of its field `bytes`, one in memory at a time.

    A batch is one row: what a dictionary of a few bytes repeats may fill any memory otherwise.
    Raises DatasetError, before anything is read where the file's own figures say enough.
    """
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES) as opened:
        held, leaf = opened.schema_arrow.field(column).type, column
        if pa.types.is_struct(held) and (place := held.get_field_index("bytes")) >= 0:
            held, leaf = held.field(place).type, f"{column}.bytes"
        kind = held.value_type if pa.types.is_dictionary(held) else held
        if not any(is_meant(kind) for is_meant in meant[1]):
            reason = f"the column {column!r} holds no {meant[0]} but {held}"
            raise DatasetError(f"{shown(file)}: {reason}")
        _check_size(file, opened.metadata, leaf)
        for batch in opened.iter_batches(1, columns=[leaf]):
            value = batch.column(column)[0].as_py()
            yield value["bytes"] if isinstance(value, dict) else value


def _bounded(file: Path, column: str, cells: Iterable[Cell], cell_bytes: int) -> Iterator[Cell]:
    """The cells of a column, which unpack to no more than an archive may. Raises DatasetError."""
    by_ratio = max(archives.RATIO_FROM_BYTES, archives.RATIO * file.stat().st_size)
    left_bytes = min(archives.UNPACKED_BYTES, by_ratio)
    for row, value in enumerate(cells):
        size_bytes = len(value) if isinstance(value, (str, bytes)) else 0
        left_bytes -= size_bytes
        if size_bytes > cell_bytes or left_bytes < 0:
            reason = f"row {row} of {column!r} has {size_bytes} bytes: allowed are"
            most = f"{cell_bytes}, and {archives.RATIO} times the file's own in all"
            raise DatasetError(f"{shown(file)}: {reason} {most}")
        yield value


def _check_size(file: Path, metadata: pq.FileMetaData, leaf: str) -> None:
    """Raise DatasetError for more rows than an archive has members, or a part that is a huge cell.

    A part is what one group of rows has of the column: pictures shrink little when it is packed.
    """
    if (rows := metadata.num_rows) > archives.MEMBERS:
        raise DatasetError(f"{shown(file)}: has {rows} rows, more than {archives.MEMBERS}")
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = [group.column(place) for place in range(group.num_columns)]
        for part in (part for part in parts if part.path_in_schema == leaf):
            allowed = max(archives.RATIO_FROM_BYTES, PART_RATIO * part.total_compressed_size)
            if (unpacked := part.total_uncompressed_size) > allowed:
                reason = f"a part of {leaf!r} unpacks to {unpacked} bytes, more than {allowed}"
                raise DatasetError(f"{shown(file)}: {reason} (a bomb?)")


@contextmanager
def _named_faults(file: Path, what: str) -> Iterator[None]:
    """Faults of the library, as DatasetErrors."""
    try:
        yield
    except DatasetError:
        raise
    except _FAULTS as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{shown(file)}: {what}: {reason}") from error
