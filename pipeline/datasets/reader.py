"""A data set's images in official order, before any is decoded: names, classes, split, counts."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.datasets.decode import UnreadableImage, normalise_image

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
_FAILURES_SHOWN = 100
MAX_FILE_BYTES = 256 << 20
# Pillow reads no HEIC, but such a file is an image: to be refused by its name, not passed over.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif"),
)

# What Windows, macOS and network drives put into folders of pictures, beside hidden files.
_SYSTEM_NAMES = (
    *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "__macosx"),
    *("@eadir", "#recycle", "@recycle", "#snapshot", "lost+found"),
)


class DatasetError(ValueError):
    """A data set whose files do not fit its list of images or its published counts."""


@dataclass(frozen=True)
class ListedImage:
    """An image that a source lists, not decoded yet.

    `class_name` is empty where the source has no classes. `class_number` orders the classes: the
    official number, or the place counted from 1. `split` None: not settled yet.
    """

    name: str
    class_name: str
    class_number: int
    split: Split | None = None

    @property
    def unit(self) -> str:
        """What is split as a whole: its class, or without classes the image itself."""
        return self.class_name or self.name


@dataclass(frozen=True)
class Counts:
    """Classes and images of the class-disjoint split."""

    train_classes: int
    test_classes: int
    train_images: int
    test_images: int

    def __str__(self) -> str:
        classes = f"{self.train_classes} + {self.test_classes} classes"
        return f"{classes} and {self.train_images} + {self.test_images} images (train + test)"


@dataclass(frozen=True)
class DatasetReader:
    """The images of a source in official order, and a function that gives the file of a name.

    `subset`: the counts are not the published ones, which the caller accepted. `absent`: names that
    the list has and the archive has not (a subset only). `passed_over`: files that are no part of
    the data set, such as text files in a folder of images. `class_order`: the names of the classes
    in official order, where the images come in another. `positions`: of each class, or without
    classes of each image, in [0, 1), where they decide which validate. `files`: of each image,
    where a table names one.
    """

    images: tuple[ListedImage, ...]
    read: Callable[[str], bytes]
    subset: bool = False
    absent: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    class_order: tuple[str, ...] = ()
    positions: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageRecord:
    """An image as a source yields it.

    `name` is its path inside the data set, unique and stable: the image's identity everywhere.
    `class_name` is empty where the source has no classes.
    `encoded` is a JPEG or PNG file that decodes to 8-bit RGB of `width` x `height` pixels.
    """

    name: str
    class_name: str
    split: Split
    encoded: bytes
    width: int
    height: int


def read_records(
    reader: DatasetReader,
    *,
    largest_side_px: int | None = None,
    skipped: dict[str, str] | None = None,
    shrunk: list[str] | None = None,
) -> Iterator[ImageRecord]:
    """The records of a reader in its order, one image in memory at a time.

    largest_side_px: an image with a longer side is shrunk to it, and its name added to `shrunk`.
    skipped: where given, unreadable images are left out, and are in it with their reasons at the
    end. Otherwise the rest is read for further failures, but after the first no record is yielded.

    Raises DatasetError, which names the unreadable images, or the classes (without classes the
    splits) that lose all of theirs;
    ArchiveError where a member does not fit its checksum.
    """
    failures: list[UnreadableImage] = []
    readable: set[str | None] = set()
    for image in reader.images:
        try:
            content = reader.read(image.name)
            stored = normalise_image(content, image.name, largest_side_px=largest_side_px)
        except UnreadableImage as failure:
            failures.append(failure)
            continue
        readable.add(image.class_name or image.split)
        if stored.is_shrunk and shrunk is not None:
            shrunk.append(image.name)
        if skipped is not None or not failures:
            assert image.split is not None, "it is settled before anything is read"
            yield ImageRecord(image.name, image.class_name, image.split, *stored[:3])
    if failures and skipped is None:
        raise DatasetError(
            f"{len(failures)} unreadable images: {enumerate_names(failures, _FAILURES_SHOWN)}: "
            "mend or remove them, or set source.skip_unreadable to leave them out"
        )
    if skipped is not None:
        skipped.update((failure.name, failure.reason) for failure in failures)
    groups = dict.fromkeys(image.class_name or image.split for image in reader.images)
    if lost := [group for group in groups if group not in readable]:
        what = "classes" if reader.images[0].class_name else "split"
        raise DatasetError(f"no readable image is left of the {what} {enumerate_names(lost)}")


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a picture's file. Raises UnreadableImage, which names it."""
    try:
        if not path.is_file():  # a pipe or a device would block, or never end
            reason = "is not a plain file" if path.exists() else "there is no such file"
            raise UnreadableImage(name, reason)
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise UnreadableImage(name, f"has {size_bytes} bytes, more than {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(name, f"cannot be read: {error.strerror}") from error


def enumerate_names(names: Iterable[object], most: int = 10) -> str:
    """The first names, and how many more there are."""
    listed = [str(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key that puts `class2` before `class10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    keys = [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p.casefold()) for p in parts]
    return keys, name


def is_image_name(name: str) -> bool:
    """Whether the name ends as an image file's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_system_name(name: str) -> bool:
    """Whether an operating system puts files or folders of this name beside the user's."""
    return name.casefold() in _SYSTEM_NAMES


def check_names(source: str, images: Sequence[ListedImage]) -> None:
    """Raises DatasetError for no image, one that is listed twice, and classes that are mixed up."""
    if not images:
        raise DatasetError(f"{source}: lists no image")
    classes = dict.fromkeys((image.class_name, image.class_number) for image in images)
    for what, found in (
        ("images listed more than once", [os.path.normpath(image.name) for image in images]),
        ("several classes share a name", [name for name, _ in classes]),
        ("several classes share a number", [number for _, number in classes]),
    ):
        shared = [one for one, count in Counter(found).items() if count > 1]
        if shared:
            raise DatasetError(f"{source}: {what}: {enumerate_names(shared)}")


def check_files(table: Path, names: Sequence[str]) -> None:
    """Raises DatasetError as `check_inside`, and for files of a table that are missing."""
    check_inside(table, names)
    if missing := [name for name in names if not (table.parent / name).is_file()]:
        reason = f"files are missing, or are no regular files: {enumerate_names(missing)}"
        raise DatasetError(f"{table}: {reason}")


def check_inside(table: Path, names: Sequence[str]) -> None:
    """Raises DatasetError for paths of a table, relative to its folder, that lie outside of it or
    behind links to folders, where changes go unnoticed.
    """
    folder = Path(os.path.realpath(table.parent))
    parents = {Path(name).parent for name in names}
    paths = {parent: Path(os.path.normpath(folder / parent)) for parent in parents}
    inside = {
        parent
        for parent, path in paths.items()
        if path == Path(os.path.realpath(path)) and path.is_relative_to(folder)
    }
    if outside := [name for name in names if Path(name).parent not in inside]:
        reason = f"names files outside of {table.parent} or behind links to folders"
        raise DatasetError(f"{table}: {reason}: {enumerate_names(outside)}")


def check_split(source: str, images: Sequence[ListedImage]) -> None:
    """Raises DatasetError for classes in both splits, and for a split without a class or image."""
    train, test = (
        dict.fromkeys(image.unit for image in images if image.split == split) for split in SPLITS
    )
    if shared := [name for name in train if name in test]:
        raise DatasetError(
            f"{source}: classes both in train and in test: {enumerate_names(shared)}"
        )
    for split, names in zip(SPLITS, (train, test), strict=True):
        if not names:
            what, least = ("class", "classes") if images[0].class_name else ("image", "images")
            raise DatasetError(
                f"{source}: no {what} is left for {split}: two {least} are the least"
            )
