"""Which split each class of the user's own images is in: settled at its first use, then kept.

The record `splits/NAME.json` outlives the stages' outputs and is the user's to keep under version
control; the stage hash_inputs alone writes it.
"""

import hashlib
import json
import unicodedata
from collections import Counter
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
from pipeline.files import write_json
from pipeline.paths import DatasetPaths

OWN_KINDS = ("folder", "csv")
NO_CLASSES: Mapping[str, "ClassSplit"] = {}


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
    moved: Mapping[str, ClassSplit] = NO_CLASSES,
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
    moved: Mapping[str, ClassSplit] = NO_CLASSES,
) -> DatasetReader:
    """The reader with the splits and positions of `assign_classes`.

    Raises DatasetError where no class is left for one of the splits.
    """
    given = {i.class_name: i.split if reader.splits_given else None for i in reader.images}
    classes = assign_classes(given, known, moved)
    images = [replace(image, split=classes[image.class_name].split) for image in reader.images]
    check_split(source, images)
    return replace(
        reader,
        images=tuple(images),
        positions={name: one.position for name, one in classes.items()},
    )


def settle_images(
    source: str,
    reader: DatasetReader,
    images: Sequence[dict[str, Any]],
    known: Mapping[str, ClassSplit],
) -> tuple[dict[str, Any], dict[str, ClassSplit], list[str]]:
    """What images are, held against what was trained on before: manifest, record, lines to tell.

    images: name, class and SHA-256 of each image of the reader, in its order. In the manifest
    they have their split; a test image that was trained on, or trains in another class, has the
    key `trained_as`: it takes no part. A new class with images that were trained on trains.

    Raises DatasetError where no class, or no image, is left for one of the splits.
    """
    moved, lines = _moved_classes(images, {} if reader.splits_given else known, known)
    reader = assign_reader(source, reader, known, moved)
    manifest = [
        {**entry, "split": image.split} for entry, image in zip(images, reader.images, strict=True)
    ]
    record = _recorded(reader, manifest, known)
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
    return {"images": manifest, "positions": dict(reader.positions)}, record, lines


def manifest_classes(manifest: Mapping[str, Any]) -> dict[str, ClassSplit]:
    """The classes of a manifest by key, as `read_record` gives them.

    One without positions was written before there was a record: its last training classes
    validated. Of names with one key and two splits the training one counts.
    """
    images = manifest.get("images", [])
    ordered = sorted(images, key=lambda entry: entry["split"] == "test")  # stable: training first
    splits: dict[str, Split] = {}
    trained: dict[str, list[str]] = {}
    for entry in ordered:
        key = class_key(entry["class_name"])
        splits.setdefault(key, entry["split"])
        if entry["split"] == "train" and "sha256" in entry:
            trained.setdefault(key, []).append(entry["sha256"])
    positions = {class_key(name): at for name, at in manifest.get("positions", {}).items()}
    return known_before(splits, positions, trained)


def known_before(
    splits: Mapping[str, Split],
    positions: Mapping[str, float],
    trained: Mapping[str, Iterable[str]],
) -> dict[str, ClassSplit]:
    """Classes of an earlier study by key; without positions, in the order of `splits`."""
    spaced = spaced_positions([key for key, split in splits.items() if split == "train"])
    return {
        key: ClassSplit(
            split=split,
            position=positions.get(key, spaced.get(key, _hashes(key)[1])),
            trained=tuple(sorted(set(trained.get(key, ())))),
        )
        for key, split in splits.items()
    }


def known_classes(paths: DatasetPaths, *, contents: bool = True) -> dict[str, ClassSplit]:
    """The classes whose splits are settled, by key: from the record and from the last manifest.

    Without a record, as in a workspace that is older than records or in a fresh clone, the pack
    counts first: its training classes are what the networks know.

    contents: with the images that were trained on, for which such a pack is read whole.
    """
    recorded = read_record(paths.splits)
    if not recorded and paths.pack.exists() and _read(paths.pack_summary).get("kind") in OWN_KINDS:
        recorded = _pack_classes(open_pack(paths.pack), contents=contents)
    return merged(recorded, manifest_classes(_read(paths.given)))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _pack_classes(pack: Pack, *, contents: bool) -> dict[str, ClassSplit]:
    """The classes of a pack by key. Images are known by content that lie in it as they were."""
    keys = [class_key(name) for name in pack.class_names]
    trained: dict[str, list[str]] = {}
    splits: dict[str, Split] = dict.fromkeys(keys, "test")
    for row in pack.rows("train").tolist():
        key = keys[pack.labels[row]]
        splits[key] = "train"
        if contents:
            trained.setdefault(key, []).append(hashlib.sha256(pack.encoded(row)).hexdigest())
    return known_before(
        splits, {class_key(name): at for name, at in pack.positions.items()}, trained
    )


def merged(
    first: Mapping[str, ClassSplit], second: Mapping[str, ClassSplit]
) -> dict[str, ClassSplit]:
    """All classes of both; the first decides on a class of both, whose trained images add up."""
    both = {
        key: first[key].model_copy(
            update={"trained": tuple(sorted({*first[key].trained, *second[key].trained}))}
        )
        for key in first.keys() & second.keys()
    }
    return {**second, **first, **both}


def _hashes(key: str) -> tuple[float, float]:
    """Two numbers in [0, 1) of a class: one for its split, one for its position."""
    digest = hashlib.sha256(key.encode()).digest()
    split, position = (int.from_bytes(part) / 2**48 for part in (digest[:6], digest[6:12]))
    return split, position


def _moved_classes(
    images: Iterable[Mapping[str, Any]],
    origins: Mapping[str, ClassSplit],
    known: Mapping[str, ClassSplit],
) -> tuple[dict[str, ClassSplit], list[str]]:
    """New classes with images of known training classes: they train, at the place of the origin
    of most of these images.
    """
    classes_of: dict[str, list[str]] = {}
    for key in sorted(origins):
        for content in origins[key].trained:
            classes_of.setdefault(content, []).append(key)
    found: dict[str, Counter[str]] = {}
    for entry in images:
        key = class_key(entry["class_name"])
        if key not in known and entry.get("sha256") in classes_of:
            found.setdefault(key, Counter()).update(classes_of[entry["sha256"]])
    moved, lines = {}, []
    for key, counts in found.items():
        origin, count = counts.most_common(1)[0]
        moved[key] = ClassSplit(split="train", position=known[origin].position)
        lines.append(
            f"the new class {key} trains: {count} of its images were trained on ({origin})"
        )
    return moved, lines


def _recorded(
    reader: DatasetReader, manifest: Iterable[Mapping[str, Any]], known: Mapping[str, ClassSplit]
) -> dict[str, ClassSplit]:
    """The known classes, and those of the reader with the images that train now."""
    now = manifest_classes({"images": manifest, "positions": reader.positions})
    return merged(now, known)
