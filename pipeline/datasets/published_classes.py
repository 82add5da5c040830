"""How the classes and images of a source differ from those of the published data set."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.datasets.listings import Difference, Row, assign_splits, enumerate_names
from pipeline.datasets.records import Split
from pipeline.datasets.sources import ExpectedCounts

_SPLITS: tuple[tuple[Split, Split], ...] = (("train", "test"), ("test", "train"))
# With a larger share of images out of class order, their numbers do not follow the classes at all.
_STRAY_SHARE = 0.25


@dataclass(frozen=True)
class PublishedClasses:
    """What is known of a whole published data set.

    `names`: the official class names by number, as far as the source's own files tell them.
    `numbered`: the class numbers of the rows are the official ones, 1 and up, training classes
    first; otherwise they only put the classes in order.
    """

    counts: ExpectedCounts
    names: Mapping[int, str] = field(default_factory=dict)
    numbered: bool = True

    def numbers(self, split: Split) -> range:
        """The official numbers of the classes of a split."""
        first = 1 if split == "train" else self.counts.train_classes + 1
        return range(first, first + self.expected(split)[0])

    def expected(self, split: Split) -> tuple[int, int]:
        """The number of classes and of images of a split."""
        counts = self.counts
        if split == "train":
            return counts.train_classes, counts.train_images
        return counts.test_classes, counts.test_images

    def call(self, numbers: Iterable[int]) -> str:
        """The classes of these ascending numbers: by name where it is known, else by number."""
        listed = list(numbers)
        known = [self.names[number] for number in listed if number in self.names]
        unknown = [number for number in listed if number not in self.names]
        parts = [enumerate_names(known)] if known else []
        parts += [f"number {enumerate_names(map(_range, _runs(unknown)))}"] if unknown else []
        return ", ".join(parts)


def difference_from(
    counts: ExpectedCounts | None,
    names: Mapping[int, str] | None = None,
    *,
    numbered: bool = True,
) -> Difference | None:
    """`count_difference` from the whole that these counts and names describe; None without any.

    Arguments as in `PublishedClasses`.
    """
    if counts is None:
        return None
    published = PublishedClasses(counts, names or {}, numbered)
    return lambda rows: count_difference(rows, published)


def count_difference(rows: Sequence[Row], published: PublishedClasses) -> str | None:
    """In one line how the rows differ from the published whole, or None where they do not.

    rows: as listed, with the splits that the source itself gives. Classes are named as far as
    numbers tell them, with "probably" where only the neighbouring numbers do; where nothing tells
    them, the line says so and names the classes with the fewest or the most images.
    """
    kept = assign_splits(rows)
    counted = _split_differences(kept, published)
    named = _class_differences(rows, published) if published.numbered else []
    named += _image_differences(rows, published)
    if not counted and not named:
        return None
    named += _stray_images(rows)
    return "; ".join(counted + (named or _clues(kept, published)))


def _split_differences(kept: Sequence[Row], published: PublishedClasses) -> list[str]:
    differences = []
    for split, _ in _SPLITS:
        expected = published.expected(split)
        numbers = [row.class_number for row in kept if row.split == split]
        if (len(set(numbers)), len(numbers)) != expected:
            differences.append(
                f"{split} has {len(set(numbers))} classes and {len(numbers)} images, "
                f"expected {expected[0]} and {expected[1]}"
            )
    return differences


def _class_differences(rows: Sequence[Row], published: PublishedClasses) -> list[str]:
    """The classes that are missing, that are none of the official ones, or in the wrong split."""
    names = {row.class_number: row.class_name for row in rows}
    official = range(1, published.numbers("test").stop)
    missing = [number for number in official if number not in names]
    surplus = [names[number] for number in sorted(names) if number not in official]
    differences = [f"classes missing: {published.call(missing)}"] if missing else []
    differences += [f"surplus classes: {enumerate_names(surplus)}"] if surplus else []
    for split, other in _SPLITS:
        numbers = published.numbers(split)
        moved = dict.fromkeys(
            row.class_name for row in rows if row.split == other and row.class_number in numbers
        )
        if moved:
            differences.append(f"classes of {split} listed in {other}: {enumerate_names(moved)}")
    return differences


def _image_differences(rows: Sequence[Row], published: PublishedClasses) -> list[str]:
    """The official image numbers that are missing, with their probable classes; surplus images."""
    names = {row.number: row.name for row in rows if row.number is not None}
    if not names:
        return []
    official = range(1, published.counts.train_images + published.counts.test_images + 1)
    missing = _runs(number for number in official if number not in names)
    surplus = [names[number] for number in sorted(names) if number not in official]
    in_order = _by_class_order(rows)[0] if missing else []
    runs = [_range(run) + _probable_classes(run, in_order, published) for run in missing]
    return [
        *([f"images missing: number {enumerate_names(runs)}"] if runs else []),
        *([f"surplus images: {enumerate_names(surplus)}"] if surplus else []),
    ]


def _probable_classes(
    run: tuple[int, int], in_order: Sequence[Row], published: PublishedClasses
) -> str:
    """The classes between those of the images before and after a run of missing numbers."""
    if not in_order or not published.numbered:
        return ""
    place = bisect_right(in_order, run[0], key=_number)
    last_class = published.numbers("test").stop - 1
    least = in_order[place - 1].class_number if place > 0 else 1
    most = in_order[place].class_number if place < len(in_order) else last_class
    names = {row.class_number: row.class_name for row in in_order[max(place - 1, 0) : place + 1]}
    called = PublishedClasses(published.counts, {**published.names, **names})
    return f" (probably of {called.call(range(least, most + 1))})" if least <= most else ""


def _stray_images(rows: Sequence[Row]) -> list[str]:
    """The images whose classes break the order in which the image numbers go through them."""
    _, strays = _by_class_order(rows)
    named = enumerate_names(f"{row.name} ({row.class_name})" for row in strays)
    return [f"images among those of another class: {named}"] if strays else []


def _by_class_order(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The numbered rows in the order of their numbers: those of rising classes, and the strays.

    Both are empty where the numbers do not follow the classes.
    """
    numbered = sorted((row for row in rows if row.number is not None), key=_number)
    # The longest run of classes that never fall: `ends[k]` is the place of the row that ends the
    # best run of k + 1 rows, and `before` the place of the row before each.
    ends: list[int] = []
    before: list[int] = []
    for place, row in enumerate(numbered):
        k = bisect_right(ends, row.class_number, key=lambda end: numbered[end].class_number)
        before.append(ends[k - 1] if k else -1)
        ends[k : k + 1] = [place]
    if len(ends) < (1 - _STRAY_SHARE) * len(numbered):
        return [], []
    chosen = set()
    place = ends[-1] if ends else -1
    while place >= 0:
        chosen.add(place)
        place = before[place]
    return (
        [row for place, row in enumerate(numbered) if place in chosen],
        [row for place, row in enumerate(numbered) if place not in chosen],
    )


