"""Images without classes: listed, split one by one, packed, and held apart by what they show."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.sources import ImagesSource
from pipeline.datasets.duplicates import find_duplicates
from pipeline.datasets.own_images import hold_to_manifest, image_manifest, list_own_images
from pipeline.datasets.packs import Pack, open_pack, validation_split, write_pack
from pipeline.datasets.reader import DatasetError, DatasetReader, ImageRecord, read_records
from pipeline.datasets.splits import ClassSplit, settle_images
from stages.prepare import too_few
from tests import made_archives as made

SOURCE = ImagesSource(kind="images", skip_unreadable=False)
Known = dict[str, ClassSplit]


def made_folder(root: Path, count: int = 60) -> Path:
    """Pictures of different contents, half of them in folders of two floors."""
    for number in range(count):
        path = root / ("" if number % 2 else f"{number % 4}/deep") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.encode_picture(number))
    return root


def listed(root: Path) -> DatasetReader:
    return list_own_images(root, SOURCE)


def settled(root: Path, known: Known) -> tuple[dict[str, list[str]], Known, list[str]]:
    """The names by what becomes of them: train, test, kept out; the record; lines to tell."""
    reader = listed(root)
    found, record, lines = settle_images(str(root), reader, image_manifest(reader), known)
    names: dict[str, list[str]] = {"train": [], "test": [], "kept out": []}
    for entry in found["images"]:
        names["kept out" if "trained_as" in entry else entry["split"]].append(entry["name"])
    return names, record, lines


def packed(root: Path, path: Path) -> Pack:
    reader = listed(root)
    found, _, _ = settle_images(str(root), reader, image_manifest(reader), {})
    held = hold_to_manifest(reader, found)
    write_pack(path, read_records(held), positions=held.positions)
    return open_pack(path)


def test_names_are_paths_in_natural_order_and_odd_files_are_counted(tmp_path: Path) -> None:
    root = made_folder(tmp_path / "images", 12)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.jpg").write_bytes(b"")
    (root / "@eaDir").mkdir()
    (root / "@eaDir" / "y.jpg").write_bytes(b"")
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("")
    (root / "0/deep/Thumbs.db").write_text("")
    (root / "link.jpg").symlink_to(root / "1.jpg")
    reader = listed(root)
    deep = ["0/deep/0.jpg", "0/deep/4.jpg", "0/deep/8.jpg", "2/deep/2.jpg", "2/deep/6.jpg"]
    flat = ["1.jpg", "3.jpg", "5.jpg", "7.jpg", "9.jpg", "11.jpg", "link.jpg"]
    assert [image.name for image in reader.images] == [*flat, *deep, "2/deep/10.jpg"]
    assert {image.class_name for image in reader.images} == {""}
    assert set(reader.passed_over) == {"@eaDir", "notes.txt", "0/deep/Thumbs.db"}
    assert reader.read("link.jpg") == made.encode_picture(1)


def test_what_no_images_can_be_read_from_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.txt").write_text("")
    with pytest.raises(DatasetError, match="holds no image; 1 other files lie there"):
        listed(empty)
    with pytest.raises(DatasetError, match="is not a folder"):
        listed(tmp_path / "absent")
    linked = made_folder(tmp_path / "linked", 4)
    (linked / "0" / "link").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="links to folders, whose changes go unnoticed: 0/link"):
        listed(linked)
    accents = made_folder(tmp_path / "accents", 4)
    for form in ("\u00e9", "e\u0301"):
        (accents / f"{form}.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"form of their accents only: '\\xe9\.jpg'"):
        listed(accents)
    bytes_only = made_folder(tmp_path / "bytes", 4)
    with open(os.path.join(os.fsencode(bytes_only), b"0/caf\xe9.jpg"), "wb"):  # noqa: PTH118, PTH123
        pass
    with pytest.raises(DatasetError, match="names that are not UTF-8"):
        listed(bytes_only)


@pytest.mark.timeout(20)
def test_pipes_are_refused_by_name(tmp_path: Path) -> None:
    root = made_folder(tmp_path / "images", 30)
    os.mkfifo(root / "odd.jpg")
    reader = listed(root)
    entries = {entry["name"]: entry for entry in image_manifest(reader)}
    assert entries["odd.jpg"]["unreadable"] == "is not a plain file"
    found, _, _ = settle_images("x", reader, list(entries.values()), {})
    with pytest.raises(DatasetError, match=r"1 unreadable images: odd\.jpg: is not a plain"):
        list(read_records(hold_to_manifest(reader, found)))


def test_images_are_split_by_the_hash_of_their_names_and_stay(tmp_path: Path) -> None:
    root = made_folder(tmp_path / "images")
    first, record, lines = settled(root, {})
    names = [image.name for image in listed(root).images]
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert (set(first["train"]), set(first["test"])) == (set(by_hash[:30]), set(by_hash[30:]))
    assert (first["kept out"], lines) == ([], [])
    for number in range(60, 90):
        (root / f"{number}.jpg").write_bytes(made.encode_picture(number))
    later, grown, _ = settled(root, record)
    new = {f"{number}.jpg" for number in range(60, 90)}
    assert {one: set(later[one]) - new for one in ("train", "test")} == {
        one: set(first[one]) for one in ("train", "test")
    }
    assert {name: grown[name] for name in record} == record
    lower = {n for n in new if int(hashlib.sha256(n.encode()).hexdigest()[:12], 16) < 2**47}
    assert set(later["train"]) & new == lower
    assert 0 < len(lower) < 30


def test_nothing_trained_on_becomes_a_test_image(tmp_path: Path) -> None:
    root = made_folder(tmp_path / "images")
    first, record, _ = settled(root, {})
    trained, tested = first["train"][0], first["test"][0]
    (root / trained).rename(root / "renamed.jpg")
    (root / tested).write_bytes((root / first["train"][1]).read_bytes())
    names, later, lines = settled(root, record)
    assert "renamed.jpg" in names["train"]
    assert later["renamed.jpg"].position == record[trained].position
    assert names["kept out"] == [tested]
    assert lines == [
        f"1 new images train, as they did: renamed.jpg (as {trained})",
        f"1 test images are training images, and are kept out: {tested} (in {first['train'][1]})",
    ]


def test_a_pack_without_classes_has_none(tmp_path: Path) -> None:
    pack = packed(made_folder(tmp_path / "images"), tmp_path / "pack.arrow")
    assert not pack.labelled
    assert (pack.class_names, pack.class_of(3)) == ([], "")
    assert (pack.labels == -1).all()
    assert (len(pack), len(pack.rows("train")), len(pack.rows("test"))) == (60, 30, 30)


def test_the_validating_images_are_those_of_the_highest_positions(tmp_path: Path) -> None:
    pack = packed(made_folder(tmp_path / "images"), tmp_path / "pack.arrow")
    fit, validating = validation_split(pack, 0.4)
    assert (len(fit), len(validating)) == (18, 12)
    assert set(fit) | set(validating) == set(pack.rows("train"))
    lower, upper = ([pack.positions[pack.names[row]] for row in part] for part in (fit, validating))
    assert max(lower) < min(upper)
    assert [len(part) for part in validation_split(pack, 0)] == [30, 0]
    with pytest.raises(ValueError, match="11 of 30 training images would validate, and 12 are the"):
        validation_split(pack, 11 / 30)


def record(name: str, class_name: str, split: str, encoded: bytes) -> ImageRecord:
    return ImageRecord(name, class_name, split, encoded, 64, 48)  # type: ignore[arg-type]


def test_a_pack_of_which_some_images_have_classes_is_refused(tmp_path: Path) -> None:
    images = [record("a", "x", "train", b""), record("b", "", "test", b"")]
    with pytest.raises(ValueError, match="some images have a class and others have none"):
        write_pack(tmp_path / "pack.arrow", images)
    assert not (tmp_path / "pack.arrow").exists()


def test_near_duplicates_are_those_of_the_other_split(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    same, other = (made.encode_picture(seed) for seed in generator.integers(0, 99, 2).tolist())
    images = [
        record("train", "", "train", same),
        record("train twice", "", "train", same),
        record("test", "", "test", same),
        record("test alone", "", "test", other),
        record("test alone twice", "", "test", other),
    ]
    write_pack(tmp_path / "pack.arrow", images)
    assert find_duplicates(open_pack(tmp_path / "pack.arrow")) == {0: 2, 1: 2, 2: 0}


def test_so_few_test_images_are_left_that_none_has_ten_others(tmp_path: Path) -> None:
    pack = packed(made_folder(tmp_path / "images", 24), tmp_path / "pack.arrow")
    assert too_few(pack, pack.rows("test")) is None
    assert too_few(pack, pack.rows("test")[1:]) == "11 test images, and 12 are the least"


def test_copies_validate_together_or_not_at_all(tmp_path: Path) -> None:
    root = made_folder(tmp_path / "images", 80)
    for number in range(1, 80, 2):
        (root / f"copy of {number}.jpg").write_bytes((root / f"{number}.jpg").read_bytes())
    pack = packed(root, tmp_path / "pack.arrow")
    fitting, validating = (
        {pack.encoded(int(row)) for row in rows} for rows in validation_split(pack, 0.3)
    )
    assert len(validating) > 12
    assert not fitting & validating
