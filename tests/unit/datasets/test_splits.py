"""The rule by which a class of the user's own images trains, validates or is for testing."""

import hashlib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.packs import validating_units
from pipeline.datasets.reader import DatasetError, DatasetReader, ListedImage
from pipeline.datasets.splits import (
    ClassSplit,
    assign_classes,
    manifest_classes,
    merged,
    read_record,
    settle_images,
    spaced_positions,
    write_record,
)

OLD = [f"m{number:02d}" for number in range(8)]
NEW = [f"a{number:02d}" for number in range(6)]
Known = dict[str, ClassSplit]


def assigned(names: list[str], known: Mapping[str, ClassSplit]) -> Known:
    return assign_classes(dict.fromkeys(names), known, {})


def hashed(name: str) -> tuple[float, float]:
    """The two numbers of a name, restated: 48 bits each of its SHA-256, as fractions."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return int(digits[:12], 16) / 16**12, int(digits[12:24], 16) / 16**12


def test_at_first_half_of_the_classes_train_in_the_order_of_their_hashes() -> None:
    for names in (OLD, OLD[:7], NEW, ["2024-01", "2024-02", "2025-01", "2025-02"]):
        by_hash = sorted(names, key=lambda name: hashed(name)[0])
        half = (len(names) + 1) // 2
        found = assigned(names, {})
        assert {n for n, one in found.items() if one.split == "train"} == set(by_hash[:half])
        assert assigned(list(reversed(names)), {}) == found
        spaced = sorted(one.position for one in found.values() if one.split == "train")
        assert spaced == [(place + 0.5) / half for place in range(half)]


@pytest.mark.parametrize("added", [NEW, ["zz", "m03b"], [*NEW, "m99"]])
def test_new_classes_are_assigned_by_hash_and_old_ones_stay(added: list[str]) -> None:
    known = assigned(OLD, {})
    found = assigned(sorted([*OLD, *added]), known)
    assert {name: found[name] for name in OLD} == known
    for name in added:
        split, position = hashed(name)
        assert found[name].split == ("train" if split < 0.5 else "test")
        assert found[name].position == position


def test_new_classes_come_to_both_sides() -> None:
    found = assigned([*OLD, *NEW], assigned(OLD, {}))
    assert {name for name in NEW if found[name].split == "train"} == {"a00", "a05"}
    many = [f"class {number}" for number in range(2000)]
    found = assigned([*OLD, *many], assigned(OLD, {}))
    train = [found[name].position for name in many if found[name].split == "train"]
    assert 930 < len(train) < 1070  # 1000, standard deviation 22
    assert 0.15 < sum(position > 0.8 for position in train) / len(train) < 0.25


def test_the_order_of_additions_does_not_matter() -> None:
    known = assigned(OLD, {})
    one = assigned([*OLD, *NEW[:2]], known)
    two = assigned([*OLD, *NEW], merged(one, known))
    assert two == assigned([*OLD, *NEW], known)


def test_a_class_that_was_removed_comes_back_as_it_was() -> None:
    known = assigned(OLD, {})
    for name in OLD:
        assert assigned([n for n in OLD if n != name] + NEW, known).keys() == {*OLD, *NEW} - {name}
        assert assigned([name], known) == {name: known[name]}


def test_a_folder_without_a_known_class_starts_with_halves() -> None:
    found = assigned(NEW, assigned(OLD, {}))
    assert found == assigned(NEW, {})
    assert [one.split for one in found.values()].count("train") == 3


def test_one_name_in_two_normal_forms_is_one_class() -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    known = assigned([composed, "b", "c", "d"], {})
    assert assigned([decomposed], known)[decomposed] == known[composed]
    both = assigned([composed, decomposed, "b", "c"], {})
    assert both[composed] == both[decomposed]


def test_the_tables_split_holds() -> None:
    given = {name: "test" if name < "m04" else "train" for name in OLD}
    found = assign_classes(given, assigned(OLD, {}), {})  # type: ignore[arg-type]
    assert {name: one.split for name, one in found.items()} == given
    first = assign_classes(given, {}, {})  # type: ignore[arg-type]
    assert {name: one.split for name, one in first.items()} == given
    assert sorted(first[n].position for n in OLD if n >= "m04") == [0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize("count", [4, 8, 10, 15, 60])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.34, 0.5])
def test_the_share_of_validation_is_exact_at_first(count: int, share: float) -> None:
    names = [f"{number}" for number in range(count)]
    found, _ = validating_units(names, spaced_positions(names), share)
    assert found == names[count - len(found) :]
    assert abs(len(found) - share * count) <= 0.5


def test_what_validates_does_not_depend_on_other_classes() -> None:
    known = assigned(OLD, {})
    now = assigned([*NEW, *OLD], known)
    for share in (0.2, 0.25, 0.5):
        before, after = (
            validating_units(
                [n for n in found if found[n].split == "train"],
                {n: one.position for n, one in found.items()},
                share,
            )[0]
            for found in (known, now)
        )
        assert [name for name in after if name in OLD] == before != []


def made_listing(classes: Mapping[str, list[str]]) -> tuple[DatasetReader, list[dict[str, Any]]]:
    """A reader whose images are the given contents, and their manifest."""
    images = [
        ListedImage(f"{name}/{place}.jpg", name, 1)
        for name, contents in classes.items()
        for place, _ in enumerate(contents)
    ]
    contents = [content for of_class in classes.values() for content in of_class]
    manifest = [
        {"name": image.name, "class_name": image.class_name, "sha256": content}
        for image, content in zip(images, contents, strict=True)
    ]
    return DatasetReader(tuple(images), lambda _: b""), manifest


def settled(
    classes: Mapping[str, list[str]], known: Known | None = None
) -> tuple[dict[str, Any], Known, list[str]]:
    return settle_images("images", *made_listing(classes), known or {})


def contents(names: list[str]) -> dict[str, list[str]]:
    return {name: [f"{name}-{place}" for place in range(3)] for name in names}


def split_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {entry["class_name"]: entry["split"] for entry in manifest["images"]}


def test_the_record_knows_the_training_images_and_settling_again_changes_nothing() -> None:
    manifest, record, lines = settled(contents(OLD))
    assert lines == []
    for name in OLD:
        trains = split_of(manifest)[name] == "train"
        assert record[name].trained == (tuple(contents([name])[name]) if trains else ())
    assert settled(contents(OLD), record) == (manifest, record, [])


def test_a_renamed_training_class_trains_at_its_place() -> None:
    _, record, _ = settled(contents(OLD))
    for old in OLD:
        renamed = {**contents([name for name in OLD if name != old]), "b": contents([old])[old]}
        manifest, after, lines = settled(renamed, record)
        if record[old].split == "train":
            assert after["b"].split == "train"
            assert after["b"].position == record[old].position == manifest["positions"]["b"]
            assert lines == [f"the new class b trains: 3 of its images were trained on ({old})"]
        else:
            assert lines == []
        assert after[old] == record[old]  # which is gone, and would come back as it was


def test_one_known_image_makes_a_new_class_train() -> None:
    _, record, _ = settled(contents(OLD))
    assert assigned([*OLD, "a01"], record)["a01"].split == "test"
    classes = {**contents(OLD), "a01": ["x", "m01-0", "y"]}
    manifest, _, lines = settled(classes, record)
    assert split_of(manifest)["a01"] == "train"
    assert lines == ["the new class a01 trains: 1 of its images were trained on (m01)"]


def test_a_training_image_in_a_test_class_is_kept_out_and_told() -> None:
    _, record, _ = settled(contents(OLD))
    classes = contents(OLD)
    classes["m00"].append(classes["m01"].pop())
    manifest, after, lines = settled(classes, record)
    assert split_of(manifest) == {name: record[name].split for name in OLD}
    kept_out = {e["name"]: e["trained_as"] for e in manifest["images"] if "trained_as" in e}
    assert kept_out == {"m00/3.jpg": "m01"}
    assert lines == ["1 test images are training images, and are kept out: m00/3.jpg (in m01)"]
    assert "m01-2" in after["m01"].trained
    assert settled(classes, after) == (manifest, after, lines)


def test_the_same_image_on_both_sides_at_first_use_is_kept_out() -> None:
    classes = contents(OLD)
    classes["m00"][0] = classes["m01"][0]
    manifest, _, lines = settled(classes)
    assert [e["name"] for e in manifest["images"] if "trained_as" in e] == ["m00/0.jpg"]
    assert len(lines) == 1


def test_a_test_without_an_image_of_its_own_is_refused() -> None:
    _, record, _ = settled({"c": ["1"], "d": ["2"], "a": ["3"], "b": ["4"]})
    with pytest.raises(DatasetError, match=r"no image is left for test .* a/0\.jpg \(in c\), b/0"):
        settled({"a": ["1"], "b": ["2"], "c": ["5"], "d": ["6"]}, record)


def test_a_manifest_from_before_the_record_keeps_splits_and_validation() -> None:
    """The first half by name trained, and the last of them validated."""
    images = [
        {"name": f"{c}/1.jpg", "class_name": c, "split": "train" if c < "m04" else "test"}
        | {"sha256": c}
        for c in OLD
    ]
    known = manifest_classes({"images": images, "passed_over": []})
    assert [name for name in OLD if known[name].split == "train"] == OLD[:4]
    positions = {name: one.position for name, one in known.items()}
    assert validating_units(OLD[:4], positions, 0.5)[0] == ["m02", "m03"]
    assert known["m00"].trained == ("m00",)
    assert known["m04"].trained == ()
    assert manifest_classes({"files": []}) == {}


def test_a_record_comes_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "splits" / "own.json"
    assert read_record(path) == {}
    _, record, _ = settled(contents(OLD))
    write_record(path, record)
    assert read_record(path) == record
    for text in ("", "<<<<<<< HEAD\n{}", '{"format": 2, "classes": {}}', '{"classes": {}}'):
        path.write_text(text)
        with pytest.raises(DatasetError, match=r"own\.json: is not a record of splits"):
            read_record(path)


def test_two_records_add_up_and_the_first_decides() -> None:
    one = {"a": ClassSplit(split="train", position=0.5, trained=("x", "z"))}
    two = {
        "a": ClassSplit(split="test", position=0.1, trained=("y",)),
        "b": ClassSplit(split="test", position=0.2),
    }
    both = merged(one, two)
    assert both["a"] == ClassSplit(split="train", position=0.5, trained=("x", "y", "z"))
    assert both["b"] == two["b"]
