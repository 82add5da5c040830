"""A data set's images in official order, before any is decoded: names, classes, split, counts."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from pipeline.data.records import Split
from pipeline.data.sources import ExpectedCounts

_NAMES_SHOWN = 10
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
)


class LayoutError(ValueError):
    """A source whose files do not fit its layout or its published counts."""


@dataclass(frozen=True)
class Row:
    """A line of a source's list of images.

    `class_number` orders the classes: the official number, or the place counted from 1.
    `number` is the image's number in the official list. `split` None: half of the classes train.
    """

    name: str
    class_name: str
    class_number: int
    number: int | None = None
    split: Split | None = None


@dataclass(frozen=True)
class ListedImage:
    """An image that a source holds, not decoded yet."""

    name: str
    class_name: str
    split: Split


@dataclass(frozen=True)
class Listing:
    """The images of a source in official order, and a function that gives the file of a name.

    `subset`: the counts are not the published ones, which the caller accepted. `absent`: names that
    the list has and the archive has not (a subset only). `passed_over`: files that are no part of
    the data set, such as text files in a folder of images.
    """

    images: tuple[ListedImage, ...]
    read: Callable[[str], bytes]
    subset: bool = False
    absent: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def build_listing(
    source: str,
    rows: Sequence[Row],
    read: Callable[[str], bytes],
    *,
    present: Set[str] | None = None,
    counts: ExpectedCounts | None = None,
    accept_subset: bool = False,
    passed_over: tuple[str, ...] = (),
) -> Listing:
    """The listing of `rows`, checked: unique names, class-disjoint split, published counts.

    source: what error messages call the data set. present: the names that the archive holds; None
    where every row is known to exist. counts: the published ones; None where there are none.
    accept_subset: rows without an image are left out and other counts accepted.

    Raises LayoutError that says which classes or files are missing or surplus.
    """
    _check_names(source, rows)
    absent = () if present is None else tuple(r.name for r in rows if r.name not in present)
    left_out = set(absent)
    if absent and not accept_subset:
        classes = _in_order(r.class_name for r in rows if r.name in left_out)
        raise LayoutError(
            f"{source}: {len(absent)} listed images are missing: {enumerate_names(absent)} "
            f"(of the classes {enumerate_names(classes)})"
        )
    kept = assign_splits([row for row in rows if row.name not in left_out])
    _check_split(source, kept)
    difference = None if counts is None else count_difference(kept, counts)
    if difference is not None and not accept_subset:
        raise LayoutError(f"{source}: {difference}; a part of a data set needs accept_subset")
    return Listing(
        images=tuple(ListedImage(r.name, r.class_name, r.split) for r in kept if r.split),
        read=read,
        subset=difference is not None or bool(absent),
        absent=absent,
        passed_over=passed_over,
    )


def assign_splits(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with a split: where none is given, the first half of the classes trains.

    Classes stand in the order of their numbers; of an odd count the middle class trains.
    """
    numbers = sorted({row.class_number for row in rows if row.split is None})
    training = set(numbers[: (len(numbers) + 1) // 2])
    return [
        row if row.split is not None else _with_split(row, row.class_number in training)
        for row in rows
    ]


def count_difference(rows: Sequence[Row], counts: ExpectedCounts) -> str | None:
    """In one line how the rows differ from the published counts, or None where they do not."""
    found = {
        split: (
            len({r.class_number for r in rows if r.split == split}),
            sum(r.split == split for r in rows),
        )
        for split in ("train", "test")
    }
    expected = {
        "train": (counts.train_classes, counts.train_images),
        "test": (counts.test_classes, counts.test_images),
    }
    if found == expected:
        return None
    parts = [
        f"{split} has {found[split][0]} classes and {found[split][1]} images, "
        f"expected {expected[split][0]} and {expected[split][1]}"
        for split in ("train", "test")
        if found[split] != expected[split]
    ]
    return "; ".join(parts + _class_differences(rows, counts) + _image_differences(rows, counts))


def enumerate_names(names: Iterable[object]) -> str:
    """The first ten names, and how many more there are."""
    listed = [str(name) for name in names]
    more = len(listed) - _NAMES_SHOWN
    return ", ".join(listed[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key that puts `class2` before `class10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    keys = [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p.casefold()) for p in parts]
    return keys, name


def is_image_name(name: str) -> bool:
    """Whether the name ends as an image file's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _check_names(source: str, rows: Sequence[Row]) -> None:
    if not rows:
        raise LayoutError(f"{source}: lists no image")
    twice = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if twice:
        raise LayoutError(f"{source}: images listed more than once: {enumerate_names(twice)}")
    names: dict[str, set[int]] = {}
    for row in rows:
        names.setdefault(row.class_name, set()).add(row.class_number)
    shared = [name for name, numbers in names.items() if len(numbers) > 1]
    if shared:
        raise LayoutError(f"{source}: several classes share a name: {enumerate_names(shared)}")


def _check_split(source: str, rows: Sequence[Row]) -> None:
    classes = {
        split: {row.class_name for row in rows if row.split == split} for split in ("train", "test")
    }
    in_both = classes["train"] & classes["test"]
    shared = _in_order(row.class_name for row in rows if row.class_name in in_both)
    if shared:
        raise LayoutError(f"{source}: classes both in train and in test: {enumerate_names(shared)}")
    for split, names in classes.items():
        if not names:
            raise LayoutError(f"{source}: no class is left for {split}: two classes are the least")


def _class_differences(rows: Sequence[Row], counts: ExpectedCounts) -> list[str]:
    names = {row.class_number: row.class_name for row in rows}
    official = range(1, counts.train_classes + counts.test_classes + 1)
    missing = [number for number in official if number not in names]
    surplus = [names[number] for number in sorted(names) if number not in official]
    return [
        *([f"classes missing: number {_ranges(missing)}"] if missing else []),
        *([f"surplus classes: {enumerate_names(surplus)}"] if surplus else []),
    ]


def _image_differences(rows: Sequence[Row], counts: ExpectedCounts) -> list[str]:
    numbered = {row.number: row for row in rows if row.number is not None}
    if not numbered:
        return []
    official = range(1, counts.train_images + counts.test_images + 1)
    missing = [number for number in official if number not in numbered]
    surplus = [numbered[number].name for number in sorted(numbered) if number not in official]
    return [
        *([f"images missing: number {_ranges(missing)}"] if missing else []),
        *([f"surplus images: {enumerate_names(surplus)}"] if surplus else []),
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """`1-3, 7` for 1, 2, 3, 7; the numbers ascend."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return enumerate_names(f"{a}-{b}" if a != b else a for a, b in runs)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _with_split(row: Row, trains: bool) -> Row:
    split: Literal["train", "test"] = "train" if trains else "test"
    return Row(row.name, row.class_name, row.class_number, row.number, split)
