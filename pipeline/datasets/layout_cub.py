"""CUB-200-2011 in its official archive: images.txt gives the order, classes.txt the classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.datasets.archives import OpenArchive, open_archive, read_table
from pipeline.datasets.listings import (
    LayoutError,
    Listing,
    Row,
    build_listing,
    enumerate_names,
    is_image_name,
)
from pipeline.datasets.published_classes import difference_from
from pipeline.datasets.sources import ExpectedCounts

_ROOT = "CUB_200_2011/"
_IMAGES = _ROOT + "images/"


@contextmanager
def open_cub(
    archive: Path,
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of CUB_200_2011.tgz in the order of images.txt; half of the classes train.

    Names are paths below `images/`. Arguments as in `layouts.open_layout`.

    Raises ArchiveError, or LayoutError for a text file that is missing, damaged or contradictory.
    """
    with open_archive(archive, spool_dir=spool_dir) as members:
        present = {n.removeprefix(_IMAGES) for n in members.names if n.startswith(_IMAGES)}
        class_names = _numbered(archive, members, "classes.txt")
        rows = _rows(archive, members, class_names)
        unlisted = present - {row.name for row in rows}
        yield build_listing(
            archive.name,
            rows,
            lambda name: members.read(_IMAGES + name),
            present=present,
            difference=difference_from(counts, class_names),
            accept_subset=accept_subset,
            passed_over=tuple(sorted(filter(is_image_name, unlisted))),
        )


def _rows(archive: Path, members: OpenArchive, class_names: dict[int, str]) -> list[Row]:
    paths = _numbered(archive, members, "images.txt")
    labels = _numbered(archive, members, "image_class_labels.txt")
    for number in sorted(paths.keys() ^ labels.keys()):
        label = class_names.get(int(labels.get(number, "0")), "?")
        where = paths.get(number, f"of class {label}")
        file = "image_class_labels.txt" if number in paths else "images.txt"
        raise LayoutError(f"{archive.name}: {_ROOT}{file} has no line for image {number} ({where})")
    rows = []
    for number, path in paths.items():
        class_number = int(labels[number])
        if class_number not in class_names:
            reason = f"image {number} ({path}) has class {class_number}, which it does not list"
            raise LayoutError(f"{archive.name}: {_ROOT}classes.txt: {reason}")
        rows.append(Row(path, class_names[class_number], class_number, number))
    _check_folders(archive, rows, class_names)
    return rows


def _check_folders(archive: Path, rows: list[Row], class_names: dict[int, str]) -> None:
    """Raises LayoutError for images that lie in the folder of another class than their label's."""
    if len(set(class_names.values())) < len(class_names):
        return  # two classes of one name: told with the names of all rows
    wrong = [
        f"image {row.number} ({row.name}) has the class {row.class_name}"
        for row in rows
        if row.name.split("/")[0] != row.class_name
    ]
    if wrong:
        reason = "labels contradict the folders of the images"
        raise LayoutError(
            f"{archive.name}: {_ROOT}image_class_labels.txt: {reason}: {enumerate_names(wrong)}"
        )


def _numbered(archive: Path, members: OpenArchive, file: str) -> dict[int, str]:
    """A file of lines `number text` as a dict, in the order of the file."""
    table = read_table(archive, members, _ROOT + file, columns=2)
    numbered: dict[int, str] = {}
    for line, (number, text) in enumerate(table, start=1):
        is_label = file == "image_class_labels.txt"
        if not number.isdecimal() or (is_label and not text.isdecimal()):
            raise LayoutError(f"{archive.name}: {_ROOT}{file}, line {line}: is not a number")
        if int(number) in numbered:
            raise LayoutError(f"{archive.name}: {_ROOT}{file}, line {line}: {number} comes twice")
        numbered[int(number)] = text
    return numbered
