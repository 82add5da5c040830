"""CUB-200-2011: images.txt gives the order, classes.txt the classes, of which half train."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.datasets.archives import ArchiveError, OpenArchive, open_archive, read_table
from pipeline.datasets.published import RESEARCH, Archive, Contents, PublishedDataset, PublishedFile
from pipeline.datasets.reader import Counts, ListedImage, enumerate_names

_FILE = "CUB_200_2011.tgz"
_ROOT = "CUB_200_2011/"
_IMAGES = _ROOT + "images/"
_LABELS = "image_class_labels.txt"


@contextmanager
def read_cub200(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of CUB_200_2011.tgz in the order of images.txt; names are paths in `images/`.

    Raises ArchiveError, also for a text file that is missing, damaged or contradictory.
    """
    archive = paths[_FILE]
    with open_archive(archive, spool_dir) as members:
        held = {n.removeprefix(_IMAGES) for n in members.names if n.startswith(_IMAGES)}
        rows = _rows(archive, members)
        yield Contents(_FILE, rows, lambda name: members.read(_IMAGES + name), held)


def _rows(archive: Path, members: OpenArchive) -> list[ListedImage]:
    class_names = _numbered(archive, members, "classes.txt")
    paths = _numbered(archive, members, "images.txt")
    labels = _numbered(archive, members, _LABELS)
    for number in sorted(paths.keys() ^ labels.keys()):
        label = class_names.get(int(labels.get(number, "0")), "?")
        where = paths.get(number, f"of class {label}")
        file = _LABELS if number in paths else "images.txt"
        raise ArchiveError(archive, f"has no line for image {number} ({where})", _ROOT + file)
    rows, wrong = [], []
    for number, path in paths.items():
        class_number = int(labels[number])
        if class_number not in class_names:
            reason = f"image {number} ({path}) has class {class_number}, which it does not list"
            raise ArchiveError(archive, reason, f"{_ROOT}classes.txt")
        class_name = class_names[class_number]
        rows.append(ListedImage(path, class_name, class_number))
        if path.split("/")[0] != class_name:
            wrong.append(f"image {number} ({path}) has the class {class_name}")
    if wrong:
        reason = f"labels contradict the folders of the images: {enumerate_names(wrong)}"
        raise ArchiveError(archive, reason, _ROOT + _LABELS)
    return rows


def _numbered(archive: Path, members: OpenArchive, file: str) -> dict[int, str]:
    """A file of lines `number text` as a dict, in the order of the file."""
    numbered: dict[int, str] = {}
    table = read_table(archive, members, _ROOT + file, columns=2)
    for line, (number, text) in enumerate(table, start=1):
        if not number.isdecimal() or (file == _LABELS and not text.isdecimal()):
            raise ArchiveError(archive, f"line {line}: is not a number", _ROOT + file)
        if int(number) in numbered:
            raise ArchiveError(archive, f"line {line}: {number} comes twice", _ROOT + file)
        numbered[int(number)] = text
    return numbered


CUB200 = PublishedDataset(
    name="cub200",
    licence=RESEARCH,
    counts=Counts(100, 100, 5864, 5924),
    archives={
        "cub": Archive(
            read_cub200,
            files=(
                PublishedFile(
                    _FILE,
                    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                    size_bytes=1150585339,
                    md5="97eceeb196236b17998738112f37df78",
                    sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                ),
            ),
            pages=("https://data.caltech.edu/records/65de6-vp158",),
        )
    },
)
