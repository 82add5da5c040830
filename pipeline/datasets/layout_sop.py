"""Stanford Online Products in its official archive: Ebay_train.txt, then Ebay_test.txt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.datasets.archives import OpenArchive, open_archive, read_table
from pipeline.datasets.listings import LayoutError, Listing, Row, build_listing, is_image_name
from pipeline.datasets.published_classes import difference_from
from pipeline.datasets.records import Split
from pipeline.datasets.sources import ExpectedCounts

_ROOT = "Stanford_Online_Products/"
_HEADER = ["image_id", "class_id", "super_class_id", "path"]
_LISTS: tuple[tuple[str, Split], ...] = (("Ebay_train.txt", "train"), ("Ebay_test.txt", "test"))


@contextmanager
def open_sop(
    archive: Path,
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of Stanford_Online_Products.zip in file order; the two lists give the split.

    Names are the paths of the lists. A class is called by its product number, with which its
    files' names begin, so that the parquet form gives the same classes. Arguments as in
    `layouts.open_layout`.

    Raises ArchiveError, or LayoutError for a list that is missing or damaged.
    """
    with open_archive(archive, spool_dir=spool_dir) as members:
        present = {n.removeprefix(_ROOT) for n in members.names if n.startswith(_ROOT)}
        rows = [row for file, split in _LISTS for row in _rows(archive, members, file, split)]
        unlisted = present - {row.name for row in rows}
        yield build_listing(
            archive.name,
            rows,
            lambda name: members.read(_ROOT + name),
            present=present,
            difference=difference_from(counts),
            accept_subset=accept_subset,
            passed_over=tuple(sorted(filter(is_image_name, unlisted))),
        )


def product_of(path: str) -> str:
    """`111085122871` of `bicycle_final/111085122871_0.JPG`, or "" for a name of another form."""
    product, _, view = PurePosixPath(path).stem.rpartition("_")
    return product if view.isdecimal() else ""


def _rows(archive: Path, members: OpenArchive, file: str, split: Split) -> list[Row]:
    place = f"{archive.name}: {_ROOT}{file}"
    header, *lines = read_table(archive, members, _ROOT + file, columns=4) or [[]]
    if header != _HEADER:
        raise LayoutError(f"{place}: the first line must be {' '.join(_HEADER)!r}")
    rows = []
    for number, (image_id, class_id, _, path) in enumerate(lines, start=2):
        if not (image_id.isdecimal() and class_id.isdecimal()):
            raise LayoutError(f"{place}, line {number}: image_id and class_id must be numbers")
        if not product_of(path):
            raise LayoutError(f"{place}, line {number}: {path} is not PRODUCT_VIEW.JPG")
        rows.append(Row(path, product_of(path), int(class_id), int(image_id), split))
    return rows
