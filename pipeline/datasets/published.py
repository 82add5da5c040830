"""What a published data set is: its archives, licence and counts, and how it is opened.

METHOD section 7 is the source of the figures of each data set, unless a comment says otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.datasets.reader import (
    SPLITS,
    Counts,
    DatasetError,
    DatasetReader,
    ListedImage,
    check_names,
    check_split,
    enumerate_names,
    is_image_name,
)

RESEARCH = "non-commercial research and education only; the images are not redistributed"


@dataclass(frozen=True)
class PublishedFile:
    """A published file and its HTTP address; None: not published."""

    name: str
    address: str | None = None
    size_bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Contents:
    """What is found in an archive.

    name: what error messages call it. images: the official list; where it gives no splits, half of
    the classes train. read: the file of an image's name. held: the names of the files there are.
    """

    name: str
    images: Sequence[ListedImage]
    read: Callable[[str], bytes]
    held: Set[str]


@dataclass(frozen=True)
class Archive:
    """One published form of a data set: the files that together hold it, and how they are read.

    `read` takes where each file lies, by its published name, and where an unnamed temporary file
    of the size of the unpacked archive may lie. `pages` are where a person finds the files when no
    address answers. `is_parquet`: the files are parquet tables, more of which may be given.
    """

    read: Callable[[Mapping[str, Path], Path | None], AbstractContextManager[Contents]]
    files: tuple[PublishedFile, ...] = ()
    pages: tuple[str, ...] = ()
    is_parquet: bool = False


@dataclass(frozen=True)
class PublishedDataset:
    """A data set: its archives by the name that params.yaml has for them, licence and counts."""

    name: str
    archives: Mapping[str, Archive]
    licence: str
    counts: Counts | None


@contextmanager
def open_published(
    dataset: PublishedDataset,
    layout: str,
    paths: Mapping[str, Path],
    *,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[DatasetReader]:
    """The images of a published data set, open as long as the context lasts.

    layout: which of its archives. paths: where each of its files lies, by its published name.
    accept_subset: a difference from the published counts is accepted, and the reader says so.
    spool_dir: where an unnamed temporary file of the size of the unpacked archive may lie (tar and
    parquet only; default: the system's).

    Raises DatasetError or ArchiveError, each a ValueError that names the file.
    """
    with dataset.archives[layout].read(paths, spool_dir) as contents:
        name, listed = contents.name, contents.images
        check_names(name, listed)
        absent = [image for image in listed if image.name not in contents.held]
        if absent and not accept_subset:
            raise DatasetError(
                f"{name}: {len(absent)} listed images are missing: "
                f"{enumerate_names(image.name for image in absent)} (of the classes "
                f"{enumerate_names(dict.fromkeys(image.class_name for image in absent))})"
            )
        images = assign_splits([image for image in listed if image.name in contents.held])
        check_split(name, images)
        found = _counted(images)
        is_other = dataset.counts not in (None, found)
        if is_other and not accept_subset:
            raise DatasetError(
                f"{name}: has {found}, expected {dataset.counts}; "
                "a part of a data set needs accept_subset"
            )
        appearing = list(dict.fromkeys(image.class_name for image in images))
        by_number = sorted(images, key=lambda image: image.class_number)
        order = list(dict.fromkeys(image.class_name for image in by_number))
        unlisted = contents.held - {image.name for image in listed}
        yield DatasetReader(
            images=tuple(images),
            read=contents.read,
            subset=is_other or bool(absent),
            absent=tuple(image.name for image in absent),
            passed_over=tuple(sorted(filter(is_image_name, unlisted))),
            class_order=() if order == appearing else tuple(order),
        )


def assign_splits(images: Sequence[ListedImage]) -> list[ListedImage]:
    """The images, each with a split: where none is given, the first half of the classes trains.

    Classes stand in the order of their numbers; of an odd count the middle class trains.
    """
    numbers = sorted({image.class_number for image in images})
    training = set(numbers[: (len(numbers) + 1) // 2])
    return [
        replace(i, split=i.split or ("train" if i.class_number in training else "test"))
        for i in images
    ]


def _counted(images: Sequence[ListedImage]) -> Counts:
    train, test = ([i.class_name for i in images if i.split == split] for split in SPLITS)
    return Counts(len(set(train)), len(set(test)), len(train), len(test))
