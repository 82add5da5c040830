"""A data set's images in official order, before any is decoded: names, classes, split, counts."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.datasets.decode import UnreadableImage, normalise_image

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
_NAMES_SHOWN = 10
_FAILURES_SHOWN = 100
# Pillow reads no HEIC, but such a file is an image: to be refused by its name, not passed over.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif"),
)


class DatasetError(ValueError):
    """A data set whose files do not fit its list of images or its published counts."""


@dataclass(frozen=True)
class Row:
    """A line of a source's list of images.

    `class_number` orders the classes: the official number, or the place counted from 1.
    `split` None: half of the classes train.
    """

    name: str
    class_name: str
    class_number: int
    split: Split | None = None


@dataclass(frozen=True)
class Counts:
    """Classes and images of the class-disjoint split."""

    train_classes: int
    test_classes: int
    train_images: int
    test_images: int


@dataclass(frozen=True)
class ListedImage:
    """An image that a source holds, not decoded yet."""

    name: str
    class_name: str
    split: Split


@dataclass(frozen=True)
class DatasetReader:
    """The images of a source in official order, and a function that gives the file of a name.

    `subset`: the counts are not the published ones, which the caller accepted. `absent`: names that
    the list has and the archive has not (a subset only). `passed_over`: files that are no part of
    the data set, such as text files in a folder of images. `class_order`: the names of the classes
    in official order, where the images come in another. `splits_given`: the user's table says which
    class trains. `positions`: of each class in [0, 1), where they decide which classes validate.
    """

    images: tuple[ListedImage, ...]
    read: Callable[[str], bytes]
    subset: bool = False
    absent: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    class_order: tuple[str, ...] = ()
    splits_given: bool = False
    positions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageRecord:
    """An image as a source yields it.

    `name` is its path inside the data set, unique and stable: the image's identity everywhere.
    `encoded` is a JPEG or PNG file that decodes to 8-bit RGB of `width` x `height` pixels.
    """

    name: str
    class_name: str
    split: Split
    encoded: bytes
    width: int
    height: int


class UnreadableImagesError(ValueError):
    """Images that cannot be decoded. `failures` holds them all."""

    def __init__(self, failures: tuple[UnreadableImage, ...]) -> None:
        shown = "; ".join(str(failure) for failure in failures[:_FAILURES_SHOWN])
        more = len(failures) - _FAILURES_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        remedy = "mend or remove them, or set source.skip_unreadable to leave them out"
        super().__init__(f"{len(failures)} unreadable images: {shown}{rest}: {remedy}")
        self.failures = failures


def build_reader(
    source: str,
    rows: Sequence[Row],
    read: Callable[[str], bytes],
    *,
    present: Set[str] | None = None,
    counts: Counts | None = None,
    accept_subset: bool = False,
    passed_over: tuple[str, ...] = (),
) -> DatasetReader:
    """The reader of `rows`, checked: unique names, class-disjoint split, published whole.

    source: what error messages call the data set. present: the names that the archive holds; None
    where every row is known to exist. counts: the published ones; None where there are none.
    accept_subset: rows without an image are left out and a difference is accepted.

    Raises DatasetError that says which classes or files are missing, surplus or contradictory.
    """
    _check_names(source, rows)
    absent = () if present is None else tuple(r.name for r in rows if r.name not in present)
    left_out = set(absent)
    if absent and not accept_subset:
        classes = dict.fromkeys(r.class_name for r in rows if r.name in left_out)
        raise DatasetError(
            f"{source}: {len(absent)} listed images are missing: {enumerate_names(absent)} "
            f"(of the classes {enumerate_names(classes)})"
        )
    listed = [row for row in rows if row.name not in left_out]
    kept = assign_splits(listed)
    check_split(source, kept)
    differing = None if counts is None else _difference(kept, counts)
    if differing is not None and not accept_subset:
        raise DatasetError(f"{source}: {differing}; a part of a data set needs accept_subset")
    return DatasetReader(
        images=tuple(ListedImage(r.name, r.class_name, r.split) for r in kept if r.split),
        read=read,
        subset=differing is not None or bool(absent),
        absent=absent,
        passed_over=passed_over,
        class_order=_class_order(listed),
    )


def read_records(
    reader: DatasetReader,
    *,
    skip_unreadable: bool = False,
    on_skip: Callable[[UnreadableImage], None] | None = None,
    largest_side_px: int | None = None,
    on_shrink: Callable[[str], None] | None = None,
) -> Iterator[ImageRecord]:
    """The records of a reader in its order, one image in memory at a time.

    skip_unreadable: an unreadable image is left out, and `on_skip` is told of it, so that the
    caller can count and name what is missing. Otherwise the rest is read for further failures,
    but after the first no record is yielded. largest_side_px: an image with a longer side is
    shrunk to it, and `on_shrink` is told its name.

    Raises UnreadableImagesError, which names them all; DatasetError where a class loses all its
    images; ArchiveError where a member does not fit its checksum.
    """
    failures: list[UnreadableImage] = []
    readable: set[str] = set()
    for image in reader.images:
        try:
            stored = normalise_image(
                reader.read(image.name), image.name, largest_side_px=largest_side_px
            )
        except UnreadableImage as failure:
            failures.append(failure)
            if skip_unreadable and on_skip is not None:
                on_skip(failure)
            continue
        readable.add(image.class_name)
        if stored.is_shrunk and on_shrink is not None:
            on_shrink(image.name)
        if skip_unreadable or not failures:
            yield ImageRecord(image.name, image.class_name, image.split, *stored[:3])
    if failures and not skip_unreadable:
        raise UnreadableImagesError(tuple(failures))
    lost = dict.fromkeys(i.class_name for i in reader.images if i.class_name not in readable)
    if lost:
        raise DatasetError(f"no readable image is left of the classes {enumerate_names(lost)}")


def _difference(rows: Sequence[Row], counts: Counts) -> str | None:
    """How the classes and images of each split differ from the published counts, or None."""
    expected = {
        "train": (counts.train_classes, counts.train_images),
        "test": (counts.test_classes, counts.test_images),
    }
    differences = []
    for split, (classes, images) in expected.items():
        names = [row.class_name for row in rows if row.split == split]
        if (len(set(names)), len(names)) != (classes, images):
            differences.append(
                f"{split} has {len(set(names))} classes and {len(names)} images, "
                f"expected {classes} and {images}"
            )
    return "; ".join(differences) or None


def _class_order(rows: Sequence[Row]) -> tuple[str, ...]:
    """The classes by number where they appear otherwise; a source's own splits keep its order."""
    if any(row.split is not None for row in rows):
        return ()
    by_number = sorted(rows, key=lambda row: row.class_number)
    appearing, ordered = ({row.class_name: None for row in order} for order in (rows, by_number))
    return () if list(appearing) == list(ordered) else tuple(ordered)


