"""SOP and Cars196 as Hugging Face parquet files: an image column of bytes and path, and a label.

The files are read a batch of rows at a time and spooled, as a tar archive's members are: Cars196
stands in the order of the official halves there, so that its classes have to be put in order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.archives import spool_members
from pipeline.datasets.layout_cars import car_class_name
from pipeline.datasets.layout_sop import product_of
from pipeline.datasets.listings import LayoutError, Listing, Row, build_listing, natural_key
from pipeline.datasets.published_classes import difference_from
from pipeline.datasets.records import Split
from pipeline.datasets.sources import SPLITS, ExpectedCounts, parquet_split

_BATCH_ROWS = 64
_BUFFER_BYTES = 1 << 20  # else a whole row group is held, which may be a whole file
_PARQUET_FAULTS = (pa.ArrowException, OSError, ValueError, KeyError)


@contextmanager
def open_cars_parquet(
    files: Sequence[Path],
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of Cars196 from its parquet files of both splits, columns `image` and `label`.

    Images come in the order of their labels; names are `train/000000` and so on. Labels count from
    0, and the schema's class names are taken where it has them. Arguments as in
    `layouts.open_layout`. Raises LayoutError.
    """
    rows: list[Row] = []
    names = _class_names(files)
    for split, file in _by_split(files):
        first = sum(row.name.startswith(f"{split}/") for row in rows)
        for place, label in enumerate(_column(file, "label"), start=first):
            if not isinstance(label, int) or label < 0:
                raise LayoutError(f"{_shown(file)}: row {place - first} has the label {label!r}")
            class_name = names.get(label + 1, f"{label + 1:03d}")
            rows.append(Row(f"{split}/{place:06d}", class_name, label + 1))
    rows_in_order = sorted(rows, key=lambda row: row.class_number)
    with spool_members(_images(files, [row.name for row in rows]), spool_dir) as members:
        yield build_listing(
            "cars196 parquet",
            rows_in_order,
            members.read,
            difference=difference_from(counts, names),
            accept_subset=accept_subset,
        )


@contextmanager
def open_sop_parquet(
    files: Sequence[Path],
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of SOP from its parquet files of both splits: `image`, `image_path`, `item_id`.

    File order is kept, and `parquet_split` gives the split. Names and classes are those of the
    official archive, but their official numbers are not in the files. Arguments as in
    `layouts.open_layout`. Raises LayoutError.
    """
    rows: list[Row] = []
    class_numbers: dict[str, int] = {}
    for split, file in _by_split(files):
        pairs = zip(_column(file, "image_path"), _column(file, "item_id"), strict=True)
        for place, (path, item) in enumerate(pairs):
            if not isinstance(path, str) or product_of(path) != str(item):
                reason = f"row {place} has item_id {item!r}, its image_path is {path!r}"
                raise LayoutError(f"{_shown(file)}: {reason}")
            number = class_numbers.setdefault(str(item), len(class_numbers) + 1)
            rows.append(Row(path, str(item), number, split=split))
    with spool_members(_images(files, [row.name for row in rows]), spool_dir) as members:
        yield build_listing(
            "sop parquet",
            rows,
            members.read,
            difference=difference_from(counts, numbered=False),
            accept_subset=accept_subset,
        )


def _by_split(files: Sequence[Path]) -> list[tuple[Split, Path]]:
    """The files with their splits, train first, in natural order."""
    if other := [file.name for file in files if parquet_split(file) is None]:
        raise LayoutError(f"{', '.join(other)}: names must begin with train or test")
    in_order = sorted(files, key=lambda file: natural_key(file.name))
    return [(split, file) for split in SPLITS for file in in_order if parquet_split(file) == split]


def _shown(file: Path) -> str:
    """The file's name, with its folder's where that is what tells the split."""
    known = file.name.startswith(SPLITS)
    return file.name if known else f"{file.parent.name}/{file.name}"


def _column(file: Path, column: str) -> list[object]:
    try:
        with pq.ParquetFile(file) as opened:
            values: list[object] = opened.read([column]).column(column).to_pylist()
            return values
    except _PARQUET_FAULTS as error:
        reason = " ".join(str(error).split())
        raise LayoutError(f"{_shown(file)}: cannot read the column {column!r}: {reason}") from error


def _class_names(files: Sequence[Path]) -> dict[int, str]:
    """The class names by official number, as far as the files have them in their schemas."""
    names: dict[int, str] = {}
    for _, file in _by_split(files):
        for label, name in _label_names(file).items():
            official = car_class_name(name)
            if names.setdefault(label + 1, official) != official:
                reason = f"label {label} is {official!r}, in an earlier file {names[label + 1]!r}"
                raise LayoutError(f"{_shown(file)}: {reason}")
    return names


def _label_names(file: Path) -> Mapping[int, str]:
    """The class names that the Hugging Face library writes into the schema, or none."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))
        names = features.get("info", {}).get("features", {}).get("label", {}).get("names", [])
        return dict(enumerate(str(name) for name in names))
    except (*_PARQUET_FAULTS, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise LayoutError(f"{_shown(file)}: has no readable parquet schema: {reason}") from error


def _images(files: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The images of the files, in the order of `_by_split`, under the names given."""
    upcoming = iter(names)
    for _, file in _by_split(files):
        try:
            with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, columns=["image"]):
                    for image in batch.column("image"):
                        yield _image_bytes(file, next(upcoming), image.as_py())
        except LayoutError:
            raise
        except _PARQUET_FAULTS as error:
            reason = " ".join(str(error).split())
            raise LayoutError(f"{_shown(file)}: cannot read its images: {reason}") from error


def _image_bytes(file: Path, name: str, image: object) -> tuple[str, bytes]:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise LayoutError(f"{_shown(file)}: {name}: the column 'image' holds no bytes")
    return name, content
