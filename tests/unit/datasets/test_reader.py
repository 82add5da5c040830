"""Archives and own images: official order, class-disjoint splits, published counts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.datasets.archives import ArchiveError
from pipeline.datasets.cub200 import CUB200
from pipeline.datasets.published import assign_splits
from pipeline.datasets.reader import (
    Counts,
    DatasetError,
    DatasetReader,
    ImageRecord,
    ListedImage,
    natural_key,
    read_records,
)
from tests import made_archives as made

SAMPLE = Path(__file__).parents[4] / "shared/data/CUB_200_2011_sample.tgz"


def records_of(layout: str, paths: Mapping[str, Path], **options) -> list[ImageRecord]:
    with made.opened(layout, paths, **options) as reader:
        return list(read_records(reader))


def splits_of(records: list[ImageRecord]) -> dict[str, str]:
    """Class -> split, in the order of first appearance."""
    classes: dict[str, str] = {}
    for record in records:
        assert classes.setdefault(record.class_name, record.split) == record.split
    return classes


def cub(tmp_path: Path, members: Mapping[str, bytes]) -> dict[str, Path]:
    archive = made.write_tgz(tmp_path / "CUB_200_2011.tgz", made.shuffled(members))
    return {archive.name: archive}


def sop(tmp_path: Path, members: Mapping[str, bytes]) -> dict[str, Path]:
    archive = made.write_zip(tmp_path / "Stanford_Online_Products.zip", made.shuffled(members))
    return {archive.name: archive}


def without_line(members: Mapping[str, bytes], file: str, index: int) -> dict[str, bytes]:
    lines = members[file].decode().splitlines(keepends=True)
    del lines[index]
    return {**members, file: "".join(lines).encode()}


def test_cub_is_in_the_order_of_images_txt(tmp_path: Path) -> None:
    members = made.cub_members(classes=4, images_per_class=3)
    records = records_of("cub", cub(tmp_path, members), counts=Counts(2, 2, 6, 6))
    lines = members["CUB_200_2011/images.txt"].decode().splitlines()
    assert [record.name for record in records] == [line.split()[1] for line in lines]
    assert [r.name for r in records] != sorted(r.name for r in records)
    for record in records:
        assert record.encoded == members[f"CUB_200_2011/images/{record.name}"]
        assert (record.width, record.height) == (24, 16)
    assert splits_of(records) == {
        "001.Bird_1": "train",
        "002.Bird_2": "train",
        "003.Bird_3": "test",
        "004.Bird_4": "test",
    }


def test_cub_classes_keep_their_numbers_in_images_of_another_order(tmp_path: Path) -> None:
    """So that the classes that validate are the last ones, whatever images.txt begins with."""
    members = made.cub_members(classes=4, images_per_class=3)
    with made.opened("cub", cub(tmp_path, members)) as reader:
        assert reader.class_order == ()
    lines = members["CUB_200_2011/images.txt"].decode().splitlines(keepends=True)
    members["CUB_200_2011/images.txt"] = "".join(reversed(lines)).encode()
    with made.opened("cub", cub(tmp_path, members)) as reader:
        assert reader.images[0].class_name == "004.Bird_4"
        assert reader.class_order == tuple(f"{c:03d}.Bird_{c}" for c in range(1, 5))
        assert {i.class_name: i.split for i in reader.images} == {
            "001.Bird_1": "train",
            "002.Bird_2": "train",
            "003.Bird_3": "test",
            "004.Bird_4": "test",
        }


def test_sop_is_in_the_order_of_its_lists(tmp_path: Path) -> None:
    members = made.sop_members(train_classes=3, test_classes=2)
    records = records_of("sop", sop(tmp_path, members), counts=Counts(3, 2, 6, 4))
    assert list(splits_of(records).values()) == ["train"] * 3 + ["test"] * 2
    assert [record.name for record in records[:2]] == [
        "cabinet_final/111085122883_0.JPG",
        "cabinet_final/111085122883_1.JPG",
    ]
    assert records[0].class_name == "111085122883"
    assert records[0].encoded == members[f"Stanford_Online_Products/{records[0].name}"]


def test_cars_whole(tmp_path: Path) -> None:
    paths = made.write_cars_whole(tmp_path)
    counts = Counts(2, 2, 4, 4)
    records = records_of("cars_whole", paths, counts=counts)
    assert [record.name for record in records] == [f"car_ims/{i:06d}.jpg" for i in range(1, 9)]
    assert splits_of(records) == {
        "AM General Hummer SUV 2000": "train",
        "Acura RL Sedan 2012": "train",
        "Ram C-V Cargo Van": "test",
        "Audi TT": "test",
    }
    for seed, record in enumerate(records):
        assert record.encoded == made.encode_picture(seed)


def test_cars_halves_are_split_by_class_not_by_half(tmp_path: Path) -> None:
    paths = made.write_cars_halves(tmp_path)
    records = records_of("cars_halves", paths, counts=Counts(2, 2, 5, 4))
    assert [record.name for record in records] == [
        "cars_train/00002.jpg",
        "cars_test/00004.jpg",
        "cars_test/00005.jpg",
        "cars_train/00004.jpg",
        "cars_test/00002.jpg",
        "cars_train/00001.jpg",
        "cars_test/00003.jpg",
        "cars_train/00003.jpg",
        "cars_test/00001.jpg",
    ]
    assert list(splits_of(records)) == [name.replace("/", "-") for name in made.CAR_NAMES]
    assert records[1].encoded == made.encode_picture(103)


def test_cars_parquet_is_in_the_order_of_labels(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    counts = Counts(2, 2, 5, 4)
    records = records_of("cars_parquet", paths, counts=counts)
    assert [record.name for record in records] == [
        *("train/000001", "train/000004", "test/000003", "train/000003", "test/000002"),
        *("train/000000", "test/000001", "train/000002", "test/000000"),
    ]
    assert list(splits_of(records)) == [name.replace("/", "-") for name in made.CAR_NAMES]
    seeds = [1, 12, 23, 11, 22, 0, 21, 10, 20]
    assert [r.encoded for r in records] == [made.encode_picture(seed) for seed in seeds]


def test_sop_parquet_equals_the_archive(tmp_path: Path) -> None:
    counts = Counts(3, 2, 6, 4)
    of_archive = records_of("sop", sop(tmp_path, made.sop_members()), counts=counts)
    files = made.write_sop_parquet(tmp_path)
    assert records_of("sop_parquet", files, counts=counts) == of_archive


def test_folder_is_in_natural_order(tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    with made.opened("folder", {"folder": root}) as reader:
        records = list(read_records(reader))
        assert reader.passed_over == ("class5/notes.txt", "readme.md")
    assert splits_of(records) == {
        "class5": "test",
        "class10": "test",
        "class15": "train",
        "class20": "train",
    }
    assert [record.name for record in records[:2]] == ["class5/image0.jpg", "class5/image9.jpg"]


def test_csv_without_a_split(tmp_path: Path) -> None:
    rows = [("z/1.jpg", "b"), ("a/2.jpg", "a"), ("z/3.jpg", "b"), ("c/4.jpg", "c")]
    table = made.write_csv(tmp_path, rows)
    records = records_of("csv", {"csv": table})
    assert [record.name for record in records] == [path for path, _ in rows]
    assert splits_of(records) == {"b": "train", "a": "test", "c": "train"}


def test_csv_with_a_split_and_a_byte_order_mark(tmp_path: Path) -> None:
    rows = [("1.jpg", "a", "test"), ("2.jpg", "b", "Train "), ("3.jpg", "c", "test")]
    table = made.write_csv(tmp_path, rows, ("path", "class", "split"))
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    records = records_of("csv", {"csv": table})
    assert splits_of(records) == {"a": "test", "b": "train", "c": "test"}


def test_a_missing_class_is_named_unless_a_subset_is_accepted(tmp_path: Path) -> None:
    paths = cub(tmp_path, made.cub_members(classes=4))
    counts = Counts(3, 3, 9, 9)
    with pytest.raises(DatasetError) as caught:
        records_of("cub", paths, counts=counts)
    assert str(caught.value) == (
        "CUB_200_2011.tgz: has 2 + 2 classes and 6 + 6 images (train + test), expected "
        "3 + 3 classes and 9 + 9 images (train + test); a part of a data set needs accept_subset"
    )
    with made.opened("cub", paths, counts=counts, accept_subset=True) as reader:
        assert reader.subset
        assert len(reader.images) == 12


def test_the_whole_is_no_subset_even_if_one_is_accepted(tmp_path: Path) -> None:
    paths, counts = cub(tmp_path, made.cub_members(classes=4)), Counts(2, 2, 6, 6)
    with made.opened("cub", paths, counts=counts, accept_subset=True) as reader:
        assert not reader.subset
        assert reader.absent == ()


@pytest.mark.parametrize("prefix", ["CUB_200_2011/images/", "Stanford_Online_Products/"])
def test_absent_images_are_named_with_their_classes(prefix: str, tmp_path: Path) -> None:
    write, layout = (cub, "cub") if "CUB" in prefix else (sop, "sop")
    members = made.cub_members() if "CUB" in prefix else made.sop_members()
    gone = [name for name in members if name.startswith(prefix) and name.endswith(("jpg", "JPG"))]
    paths = write(tmp_path, {k: v for k, v in members.items() if k != gone[1]})
    with pytest.raises(DatasetError, match="1 listed images are missing") as caught:
        records_of(layout, paths)
    assert gone[1].removeprefix(prefix) in str(caught.value)
    with made.opened(layout, paths, accept_subset=True) as reader:
        assert reader.subset
        assert reader.absent == (gone[1].removeprefix(prefix),)
        assert reader.absent[0] not in {image.name for image in reader.images}


def test_unlisted_images_are_passed_over_and_counted(tmp_path: Path) -> None:
    members = made.cub_members() | {"CUB_200_2011/images/more/a.jpg": b"x"}
    with made.opened("cub", cub(tmp_path, members)) as reader:
        assert reader.passed_over == ("more/a.jpg",)
        assert len(reader.images) == 12


def test_a_line_that_lacks_its_label(tmp_path: Path) -> None:
    members = made.cub_members()
    for file, lacking in (
        ("images.txt", "images.txt': has no line for image 3 (of class 001.Bird_1)"),
        ("image_class_labels.txt", "image_class_labels.txt': has no line for image 3 (001.Bird_1/"),
    ):
        paths = cub(tmp_path, without_line(members, f"CUB_200_2011/{file}", 2))
        with pytest.raises(ArchiveError) as caught:
            records_of("cub", paths)
        assert lacking in str(caught.value)


def test_unreadable_images_are_refused_with_all_their_names(tmp_path: Path) -> None:
    members = made.cub_members()
    broken = sorted(name for name in members if name.endswith("jpg"))[::5]
    paths = cub(tmp_path, members | dict.fromkeys(broken, b"broken"))
    with made.opened("cub", paths) as reader:
        with pytest.raises(DatasetError) as caught:
            list(read_records(reader))
        for name in broken:
            assert name.removeprefix("CUB_200_2011/images/") in str(caught.value)
        skipped: dict[str, str] = {}
        records = list(read_records(reader, skipped=skipped))
    assert len(records) == 12 - 3
    assert skipped.keys() == {name.removeprefix("CUB_200_2011/images/") for name in broken}


def test_nothing_is_yielded_after_the_first_failure() -> None:
    contents = {"a": made.encode_picture(1), "b": b"", "c": made.encode_picture(2)}
    reader = DatasetReader(
        tuple(ListedImage(n, n, 1, "train") for n in contents), contents.__getitem__
    )
    seen = []
    with pytest.raises(DatasetError, match="1 unreadable images: b: is empty"):
        seen.extend(record.name for record in read_records(reader))
    assert seen == ["a"]


def test_a_class_without_a_readable_image_is_never_skipped() -> None:
    contents = {"a": made.encode_picture(1), "b": b""}
    reader = DatasetReader(
        tuple(ListedImage(n, f"class {n}", 1, "train") for n in "ab"), contents.get
    )
    with pytest.raises(DatasetError, match="no readable image is left of the classes class b"):
        list(read_records(reader, skipped={}))


def test_a_thousand_failures_make_one_line() -> None:
    images = tuple(ListedImage(f"{k}.jpg", "a", 1, "train") for k in range(1000))
    with pytest.raises(DatasetError) as caught:
        list(read_records(DatasetReader(images, lambda _: b"")))
    assert "99.jpg: is empty (0 bytes) and 900 more" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_middle_class_of_an_odd_count_trains() -> None:
    rows = [ListedImage(f"{c}", f"class {c}", c) for c in (5, 1, 3, 1)]
    rows = [replace(row, name=str(i)) for i, row in enumerate(rows)]
    assert [row.split for row in assign_splits(rows)] == ["test", "train", "train", "train"]


def test_natural_order() -> None:
    names = ["a10", "a2", "B1", "a", "a02", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a02", "a2", "a10", "B1"]


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the CUB sample is on development machines only")
def test_the_cub_sample() -> None:
    paths = {"CUB_200_2011.tgz": SAMPLE}
    with made.opened("cub", paths, CUB200.counts, accept_subset=True) as reader:
        assert reader.subset
        records = list(read_records(reader))
        changed = [r.name for r in records if r.encoded != reader.read(r.name)]
    assert len(records) == 2889
    assert Counter(record.split for record in records) == {"train": 1402, "test": 1487}
    classes = splits_of(records)
    assert list(classes.values()) == ["train"] * 25 + ["test"] * 25
    assert list(classes) == sorted(classes)
    assert max(min(record.width, record.height) for record in records) == 288
    assert len(changed) == 2  # the two greyscale photographs


@pytest.mark.parametrize("label", [2, 4])
def test_cub_labels_agree_with_folders(label: int, tmp_path: Path) -> None:
    """Class 2 is in the same split as the true one, so that no count shows it."""
    members = made.cub_members()
    file = "CUB_200_2011/image_class_labels.txt"
    members[file] = members[file].replace(b"1 1\n", f"1 {label}\n".encode(), 1)
    for subset in (False, True):
        with (
            pytest.raises(ArchiveError) as caught,
            made.opened("cub", cub(tmp_path, members), accept_subset=subset),
        ):
            pass
        assert str(caught.value).endswith(
            "labels contradict the folders of the images: image 1 "
            f"(001.Bird_1/Bird_001_0021_3.jpg) has the class 00{label}.Bird_{label}"
        )


def test_sop_refuses_a_class_of_two_products(tmp_path: Path) -> None:
    members = made.sop_members()
    file = "Stanford_Online_Products/Ebay_train.txt"
    members[file] = members[file].replace(b"3 2 1 ", b"3 1 1 ").replace(b"4 2 1 ", b"4 1 1 ")
    with (
        pytest.raises(DatasetError, match="share a number: 1"),
        made.opened("sop", sop(tmp_path, members), accept_subset=True),
    ):
        pass