def _clues(kept: Sequence[Row], published: PublishedClasses) -> list[str]:
    """What can be said of each differing split where no number tells the classes."""
    clues = []
    for split, _ in _SPLITS:
        expected_classes, expected_images = published.expected(split)
        sizes = Counter(row.class_name for row in kept if row.split == split)
        images, numbers = sizes.total(), published.numbers(split)
        if len(sizes) != expected_classes:
            fault = "missing" if len(sizes) < expected_classes else "surplus"
            clues.append(
                f"which {split} classes are {fault} cannot be told: this form does not number them"
            )
        elif images != expected_images:
            few = images < expected_images
            size = min(sizes.values()) if few else max(sizes.values())
            fault, most = ("lack", "fewest") if few else ("have surplus", "most")
            official = f" (numbers {numbers[0]}-{numbers[-1]})" if published.numbered else ""
            clues.append(
                f"which {split} classes{official} {fault} images cannot be told without published "
                f"counts per class; the {most} images, {size}, are of "
                + enumerate_names(name for name in sizes if sizes[name] == size)
            )
    return clues


def _number(row: Row) -> int:
    return row.number or 0


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and the last of each run: (1, 3), (7, 7) for 1, 2, 3, 7; the numbers ascend."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _range(run: tuple[int, int]) -> str:
    return f"{run[0]}-{run[1]}" if run[0] != run[1] else f"{run[0]}"
