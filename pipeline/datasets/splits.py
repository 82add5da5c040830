"""Which split each class of the user's own images is in: settled at its first use, then kept.

Without classes each image is split by itself: what is said of a class here is said of an image.

The record `splits/NAME.json` outlives the stages' outputs and is the user's to keep under version
control; the stage hash_inputs alone writes it.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.datasets.packs import Pack, open_pack
from pipeline.datasets.reader import (
    DatasetError,
    DatasetReader,
    Split,
    check_split,
    enumerate_names,
)
from pipeline.files import read_json, write_json
from pipeline.paths import DatasetPaths


class ClassSplit(BaseModel):
    """Where a class belongs.

    position: in [0, 1); of the training classes those in the highest `validation_share` validate.
    trained: SHA-256 of every image that was ever listed in this class while it trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split
    position: Annotated[float, Field(ge=0, lt=1)]
    trained: tuple[str, ...] = ()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    classes: dict[str, ClassSplit]


def class_key(name: str) -> str:
    """What a class is recorded under: its name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def read_record(path: Path) -> dict[str, ClassSplit]:
    """The recorded classes by key; none where no record was written yet.

    Raises DatasetError for a file that is no such record.
    """
    if not path.exists():
        return {}
    try:
        return _Record.model_validate_json(path.read_bytes()).classes
    except ValidationError as error:
        raise DatasetError(
            f"{path}: is not a record of splits ({error.errors()[0]['msg']}): "
            "bring it back from version control"
        ) from error


def write_record(path: Path, classes: Mapping[str, ClassSplit]) -> None:
    """Replace the record; equal classes are equal bytes."""
    write_json(path, _Record(format=1, classes=dict(classes)).model_dump())


def spaced_positions(classes: Sequence[str]) -> dict[str, float]:
    """Positions (i + 0.5) / n for n classes in order, so that a share of them is exact."""
    return {name: (place + 0.5) / len(classes) for place, name in enumerate(classes)}


def assign_classes(
    given: Mapping[str, Split | None],
    known: Mapping[str, ClassSplit],
    moved: Mapping[str, ClassSplit],
) -> dict[str, ClassSplit]:
    """The split and the position of each class, by its name.

    A known class stays what it is, and a split that the user gives holds. A new class trains where
    the hash of its name lies in the lower half, and has a position by hash. Where no class is known
    by name, half of them train, in the order of their hashes (of an odd count the middle one too),
    and the positions of the training classes are evenly spaced.

    given: the classes present, with the split that their table gives, or None. known: recorded
    classes by key. moved: new classes, by key, that hold images of known training classes.
    """
    asked = {class_key(name): split for name, split in given.items()}
    is_first_use = not asked.keys() & known.keys()
    settled = {**moved, **known}
    new = sorted(asked.keys() - settled.keys(), key=lambda key: _hashes(key)[0])
    free = [key for key in new if asked[key] is None]
    training = set(free[: (len(free) + 1) // 2])
    if not is_first_use:
        training = {key for key in free if _hashes(key)[0] < 0.5}
    training |= {key for key in new if asked[key] == "train"}
    positions = {key: _hashes(key)[1] for key in new}
    if is_first_use:
        positions |= spaced_positions(sorted(training, key=lambda key: positions[key]))
    settled |= {
        key: ClassSplit(split="train" if key in training else "test", position=positions[key])
        for key in new
    }
    return {
        name: settled[class_key(name)].model_copy(update={"split": split} if split else {})
        for name, split in given.items()
    }


def assign_reader(
    source: str,
    reader: DatasetReader,
    known: Mapping[str, ClassSplit],
    moved: Mapping[str, ClassSplit],
) -> DatasetReader:
    """The reader with the splits and positions of `assign_classes`.

    Raises DatasetError where no class is left for one of the splits.
    """
    given = {image.unit: image.split for image in reader.images}
    classes = assign_classes(given, known, moved)
    images = [replace(image, split=classes[image.unit].split) for image in reader.images]
    check_split(source, images)
    positions = {name: one.position for name, one in classes.items()}
    return replace(reader, images=tuple(images), positions=positions)


def settle_images(
    source: str,
    reader: DatasetReader,
    images: Sequence[dict[str, Any]],
    known: Mapping[str, ClassSplit],
) -> tuple[dict[str, Any], dict[str, ClassSplit], list[str]]:
    """What images are, held against what was trained on before: manifest, record, lines to tell.

    images: name, class and SHA-256 of each image of the reader, in its order. In the manifest
    they have their split; a test image that was trained on, or trains in another class, has the
    key `trained_as`: it takes no part. A new class with images that were trained on trains. New
    images without classes that are the same validate together, or none of them does.

    Raises DatasetError where no class, or no image, is left for one of the splits.
    """
    splits_given = any(image.split for image in reader.images)
    origins = {} if splits_given else _origins(images, known)
    moved = {
        key: ClassSplit(split="train", position=known[origin].position)
        for key, (origin, _) in origins.items()
    }
    if reader.images[0].class_name:
        lines = [
            f"the new class {key} trains: {count} of its images were trained on ({origin})"
            for key, (origin, count) in origins.items()
        ]
    else:
        renamed = enumerate_names(f"{key} (as {origin})" for key, (origin, _) in origins.items())
        lines = [f"{len(origins)} new images train, as they did: {renamed}"] if origins else []
    reader = _copies_together(assign_reader(source, reader, known, moved), images, known)
    manifest = [
        {**entry, "split": image.split} for entry, image in zip(images, reader.images, strict=True)
    ]
    settled = {"images": manifest, "positions": dict(reader.positions)}
    record = merged(manifest_classes(settled), known)
    trained_as = {content: key for key in sorted(record) for content in record[key].trained}
    for entry in manifest:
        if entry["split"] == "test" and entry.get("sha256") in trained_as:
            entry["trained_as"] = trained_as[entry["sha256"]]
    kept_out = [entry for entry in manifest if "trained_as" in entry]
    if kept_out:
        named = enumerate_names(f"{entry['name']} (in {entry['trained_as']})" for entry in kept_out)
        lines.append(f"{len(kept_out)} test images are training images, and are kept out: {named}")
    if all(entry["split"] == "train" or "trained_as" in entry for entry in manifest):
        raise DatasetError(
            f"{source}: no image is left for test that was not trained on: {lines[-1]}; to start "
            "anew, give the data set another name in params.yaml"
        )
    return settled, record, lines


def _copies_together(
    reader: DatasetReader, images: Sequence[Mapping[str, Any]], known: Mapping[str, ClassSplit]
) -> DatasetReader:
    """The reader with one position for all new training images without classes that are the same:
    none validates what another of them trains.
    """
    positions, first = dict(reader.positions), dict[str, float]()
    for entry, image in zip(images, reader.images, strict=True):
        is_new = not image.class_name and _unit_key(entry) not in known
        if is_new and image.split == "train" and "sha256" in entry:
            name = image.unit
            positions[name] = first.setdefault(entry["sha256"], positions[name])
    return replace(reader, positions=positions)


def manifest_classes(manifest: Mapping[str, Any]) -> dict[str, ClassSplit]:
    """The classes of a manifest by key, as `read_record` gives them.

    One without positions was written before there was a record: its last training classes
    validated. Of names with one key and two splits the training one counts.
    """
    splits: dict[str, Split] = {}
    trained = defaultdict(set)
    images = manifest.get("images", [])
    for entry in sorted(images, key=lambda entry: entry["split"] == "test"):  # training first
        key = _unit_key(entry)
        splits.setdefault(key, entry["split"])
        if entry["split"] == "train" and "sha256" in entry:
            trained[key].add(entry["sha256"])
    spaced = spaced_positions([key for key, split in splits.items() if split == "train"])
    positions = spaced | {class_key(n): at for n, at in manifest.get("positions", {}).items()}
    return {
        key: ClassSplit(
            split=split,
            position=positions.get(key, _hashes(key)[1]),
            trained=tuple(sorted(trained[key])),
        )
        for key, split in splits.items()
    }


def known_classes(paths: DatasetPaths) -> dict[str, ClassSplit]:
    """The classes whose splits are settled, by key: from the record and from the last manifest.

    Without a record, as in a workspace that is older than records or in a fresh clone, the pack
    counts first: its training classes are what the networks know. It is then read whole, since
    images are known by their contents.
    """
    recorded = read_record(paths.splits)
    is_own = _read(paths.pack_summary).get("kind") in ("folder", "csv", "images", "table", "tars")
    if not recorded and is_own and paths.pack.exists():
        recorded = manifest_classes(_pack_manifest(open_pack(paths.pack)))
    return merged(recorded, manifest_classes(_read(paths.given)))


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _pack_manifest(pack: Pack) -> dict[str, Any]:
    """What a manifest would say of a pack; its images may have been other files before."""
    images = [
        {
            "name": pack.names[row],
            "class_name": pack.class_of(row),
            "split": "train" if pack.is_train[row] else "test",
            "sha256": hashlib.sha256(pack.encoded(row)).hexdigest(),
        }
        for row in range(len(pack))
    ]
    return {"images": images, "positions": pack.positions}


def merged(
    first: Mapping[str, ClassSplit], second: Mapping[str, ClassSplit]
) -> dict[str, ClassSplit]:
    """All classes of both; the first decides on a class of both, whose trained images add up."""
    found = {**second, **first}
    for key in first.keys() & second.keys():
        trained = {*first[key].trained, *second[key].trained}
        found[key] = first[key].model_copy(update={"trained": tuple(sorted(trained))})
    return found


def _unit_key(entry: Mapping[str, Any]) -> str:
    """What an image of a manifest is split with: the key of its class, or its own without one."""
    return class_key(entry["class_name"] or entry["name"])


def _hashes(key: str) -> tuple[float, float]:
    """Two numbers in [0, 1) of a class: one for its split, one for its position."""
    digest = hashlib.sha256(key.encode()).digest()
    split, position = (int.from_bytes(part) / 2**48 for part in (digest[:6], digest[6:12]))
    return split, position


def _origins(
    images: Iterable[Mapping[str, Any]], known: Mapping[str, ClassSplit]
) -> dict[str, tuple[str, int]]:
    """For each new class with images of known training classes: the one of most, and how many."""
    classes_of = defaultdict(list)
    for key in sorted(known):
        for content in known[key].trained:
            classes_of[content].append(key)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in images:
        key = _unit_key(entry)
        if key not in known and entry.get("sha256") in classes_of:
            found[key].update(classes_of[entry["sha256"]])
    return {key: counts.most_common(1)[0] for key, counts in found.items()}
