"""A difference from the published counts says which classes; equal counts alone are no proof."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.layouts import open_layout
from pipeline.datasets.listings import LayoutError, Row
from pipeline.datasets.published_classes import PublishedClasses, count_difference
from pipeline.datasets.sources import ExpectedCounts, LayoutName, SourceForm
from tests import made_archives as made

CUB, SOP = "CUB_200_2011.tgz", "Stanford_Online_Products.zip"
CUB_ROOT, SOP_ROOT = "CUB_200_2011/", "Stanford_Online_Products/"
CUB_COUNTS = ExpectedCounts(2, 2, 6, 6)
SOP_COUNTS = ExpectedCounts(3, 2, 6, 4)
CARS_COUNTS = ExpectedCounts(2, 2, 5, 4)
COUNTS = ExpectedCounts(2, 2, 4, 4)
NAMES = {1: "a", 2: "b", 3: "c", 4: "d"}


def refusal(
    layout: LayoutName,
    paths: Mapping[str, Path],
    counts: ExpectedCounts,
    halves: tuple[int, int] | None = None,
) -> str:
    """What the source is refused with; it opens where a part is accepted, as a part."""
    form = SourceForm(layout, official_halves=halves)
    with (
        pytest.raises(LayoutError) as caught,
        open_layout(form, paths, counts=counts),
    ):
        pass
    with open_layout(form, paths, counts=counts, accept_subset=True) as listing:
        assert listing.subset or halves
    return str(caught.value)


def cub(folder: Path, edit: Callable[[dict[str, list[str]]], None]) -> dict[str, Path]:
    """CUB with edited lines of its lists; only the images that are still listed are held."""
    members = made.cub_members()
    files = ("images.txt", "image_class_labels.txt", "classes.txt")
    lines = {file: members[CUB_ROOT + file].decode().splitlines() for file in files}
    edit(lines)
    members |= {CUB_ROOT + file: "\n".join(lines[file]).encode() for file in files}
    return {CUB: made.write_tgz(folder / CUB, members)}


def without_images(*numbers: int) -> Callable[[dict[str, list[str]]], None]:
    def edit(lines: dict[str, list[str]]) -> None:
        for file in ("images.txt", "image_class_labels.txt"):
            lines[file] = [line for line in lines[file] if int(line.split()[0]) not in numbers]

    return edit


def sop(folder: Path, edit: Callable[[list[str], list[str]], None]) -> dict[str, Path]:
    """SOP with edited lines of its two lists, header included."""
    members = made.sop_members()
    files = [f"{SOP_ROOT}Ebay_{split}.txt" for split in ("train", "test")]
    train, test = (members[file].decode().splitlines() for file in files)
    edit(train, test)
    members |= {
        file: "\n".join(lines).encode() for file, lines in zip(files, (train, test), strict=True)
    }
    return {SOP: made.write_zip(folder / SOP, members)}


def eight_rows(splits: Mapping[int, str] | None = None) -> list[Row]:
    """Two images of each of four classes, numbered 1 to 8."""
    return [
        Row(f"{n}.jpg", NAMES[(n + 1) // 2], (n + 1) // 2, n, (splits or {}).get((n + 1) // 2))
        for n in range(1, 9)
    ]


def difference(rows: Sequence[Row], **options) -> str | None:
    return count_difference(rows, PublishedClasses(COUNTS, NAMES, **options))


def test_the_whole_has_no_difference() -> None:
    assert difference(eight_rows()) is None
    assert difference(eight_rows({1: "train", 2: "train", 3: "test", 4: "test"})) is None
    assert difference([replace(row, number=None) for row in eight_rows()]) is None


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ((1,), "images missing: number 1 (probably of a)"),
        ((2,), "images missing: number 2 (probably of a, b)"),  # the border of two classes
        ((2, 5), "images missing: number 2 (probably of a, b), 5 (probably of b, c)"),
        ((8,), "images missing: number 8 (probably of d)"),
        (
            (3, 4),
            "classes missing: b; images missing: number 3-4 (probably of a, b, c)",
        ),
    ],
)
def test_a_missing_image_is_probably_of_its_neighbours_classes(
    gone: tuple[int, ...], words: str
) -> None:
    rows = [row for row in eight_rows() if row.number not in gone]
    assert (difference(rows) or "").endswith("; " + words)


def test_numbers_that_do_not_follow_the_classes_tell_none() -> None:
    numbers = [8, 3, 6, 1, 4, 7, 2, 5]
    rows = [replace(row, number=n) for row, n in zip(eight_rows(), numbers, strict=True)]
    text = difference(rows[:-1]) or ""
    assert text.endswith("images missing: number 5")
    assert "probably" not in text
    assert "among those" not in text


def test_an_image_among_those_of_another_class_is_named() -> None:
    rows = eight_rows()
    rows[0] = replace(rows[0], class_name="d", class_number=4)
    assert difference(rows) == (
        "train has 2 classes and 3 images, expected 2 and 4; test has 2 classes and 5 images, "
        "expected 2 and 4; images among those of another class: 1.jpg (d)"
    )


def test_equal_counts_of_other_numbers_are_a_difference() -> None:
    shifted = [replace(r, class_number=r.class_number + 1, number=None) for r in eight_rows()]
    assert difference(shifted) == "classes missing: a; surplus classes: d"
    renumbered = [replace(row, number=(row.number or 0) + 1) for row in eight_rows()]
    text = difference(renumbered)
    assert text == "images missing: number 1 (probably of a); surplus images: 8.jpg"


def test_swapped_classes_are_named_though_the_counts_are_equal() -> None:
    swapped = eight_rows({1: "train", 2: "test", 3: "train", 4: "test"})
    assert (
        difference(swapped) == "classes of train listed in test: b; classes of test listed in "
        "train: c"
    )
    assert difference([replace(row, number=None) for row in swapped], numbered=False) is None


def test_where_no_number_tells_the_class_the_message_says_so() -> None:
    rows = [replace(row, number=None) for row in eight_rows()]
    assert difference(rows[:-1]) == (
        "test has 2 classes and 3 images, expected 2 and 4; which test classes (numbers 3-4) lack "
        "images cannot be told without published counts per class; the fewest images, 1, are of d"
    )
    surplus = difference([*rows, replace(rows[0], name="9.jpg")])
    assert surplus is not None
    assert "which train classes (numbers 1-2) have surplus images" in surplus
    assert surplus.endswith("the most images, 3, are of a")
    assert (difference(rows[:-2], numbered=False) or "").endswith(
        "which test classes are missing cannot be told: this form does not number them"
    )


def test_cub_names_the_class_of_a_missing_image(tmp_path: Path) -> None:
    text = refusal("cub", cub(tmp_path, without_images(5)), CUB_COUNTS)
    assert text == (
        "CUB_200_2011.tgz: train has 2 classes and 5 images, expected 2 and 6; images missing: "
        "number 5 (probably of 002.Bird_2); a part of a data set needs accept_subset"
    )


def test_cub_names_a_class_without_lines(tmp_path: Path) -> None:
    text = refusal("cub", cub(tmp_path, without_images(7, 8, 9)), CUB_COUNTS)
    assert "classes missing: 003.Bird_3; images missing: number 7-9 (probably of " in text


@pytest.mark.parametrize("label", [2, 4])
def test_cub_labels_agree_with_folders(label: int, tmp_path: Path) -> None:
    """Class 2 is in the same split as the true one, so that no count shows it."""

    def relabel(lines: dict[str, list[str]]) -> None:
        lines["image_class_labels.txt"][0] = f"1 {label}"

    paths = cub(tmp_path, relabel)
    for subset in (False, True):
        with (
            pytest.raises(LayoutError) as caught,
            open_layout(SourceForm("cub"), paths, counts=CUB_COUNTS, accept_subset=subset),
        ):
            pass
        assert str(caught.value).endswith(
            "image_class_labels.txt: labels contradict the folders of the images: image 1 "
            f"(001.Bird_1/Bird_001_0021_3.jpg) has the class 00{label}.Bird_{label}"
        )


def test_sop_names_a_class_of_the_other_list(tmp_path: Path) -> None:
    def move(train: list[str], test: list[str]) -> None:
        test[1:1] = train[-2:]
        del train[-2:]

    text = refusal("sop", sop(tmp_path, move), SOP_COUNTS)
    assert "; classes of train listed in test: 111085122909; a part" in text


def test_sop_refuses_swapped_classes_of_equal_counts(tmp_path: Path) -> None:
    def swap(train: list[str], test: list[str]) -> None:
        train[-2:], test[-2:] = test[-2:], train[-2:]

    text = refusal("sop", sop(tmp_path, swap), SOP_COUNTS)
    assert (
        "classes of train listed in test: 111085122909; classes of test listed in train: " in text
    )
    assert "has 3 classes" not in text


def test_sop_refuses_a_class_of_two_products(tmp_path: Path) -> None:
    def merge(train: list[str], _: list[str]) -> None:
        train[3] = train[3].replace("3 2 1 ", "3 1 1 ")
        train[4] = train[4].replace("4 2 1 ", "4 1 1 ")

    with (
        pytest.raises(LayoutError, match=r"share a number: 1 \(111085122883, 111085122896\)"),
        open_layout(SourceForm("sop"), sop(tmp_path, merge), accept_subset=True),
    ):
        pass


def test_sop_parquet_gives_no_number_for_a_missing_class(tmp_path: Path) -> None:
    paths = made.write_sop_parquet(tmp_path)
    text = refusal("sop_parquet", paths, ExpectedCounts(4, 2, 8, 4))
    assert "which train classes are missing cannot be told" in text
    assert "number 6" not in text
    text = refusal("sop_parquet", paths, ExpectedCounts(3, 2, 7, 4))
    assert "which train classes lack images cannot be told" in text
    assert "the fewest images, 2, are of 111085122883, 111085122896, 111085122909" in text


def test_cars_forms_name_the_classes_with_the_fewest_images(tmp_path: Path) -> None:
    for layout, write in (
        ("cars_halves", made.write_cars_halves),
        ("cars_parquet", made.write_cars_parquet),
    ):
        folder = tmp_path / layout
        folder.mkdir()
        text = refusal(layout, write(folder), replace(CARS_COUNTS, train_images=6))
        assert "which train classes (numbers 1-2) lack images cannot be told" in text
        assert "the fewest images, 2, are of Acura RL Sedan 2012" in text


def test_cars_halves_name_the_images_and_classes_that_a_half_lacks(tmp_path: Path) -> None:
    paths = made.write_cars_halves(tmp_path)
    counts, halves = CARS_COUNTS, (4, 6)
    assert refusal("cars_halves", paths, counts, halves).endswith(
        "withlabels.mat: annotates 5 images, expected 6; missing: 00006.jpg, whose classes only it "
        "tells"
    )
    listed = made.annotations("fname", [f"0000{n}.jpg" for n in range(1, 6)], [4, 2, 4, 2, 3])
    labelled = paths["cars_test_annos_withlabels.mat"]
    labelled.write_bytes(made.mat_bytes({"annotations": listed}))
    text = refusal("cars_halves", paths, counts, (4, 4))
    assert "of the classes AM General Hummer SUV 2000 it annotates none" in text
    assert "surplus: cars_test/00005.jpg (Ram C-V Cargo Van)" in text


def test_cars_parquet_refuses_labels_that_count_from_1(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    for path in paths.values():
        table = pq.read_table(path)
        labels = [label + 1 for label in table.column("label").to_pylist()]
        pq.write_table(table.set_column(1, "label", pa.array(labels)), path)
    text = refusal("cars_parquet", paths, CARS_COUNTS)
    assert "classes missing: AM General Hummer SUV 2000; surplus classes: 005;" in text
