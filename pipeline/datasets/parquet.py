"""Hugging Face parquet files of a data set: an image column of bytes, and columns that label it.

The files are read a batch of rows at a time and spooled, as a tar archive's members are, because
their rows need not stand in the official order of classes.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.archives import OpenArchive, spool_members
from pipeline.datasets.reader import SPLITS, DatasetError, Split, natural_key

_BATCH_ROWS = 64
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
    """The values of a column. Raises DatasetError."""
    with _named_faults(file, f"cannot read the column {column!r}"), pq.ParquetFile(file) as opened:
        values: list[object] = opened.read([column]).column(column).to_pylist()
        return values


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
        row = 0
        with (
            _named_faults(file, "cannot read its images"),
            pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened,
        ):
            for batch in opened.iter_batches(_BATCH_ROWS, columns=["image"]):
                for scalar in batch.column("image"):
                    image = scalar.as_py()
                    content = image.get("bytes") if isinstance(image, dict) else image
                    if not isinstance(content, bytes):
                        raise DatasetError(
                            f"{shown(file)}: row {row}: the column 'image' holds no bytes"
                        )
                    row += 1
                    yield content


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
