"""Cars196: classes 1-98 train and 99-196 test, never the official halves.

All archives hold the same 16,185 images under other names. Images come in the order of their class
numbers, within a class in the order of the annotations, so that the classes are in official order.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.datasets import parquet
from pipeline.datasets.archives import open_archive
from pipeline.datasets.published import RESEARCH, Archive, Contents, PublishedDataset, PublishedFile
from pipeline.datasets.reader import Counts, DatasetError, ListedImage

_TEST_ANNOTATIONS = "cars_test_annos_withlabels.mat"
_META = "devkit/cars_meta.mat"
_TRAIN_ANNOTATIONS = "devkit/cars_train_annos.mat"
_MAT_FAULTS = (
    NotImplementedError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    OverflowError,
    struct.error,
    zlib.error,
)


@contextmanager
def read_cars_whole(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of car_ims.tgz with cars_annos.mat; names are `car_ims/000001.jpg` and so on.

    Raises ArchiveError or DatasetError.
    """
    annotations = paths["cars_annos.mat"].read_bytes()
    class_names = _class_names("cars_annos.mat", annotations)
    rows = _rows("cars_annos.mat", annotations, "relative_im_path", class_names)
    with open_archive(paths["car_ims.tgz"], spool_dir) as members:
        yield Contents("car_ims.tgz", _in_order(rows), members.read, set(members.names))


@contextmanager
def read_cars_halves(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of cars_train.tgz and cars_test.tgz; names are `cars_train/00001.jpg` and so on.

    car_devkit.tgz annotates the training half, cars_test_annos_withlabels.mat the test half.
    Raises ArchiveError or DatasetError.
    """
    with open_archive(paths["car_devkit.tgz"], spool_dir) as kit:
        for file in (_META, _TRAIN_ANNOTATIONS):
            if file not in kit.names:
                raise DatasetError(f"car_devkit.tgz: {file} is missing")
        class_names = _class_names(_META, kit.read(_META))
        train = kit.read(_TRAIN_ANNOTATIONS)
    rows = _rows(_TRAIN_ANNOTATIONS, train, "fname", class_names, "cars_train/")
    test = paths[_TEST_ANNOTATIONS].read_bytes()
    rows += _rows(_TEST_ANNOTATIONS, test, "fname", class_names, "cars_test/")
    with (
        open_archive(paths["cars_train.tgz"], spool_dir) as first,
        open_archive(paths["cars_test.tgz"], spool_dir) as second,
    ):
        readers = {name: half.read for half in (first, second) for name in half.names}
        yield Contents("Cars196", _in_order(rows), lambda n: readers[n](n), readers.keys())


@contextmanager
def read_cars_parquet(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of the parquet files of both splits, columns `image` and `label`.

    Names are `train/000000` and so on. Labels count from 0, and the schema's class names are taken
    where it has them. Raises DatasetError.
    """
    files = parquet.with_splits(paths.values())
    schemas = [parquet.read_label_names(file) for _, file in files]
    names = max(schemas, key=len, default=[])
    if any(other and other != names for other in schemas):
        raise DatasetError("cars196 parquet: the files name their labels differently")
    rows: list[ListedImage] = []
    for split, file in files:
        first = sum(row.name.startswith(f"{split}/") for row in rows)
        for place, label in enumerate(parquet.read_column(file, "label")):
            if not isinstance(label, int) or not 0 <= label < (len(names) or label + 1):
                raise DatasetError(f"{parquet.shown(file)}: row {place} has the label {label!r}")
            class_name = _class_name(names[label]) if names else f"{label + 1:03d}"
            rows.append(ListedImage(f"{split}/{first + place:06d}", class_name, label + 1))
    with parquet.spool_images(paths.values(), [row.name for row in rows], spool_dir) as members:
        yield Contents("cars196 parquet", _in_order(rows), members.read, set(members.names))


def _in_order(rows: Sequence[ListedImage]) -> list[ListedImage]:
    return sorted(rows, key=lambda row: row.class_number)


def _class_name(official: str) -> str:
    """The class name with "-" for "/", as copies in folders have it."""
    return official.strip().replace("/", "-")


def _mat_field(place: str, content: bytes, variable: str) -> np.ndarray:
    from scipy.io import loadmat  # dear to import
    from scipy.io.matlab import MatReadError

    try:
        return np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)[variable])
    except (*_MAT_FAULTS, MatReadError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{place}: has no MATLAB variable {variable!r}: {reason}") from error


def _class_names(place: str, content: bytes) -> dict[int, str]:
    names = _mat_field(place, content, "class_names")
    return {number: _class_name(str(name)) for number, name in enumerate(names, start=1)}


def _rows(
    place: str, content: bytes, path_field: str, class_names: Mapping[int, str], folder: str = ""
) -> list[ListedImage]:
    """A row for each annotation, whose path stands in `folder`."""
    annotations = _mat_field(place, content, "annotations")
    rows = []
    for number, annotation in enumerate(annotations, start=1):
        try:
            name, class_number = folder + str(annotation[path_field]), int(annotation["class"])
        except _MAT_FAULTS as error:
            reason = f"annotation {number} has no {path_field} or class"
            raise DatasetError(f"{place}: {reason}") from error
        if class_number not in class_names:
            reason = f"annotation {number} ({name}) has class {class_number}, of which "
            raise DatasetError(f"{place}: {reason}class_names says nothing")
        rows.append(ListedImage(name, class_names[class_number], class_number))
    return rows


_PARQUET_PAGE = "https://huggingface.co/datasets/tanganke/stanford_cars"
_PAGES = (f"{_PARQUET_PAGE} (as parquet files, for which set layout: cars_parquet)",)

# Every ai.stanford.edu address has been dead since April 2023: the files come from the user's disk.
CARS196 = PublishedDataset(
    name="cars196",
    licence=RESEARCH,
    counts=Counts(98, 98, 8054, 8131),
    archives={
        "cars_whole": Archive(
            read_cars_whole,
            files=(
                PublishedFile("car_ims.tgz", md5="d5c8f0aa497503f355e17dc7886c3f14"),
                PublishedFile("cars_annos.mat", md5="b407c6086d669747186bd1d764ff9dbc"),
            ),
            pages=_PAGES,
        ),
        "cars_halves": Archive(
            read_cars_halves,
            files=(
                PublishedFile("cars_train.tgz", md5="065e5b463ae28d29e77c1b4b166cfe61"),
                PublishedFile("cars_test.tgz", md5="4ce7ebf6a94d07f1952d94dd34c4d501"),
                PublishedFile("car_devkit.tgz", md5="c3b158d763b6e2245038c8ad08e45376"),
                PublishedFile(_TEST_ANNOTATIONS, md5="b0a2b23655a3edd16d84508592a98d10"),
            ),
            pages=_PAGES,
        ),
        "cars_parquet": Archive(read_cars_parquet, pages=(_PARQUET_PAGE,), is_parquet=True),
    },
)
