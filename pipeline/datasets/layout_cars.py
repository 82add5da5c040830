"""Cars196 in its two official forms. Classes 1-98 train and 99-196 test, never the official halves.

Both forms hold the same 16,185 images under other names. Images come in the order of their class
numbers, within a class in the order of the annotations, so that the classes are in official order.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from pipeline.datasets.archives import open_archive
from pipeline.datasets.listings import (
    Difference,
    LayoutError,
    Listing,
    Row,
    build_listing,
    enumerate_names,
    is_image_name,
)
from pipeline.datasets.published_classes import difference_from
from pipeline.datasets.sources import ExpectedCounts

_META = "devkit/cars_meta.mat"
_TRAIN_ANNOTATIONS = "devkit/cars_train_annos.mat"
_MAT_FAULTS = (
    MatReadError,
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
def open_cars_whole(
    images: Path,
    annotations: Path,
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of car_ims.tgz with cars_annos.mat; names are `car_ims/000001.jpg` and so on.

    Arguments as in `layouts.open_layout`. Raises ArchiveError or LayoutError.
    """
    content = _read_file(annotations)
    class_names = _class_names(annotations.name, content)
    rows = _rows(annotations.name, content, "relative_im_path", class_names)
    difference = difference_from(counts, class_names)
    with open_archive(images, spool_dir=spool_dir) as members:
        yield _cars_listing(
            images.name, rows, members.names, members.read, difference, accept_subset
        )


@contextmanager
def open_cars_halves(
    archives: tuple[Path, Path],
    devkit: Path,
    test_annotations: Path,
    *,
    counts: ExpectedCounts | None = None,
    official_halves: tuple[int, int] | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of cars_train.tgz and cars_test.tgz; names are `cars_train/00001.jpg` and so on.

    archives: the training and the test archive. devkit: car_devkit.tgz, which annotates the
    training half. test_annotations: cars_test_annos_withlabels.mat. official_halves: the published
    number of images that each annotates. Other arguments as in `layouts.open_layout`.

    Raises ArchiveError or LayoutError.
    """
    with ExitStack() as stack:
        kit = stack.enter_context(open_archive(devkit, spool_dir=spool_dir))
        for file in (_META, _TRAIN_ANNOTATIONS):
            if file not in kit.names:
                raise LayoutError(f"{devkit.name}: {file} is missing")
        class_names = _class_names(f"{devkit.name}: {_META}", kit.read(_META))
        sources = (
            (f"{devkit.name}: {_TRAIN_ANNOTATIONS}", kit.read(_TRAIN_ANNOTATIONS), "cars_train/"),
            (test_annotations.name, _read_file(test_annotations), "cars_test/"),
        )
        halves = [
            _rows(place, content, "fname", class_names, folder)
            for place, content, folder in sources
        ]
        if official_halves is not None and not accept_subset:
            for (place, _, _), half, expected in zip(sources, halves, official_halves, strict=True):
                _check_half(place, half, expected, class_names)
        train, test = (stack.enter_context(open_archive(a, spool_dir=spool_dir)) for a in archives)
        in_train = frozenset(train.names)
        yield _cars_listing(
            f"{archives[0].name} and {archives[1].name}",
            halves[0] + halves[1],
            (*train.names, *test.names),
            lambda name: (train if name in in_train else test).read(name),
            difference_from(counts, class_names),
            accept_subset,
        )


def car_class_name(official: str) -> str:
    """The class name with "-" for "/", as the forms in folders have it."""
    return official.strip().replace("/", "-")


def _cars_listing(
    source: str,
    rows: Sequence[Row],
    members: Sequence[str],
    read: Callable[[str], bytes],
    difference: Difference | None,
    accept_subset: bool,
) -> Listing:
    unlisted = set(members) - {row.name for row in rows}
    return build_listing(
        source,
        sorted(rows, key=lambda row: row.class_number),
        read,
        present=frozenset(members),
        difference=difference,
        accept_subset=accept_subset,
        passed_over=tuple(sorted(filter(is_image_name, unlisted))),
    )


def _check_half(
    place: str, half: Sequence[Row], expected: int, class_names: Mapping[int, str]
) -> None:
    """Raises LayoutError where a half annotates another number of images; says which, by name."""
    if len(half) == expected:
        return
    numbers = {_file_number(row.name): row for row in half}
    annotated = {row.class_name for row in half}
    missing = [f"{number:05d}.jpg" for number in range(1, expected + 1) if number not in numbers]
    surplus = [
        f"{row.name} ({row.class_name})"
        for number, row in numbers.items()
        if number is None or not 1 <= number <= expected
    ]
    without = [name for name in class_names.values() if name not in annotated]
    parts = [
        *([f"of the classes {enumerate_names(without)} it annotates none"] if without else []),
        *([f"missing: {enumerate_names(missing)}, whose classes only it tells"] if missing else []),
        *([f"surplus: {enumerate_names(surplus)}"] if surplus else []),
    ]
    count = f"annotates {len(half)} images, expected {expected}"
    raise LayoutError("; ".join([f"{place}: {count}", *parts]))


def _file_number(name: str) -> int | None:
    """7 of `cars_train/00007.jpg`, None for a name of another form."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else None


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise LayoutError(f"{path}: is not a file")
    return path.read_bytes()


def _mat_field(place: str, content: bytes, variable: str) -> np.ndarray:
    try:
        return np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)[variable])
    except _MAT_FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LayoutError(f"{place}: has no MATLAB variable {variable!r}: {reason}") from error


def _class_names(place: str, content: bytes) -> dict[int, str]:
    names = _mat_field(place, content, "class_names")
    return {number: car_class_name(str(name)) for number, name in enumerate(names, start=1)}


def _rows(
    place: str, content: bytes, path_field: str, class_names: dict[int, str], folder: str = ""
) -> list[Row]:
    """A row for each annotation. `folder` stands before its path; the file's number is its own."""
    annotations = _mat_field(place, content, "annotations")
    rows = []
    for place_in_file, annotation in enumerate(annotations, start=1):
        try:
            name, class_number = folder + str(annotation[path_field]), int(annotation["class"])
        except _MAT_FAULTS as error:
            reason = f"annotation {place_in_file} has no {path_field} or class"
            raise LayoutError(f"{place}: {reason}") from error
        if class_number not in class_names:
            reason = f"annotation {place_in_file} ({name}) has class {class_number}, of which "
            raise LayoutError(f"{place}: {reason}class_names says nothing")
        number = None if folder else _file_number(name)
        rows.append(Row(name, class_names[class_number], class_number, number))
    return rows
