"""What each real data set is: its files, addresses, checksums, licence and expected counts.

METHOD section 7 is the source of every figure here, unless a comment says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pipeline.datasets.fetching import PublishedFile
from pipeline.datasets.records import Split

SPLITS: tuple[Split, ...] = ("train", "test")
LayoutName = Literal[
    "cub", "cars_whole", "cars_halves", "cars_parquet", "sop", "sop_parquet", "folder", "csv"
]


@dataclass(frozen=True)
class ExpectedCounts:
    """Classes and images of the class-disjoint split."""

    train_classes: int
    test_classes: int
    train_images: int
    test_images: int


@dataclass(frozen=True)
class SourceForm:
    """One published form of a data set: the files that together hold it, and their layout.

    `pages` are where a person finds the files when no address answers. `official_halves` are the
    images annotated for training and for test by a form that splits every class in two.
    """

    layout: LayoutName
    files: tuple[PublishedFile, ...] = ()
    pages: tuple[str, ...] = ()
    official_halves: tuple[int, int] | None = None


@dataclass(frozen=True)
class DataSource:
    """A data set: its forms in order of preference, licence and counts (None: the user's own)."""

    name: str
    forms: tuple[SourceForm, ...]
    licence: str
    counts: ExpectedCounts | None


_NON_COMMERCIAL = "non-commercial research and education only; the images are not redistributed"
_USER_LICENCE = "the user's own images: the user answers for their licence"
_CARS_PARQUET_PAGE = "https://huggingface.co/datasets/tanganke/stanford_cars"
_CARS_PAGES = (f"{_CARS_PARQUET_PAGE} (as parquet files, for which set layout: cars_parquet)",)
_SOP_PARQUET = (
    "https://huggingface.co/datasets/nyris/stanford-online-products-v1/resolve/"
    "24a1b9b8ec6c0b1fc4dd324f24b2d829413a6c69/data/"
)
# In the order of the files; from a third party's audit of this revision, not checked by us.
_SOP_PARQUET_SHA256 = {
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


def _sop_parquet_files() -> tuple[PublishedFile, ...]:
    return tuple(
        PublishedFile(name, (_SOP_PARQUET + name,), sha256=sha256)
        for half, sums in _SOP_PARQUET_SHA256.items()
        for index, sha256 in enumerate(sums)
        for name in (f"{half}-{index:05d}-of-{len(sums):05d}.parquet",)
    )


_CUB200 = DataSource(
    name="cub200",
    licence=_NON_COMMERCIAL,
    counts=ExpectedCounts(100, 100, 5864, 5924),
    forms=(
        SourceForm(
            "cub",
            files=(
                PublishedFile(
                    "CUB_200_2011.tgz",
                    ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
                    size_bytes=1150585339,
                    md5="97eceeb196236b17998738112f37df78",
                    sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                ),
            ),
            pages=("https://data.caltech.edu/records/65de6-vp158",),
        ),
    ),
)

# Every ai.stanford.edu address has been dead since April 2023, so none stands here.
_CARS196 = DataSource(
    name="cars196",
    licence=_NON_COMMERCIAL,
    counts=ExpectedCounts(98, 98, 8054, 8131),
    forms=(
        SourceForm(
            "cars_whole",
            files=(
                PublishedFile("car_ims.tgz", md5="d5c8f0aa497503f355e17dc7886c3f14"),
                PublishedFile("cars_annos.mat", md5="b407c6086d669747186bd1d764ff9dbc"),
            ),
            pages=_CARS_PAGES,
        ),
        SourceForm(
            "cars_halves",
            files=(
                PublishedFile(
                    "cars_train.tgz",
                    size_bytes=979269282,
                    md5="065e5b463ae28d29e77c1b4b166cfe61",
                ),
                PublishedFile(
                    "cars_test.tgz",
                    size_bytes=977350468,
                    md5="4ce7ebf6a94d07f1952d94dd34c4d501",
                ),
                PublishedFile(
                    "car_devkit.tgz",
                    size_bytes=330960,
                    md5="c3b158d763b6e2245038c8ad08e45376",
                ),
                PublishedFile(
                    "cars_test_annos_withlabels.mat",
                    size_bytes=185758,
                    md5="b0a2b23655a3edd16d84508592a98d10",
                ),
            ),
            pages=_CARS_PAGES,
            official_halves=(8144, 8041),
        ),
        SourceForm("cars_parquet", pages=(_CARS_PARQUET_PAGE,)),
    ),
)

_SOP = DataSource(
    name="sop",
    licence="published for research without a licence text; the images are not redistributed",
    counts=ExpectedCounts(11318, 11316, 59551, 60502),
    forms=(
        SourceForm(
            "sop",
            files=(
                PublishedFile(
                    "Stanford_Online_Products.zip",
                    ("http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",),
                    size_bytes=3083860082,
                    md5="7f73d41a2f44250d4779881525aea32e",
                    sha256="b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
                ),
            ),
            pages=("https://cvgl.stanford.edu/projects/lifted_struct/",),
        ),
        SourceForm(
            "sop_parquet",
            files=_sop_parquet_files(),
            pages=("https://huggingface.co/datasets/nyris/stanford-online-products-v1",),
        ),
    ),
)

SOURCES: Mapping[str, DataSource] = MappingProxyType(
    {
        source.name: source
        for source in (
            _CUB200,
            _CARS196,
            _SOP,
            DataSource("folder", (SourceForm("folder"),), _USER_LICENCE, counts=None),
            DataSource("csv", (SourceForm("csv"),), _USER_LICENCE, counts=None),
        )
    }
)


def find_source(name: str) -> DataSource:
    """The data set of that name. Raises ValueError that lists the allowed names."""
    if name not in SOURCES:
        raise ValueError(f"no data set is called {name!r}: must be one of {', '.join(SOURCES)}")
    return SOURCES[name]


def find_form(source: DataSource, layout: str) -> SourceForm:
    """The form of `source` with that layout. Raises ValueError that lists the allowed layouts."""
    for form in source.forms:
        if form.layout == layout:
            return form
    allowed = ", ".join(form.layout for form in source.forms)
    raise ValueError(f"{source.name} has no layout {layout!r}: must be one of {allowed}")


def parquet_split(file: Path) -> Split | None:
    """The split that a file's name begins with, or else that its folder is called by, or None.

    The Hugging Face library writes `data/train-00000-of-00001.parquet`, the site's own conversion
    `default/train/0000.parquet`.
    """
    for split in SPLITS:
        if file.name.startswith(split):
            return split
    return next((split for split in SPLITS if file.parent.name == split), None)