def assign_splits(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with a split: where none is given, the first half of the classes trains.

    Classes stand in the order of their numbers; of an odd count the middle class trains.
    """
    numbers = sorted({row.class_number for row in rows if row.split is None})
    training = set(numbers[: (len(numbers) + 1) // 2])
    return [
        row
        if row.split is not None
        else replace(row, split="train" if row.class_number in training else "test")
        for row in rows
    ]


def enumerate_names(names: Iterable[object]) -> str:
    """The first ten names, and how many more there are."""
    listed = [str(name) for name in names]
    more = len(listed) - _NAMES_SHOWN
    return ", ".join(listed[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key that puts `class2` before `class10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    keys = [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p.casefold()) for p in parts]
    return keys, name


def is_image_name(name: str) -> bool:
    """Whether the name ends as an image file's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _check_names(source: str, rows: Sequence[Row]) -> None:
    if not rows:
        raise DatasetError(f"{source}: lists no image")
    twice = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if twice:
        raise DatasetError(f"{source}: images listed more than once: {enumerate_names(twice)}")
    numbers: dict[str, set[int]] = {}
    names: dict[int, dict[str, None]] = {}
    for row in rows:
        numbers.setdefault(row.class_name, set()).add(row.class_number)
        names.setdefault(row.class_number, {})[row.class_name] = None
    shared = [name for name, of_name in numbers.items() if len(of_name) > 1]
    if shared:
        raise DatasetError(f"{source}: several classes share a name: {enumerate_names(shared)}")
    mixed = [f"{n} ({enumerate_names(of)})" for n, of in names.items() if len(of) > 1]
    if mixed:
        raise DatasetError(f"{source}: several classes share a number: {enumerate_names(mixed)}")


def check_split(source: str, rows: Sequence[Row | ListedImage]) -> None:
    """Raises DatasetError for classes in both splits, and for a split without a class."""
    classes = {
        split: {row.class_name for row in rows if row.split == split} for split in ("train", "test")
    }
    in_both = classes["train"] & classes["test"]
    shared = dict.fromkeys(row.class_name for row in rows if row.class_name in in_both)
    if shared:
        raise DatasetError(
            f"{source}: classes both in train and in test: {enumerate_names(shared)}"
        )
    for split, names in classes.items():
        if not names:
            raise DatasetError(f"{source}: no class is left for {split}: two classes are the least")
