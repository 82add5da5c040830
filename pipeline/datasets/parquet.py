"""Hugging Face parquet files of a data set: an image column of bytes, and columns that label it.

The files are read a row at a time and spooled, as a tar archive's members are, because
their rows need not stand in the official order of classes.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.archives import (
    MEMBER_BYTES,
    MEMBERS,
    RATIO,
    RATIO_FROM_BYTES,
    UNPACKED_BYTES,
    OpenArchive,
    spool_members,
)
from pipeline.datasets.reader import SPLITS, DatasetError, Split, natural_key

TEXT_BYTES = 4096  # of a label or a path: the longest path of Linux
CHUNK_RATIO = 4  # of the part of a column that one group of rows has, beyond 64 MiB
_BUFFER_BYTES = 1 << 20  # else a whole row group is held, which may be a whole file
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
        return list(_cells(file, column, _is_plain, "numbers or texts", TEXT_BYTES))


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
        with _named_faults(file, "cannot read its images"):
            for row, content in enumerate(_cells(file, "image", _is_image, "bytes", MEMBER_BYTES)):
                if not isinstance(content, bytes):
                    raise DatasetError(
                        f"{shown(file)}: row {row}: the column 'image' holds no bytes"
                    )
                yield content


def _cells(
    file: Path, column: str, is_meant: Callable[[pa.DataType], bool], meant: str, cell_bytes: int
) -> Iterator[object]:
    """The values of a column of the meant type, one in memory at a time.

    A batch is one row: what a dictionary of a few bytes repeats may fill any memory otherwise.
    Raises DatasetError, before anything is read where the file's own figures say enough.
    """
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
        found = opened.schema_arrow.field(column).type
        if not is_meant(found):
            raise DatasetError(f"{shown(file)}: the column {column!r} holds no {meant} but {found}")
        leaf = f"{column}.bytes" if pa.types.is_struct(found) else column
        _check_size(file, opened.metadata, leaf)
        for row, batch in enumerate(opened.iter_batches(1, columns=[leaf])):
            value = batch.column(column)[0].as_py()
            value = value.get("bytes") if isinstance(value, dict) else value
            if isinstance(value, (str, bytes)) and len(value) > cell_bytes:
                reason = f"row {row} of {column!r} has more than {cell_bytes} bytes"
                raise DatasetError(f"{shown(file)}: {reason}")
            yield value


def _check_size(file: Path, metadata: pq.FileMetaData, leaf: str) -> None:
    """Raise DatasetError for more rows, or more unpacked bytes, than an archive may have.

    A part of a column may be one cell: it unpacks to no more than a few times its size, or little.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(n) for group in groups for n in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema == leaf]
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    too_large = unpacked > min(UNPACKED_BYTES, max(RATIO_FROM_BYTES, RATIO * file.stat().st_size))
    if metadata.num_rows > MEMBERS or too_large:
        limits = f"{MEMBERS} rows, {UNPACKED_BYTES} bytes, {RATIO} times the file's own"
        reason = f"{leaf!r} has {metadata.num_rows} rows, and unpacks to {unpacked} bytes"
        raise DatasetError(f"{shown(file)}: {reason}: allowed are {limits}")
    for chunk in chunks:
        allowed = max(RATIO_FROM_BYTES, CHUNK_RATIO * chunk.total_compressed_size)
        if chunk.total_uncompressed_size > allowed:
            reason = f"a part of {leaf!r} unpacks to {chunk.total_uncompressed_size} bytes"
            raise DatasetError(f"{shown(file)}: {reason}, more than {allowed} (a bomb?)")


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_integer(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_image(kind.value_type)
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_image(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


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
