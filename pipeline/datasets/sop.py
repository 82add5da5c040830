"""Stanford Online Products: Ebay_train.txt, then Ebay_test.txt; or parquet files of both splits.

A class is called by its product number, with which its files' names begin, so that both archives
give the same classes under the same names.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.datasets.archives import ArchiveError, OpenArchive, open_archive, read_table
from pipeline.datasets.parquet import read_column, shown, spool_images, with_splits
from pipeline.datasets.published import Archive, Contents, PublishedDataset, PublishedFile
from pipeline.datasets.reader import Counts, DatasetError, ListedImage, Split

_FILE = "Stanford_Online_Products.zip"
_ROOT = "Stanford_Online_Products/"
_HEADER = ["image_id", "class_id", "super_class_id", "path"]
_LISTS: tuple[tuple[str, Split], ...] = (("Ebay_train.txt", "train"), ("Ebay_test.txt", "test"))


@contextmanager
def read_sop(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of Stanford_Online_Products.zip in the order of its lists, which split it.

    Names are the paths of the lists. Raises ArchiveError, also for a list that is missing or
    damaged.
    """
    archive = paths[_FILE]
    with open_archive(archive, spool_dir) as members:
        held = {n.removeprefix(_ROOT) for n in members.names if n.startswith(_ROOT)}
        rows = [row for file, split in _LISTS for row in _rows(archive, members, file, split)]
        yield Contents(_FILE, rows, lambda name: members.read(_ROOT + name), held)


@contextmanager
def read_sop_parquet(paths: Mapping[str, Path], spool_dir: Path | None) -> Iterator[Contents]:
    """The contents of the parquet files, columns `image`, `image_path`, `item_id`, in their order.

    Raises DatasetError.
    """
    rows: list[ListedImage] = []
    class_numbers: dict[str, int] = {}
    for split, file in with_splits(paths.values()):
        pairs = zip(read_column(file, "image_path"), read_column(file, "item_id"), strict=True)
        for place, (path, item) in enumerate(pairs):
            if not isinstance(path, str) or _product_of(path) != str(item):
                reason = f"row {place} has item_id {item!r}, its image_path is {path!r}"
                raise DatasetError(f"{shown(file)}: {reason}")
            number = class_numbers.setdefault(str(item), len(class_numbers) + 1)
            rows.append(ListedImage(path, str(item), number, split))
    with spool_images(paths.values(), [row.name for row in rows], spool_dir) as members:
        yield Contents("sop parquet", rows, members.read, set(members.names))


def _rows(archive: Path, members: OpenArchive, file: str, split: Split) -> list[ListedImage]:
    header, *lines = read_table(archive, members, _ROOT + file, columns=4) or [[]]
    if header != _HEADER:
        reason = f"the first line must be {' '.join(_HEADER)!r}"
        raise ArchiveError(archive, reason, _ROOT + file)
    rows = []
    for number, (image_id, class_id, _, path) in enumerate(lines, start=2):
        if not (image_id.isdecimal() and class_id.isdecimal() and _product_of(path)):
            reason = f"line {number}: is not two numbers, a group and PRODUCT_VIEW.JPG ({path})"
            raise ArchiveError(archive, reason, _ROOT + file)
        rows.append(ListedImage(path, _product_of(path), int(class_id), split))
    return rows


def _product_of(path: str) -> str:
    """`111085122871` of `bicycle_final/111085122871_0.JPG`, or "" for a name of another form."""
    product, _, view = PurePosixPath(path).stem.rpartition("_")
    return product if view.isdecimal() else ""


_PARQUET = (
    "https://huggingface.co/datasets/nyris/stanford-online-products-v1/resolve/"
    "24a1b9b8ec6c0b1fc4dd324f24b2d829413a6c69/data/"
)
# In the order of the files; from a third party's audit of this revision, not checked by us.
_PARQUET_SHA256 = {
    "train": (
        "8e0b9836ec26d157f97b0639506eee8b443980776187fce57a76b8007c58ba90",
        "122bed28e05cd67c03e642c7ccce7801fb25e2e4a9fa6bb3cd8d84a391f1d602",
        "b38f56e76fde0df05347ca64d6512af2ba0ffd78b6f0936782a688e49ab9097a",
        "3de59abed42fddc4daff5ff3cc70b4e1c70b6ad9969d71a6b4d79c060ad1e79d",
    ),
    "test": (
        "004b8bb9fed6777b293ed3a033e69d25dae2c647013033415265f47756e541f5",
        "dd6c5ecdd9842d79cba9de5cc18f1244408c6bbf4746335d0313fed34cae3984",
        "86f1973f1ee99f863e6abd6e050eccec617a46ef0c0102e184bc8979549c12e3",
        "f2fdb9ab858627688185fd49a626c8114c898912997db638dff49d3723c6d8e6",
    ),
}

SOP = PublishedDataset(
    name="sop",
    licence="published for research without a licence text; the images are not redistributed",
    counts=Counts(11318, 11316, 59551, 60502),
    archives={
        "sop": Archive(
            read_sop,
            files=(
                PublishedFile(
                    _FILE,
                    "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
                    size_bytes=3083860082,
                    md5="7f73d41a2f44250d4779881525aea32e",
                    sha256="b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
                ),
            ),
            pages=("https://cvgl.stanford.edu/projects/lifted_struct/",),
        ),
        "sop_parquet": Archive(
            read_sop_parquet,
            files=tuple(
                PublishedFile(name, _PARQUET + name, sha256=sha256)
                for half, sums in _PARQUET_SHA256.items()
                for index, sha256 in enumerate(sums)
                for name in (f"{half}-{index:05d}-of-{len(sums):05d}.parquet",)
            ),
            pages=("https://huggingface.co/datasets/nyris/stanford-online-products-v1",),
            is_parquet=True,
        ),
    },
)
