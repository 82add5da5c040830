"""Images of a data set read one by one, in the form in which packs hold them."""

from collections.abc import Callable, Iterator

from pipeline.datasets.decode import UnreadableImage, normalise_image
from pipeline.datasets.listings import LayoutError, Listing, enumerate_names
from pipeline.datasets.records import ImageRecord

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


def read_records(
    listing: Listing,
    *,
    skip_unreadable: bool = False,
    on_skip: Callable[[UnreadableImage], None] | None = None,
    largest_side_px: int | None = None,
    on_shrink: Callable[[str], None] | None = None,
) -> Iterator[ImageRecord]:
    """The records of a listing in its order, one image in memory at a time.

    skip_unreadable: an unreadable image is left out, and `on_skip` is told of it, so that the
    caller can count and name what is missing. Otherwise the rest is read for further failures,
    but after the first no record is yielded. largest_side_px: an image with a longer side is
    shrunk to it, and `on_shrink` is told its name.

    Raises UnreadableImagesError, which names them all; LayoutError where a class loses all its
    images; ArchiveError where a member does not fit its checksum.
    """
    failures: list[UnreadableImage] = []
    readable: set[str] = set()
    for image in listing.images:
        try:
            stored = normalise_image(
                listing.read(image.name), image.name, largest_side_px=largest_side_px
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
    lost = dict.fromkeys(i.class_name for i in listing.images if i.class_name not in readable)
    if lost:
        raise LayoutError(f"no readable image is left of the classes {enumerate_names(lost)}")
