"""What a published data set is: its archives, licence and counts, and how it is opened.

METHOD section 7 is the source of the figures of each data set, unless a comment says otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.reader import Counts, DatasetReader, Row, build_reader, is_image_name

NON_COMMERCIAL = "non-commercial research and education only; the images are not redistributed"


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

    name: what error messages call it. rows: the official list of images. read: the file of an
    image's name. held: the names of the files that the archive holds; None where all rows are.
    """

    name: str
    rows: Sequence[Row]
    read: Callable[[str], bytes]
    held: Set[str] | None = None


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
        unlisted = (contents.held or set()) - {row.name for row in contents.rows}
        yield build_reader(
            contents.name,
            contents.rows,
            contents.read,
            present=contents.held,
            counts=dataset.counts,
            accept_subset=accept_subset,
            passed_over=tuple(sorted(filter(is_image_name, unlisted))),
        )
