"""From the files of a source to its records: one door to every layout."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from pipeline.datasets.decode import UnreadableImage, normalise_image
from pipeline.datasets.layout_cars import open_cars_halves, open_cars_whole
from pipeline.datasets.layout_cub import open_cub
from pipeline.datasets.layout_parquet import open_cars_parquet, open_sop_parquet
from pipeline.datasets.layout_sop import open_sop
from pipeline.datasets.layout_user import list_csv, list_folder
from pipeline.datasets.listings import LayoutError, Listing, enumerate_names
from pipeline.datasets.records import ImageRecord
from pipeline.datasets.sources import ExpectedCounts, SourceForm

_FAILURES_SHOWN = 100


class UnreadableImagesError(ValueError):
    """Images that cannot be decoded. `failures` holds them all."""

    def __init__(self, failures: tuple[UnreadableImage, ...]) -> None:
        shown = "; ".join(str(failure) for failure in failures[:_FAILURES_SHOWN])
        more = len(failures) - _FAILURES_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        remedy = "mend or remove them, or set source.skip_unreadable to leave them out"
        super().__init__(f"{len(failures)} unreadable images: {shown}{rest}: {remedy}")
        self.failures = failures


@contextmanager
def open_layout(
    form: SourceForm,
    paths: Mapping[str, Path],
    *,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    spool_dir: Path | None = None,
) -> Iterator[Listing]:
    """The listing of a source in the given form, open as long as the context lasts.

    paths: where each file of the form lies, by its published name; parquet files as
    `parquet_split` takes them; the user's own sources by `folder` or `csv`. counts: the published
    ones; None where there are none. accept_subset: a difference from them is accepted, and the
    listing says so. spool_dir: where an unnamed temporary file of the size of the unpacked archive
    may lie (tar and parquet only; default: the system's).

    Raises LayoutError or ArchiveError, each a ValueError that names the file.
    """
    open_form: Callable[..., AbstractContextManager[Listing]]
    with ExitStack() as stack:
        match form.layout:
            case "folder" | "csv":
                (path,) = _find(form.layout, paths, form.layout)
                yield list_folder(path) if form.layout == "folder" else list_csv(path)
                return
            case "cub":
                open_form = partial(open_cub, *_find(form.layout, paths, "CUB_200_2011.tgz"))
            case "sop":
                archive = _find(form.layout, paths, "Stanford_Online_Products.zip")
                open_form = partial(open_sop, *archive)
            case "cars_whole":
                files = _find(form.layout, paths, "car_ims.tgz", "cars_annos.mat")
                open_form = partial(open_cars_whole, *files)
            case "cars_halves":
                train, test = _find(form.layout, paths, "cars_train.tgz", "cars_test.tgz")
                devkit, labels = _find(
                    form.layout, paths, "car_devkit.tgz", "cars_test_annos_withlabels.mat"
                )
                open_form = partial(
                    open_cars_halves,
                    (train, test),
                    devkit,
                    labels,
                    official_halves=form.official_halves,
                )
            case "cars_parquet":
                open_form = partial(open_cars_parquet, tuple(paths.values()))
            case "sop_parquet":
                open_form = partial(open_sop_parquet, tuple(paths.values()))
        opened = open_form(counts=counts, accept_subset=accept_subset, spool_dir=spool_dir)
        yield stack.enter_context(opened)


def read_records(
    listing: Listing,
    *,
    skip_unreadable: bool = False,
    on_skip: Callable[[UnreadableImage], None] | None = None,
) -> Iterator[ImageRecord]:
    """The records of a listing in its order, one image in memory at a time.

    skip_unreadable: an unreadable image is left out, and `on_skip` is told of it, so that the
    caller can count and name what is missing. Otherwise the rest is read for further failures,
    but after the first no record is yielded.

    Raises UnreadableImagesError, which names them all; LayoutError where a class loses all its
    images; ArchiveError where a member does not fit its checksum.
    """
    failures: list[UnreadableImage] = []
    readable: set[str] = set()
    for image in listing.images:
        try:
            encoded, width, height = normalise_image(listing.read(image.name), image.name)
        except UnreadableImage as failure:
            failures.append(failure)
            if skip_unreadable and on_skip is not None:
                on_skip(failure)
            continue
        readable.add(image.class_name)
        if skip_unreadable or not failures:
            yield ImageRecord(image.name, image.class_name, image.split, encoded, width, height)
    if failures and not skip_unreadable:
        raise UnreadableImagesError(tuple(failures))
    lost = dict.fromkeys(i.class_name for i in listing.images if i.class_name not in readable)
    if lost:
        raise LayoutError(f"no readable image is left of the classes {enumerate_names(lost)}")


def _find(layout: str, paths: Mapping[str, Path], *names: str) -> tuple[Path, ...]:
    missing = [name for name in names if name not in paths]
    if missing:
        raise LayoutError(f"the layout {layout} needs {', '.join(missing)}")
    return tuple(paths[name] for name in names)
