"""The user's own images: a manifest of what they were, and reading that holds them to it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.layout_user import list_csv, list_folder
from pipeline.datasets.listings import LayoutError, Listing, enumerate_names
from pipeline.datasets.packs import Pack, open_pack
from pipeline.datasets.records import Split
from pipeline.datasets.splits import (
    NO_CLASSES,
    ClassSplit,
    class_key,
    known_before,
    manifest_classes,
    merged,
    read_record,
)
from pipeline.paths import DatasetPaths

OWN_KINDS = ("folder", "csv")


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
    """The classes of a pack by key. JPEG files that were not shrunk lie in it as they were, and are known."""
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


def list_own_images(
    folder: Path, table: str | None, known: Mapping[str, ClassSplit] = NO_CLASSES
) -> Listing:
    """The images of `folder`, by its sub-folders or by the CSV file `table` in it.

    known: the classes whose splits are settled.

    Raises LayoutError; also for a CSV file that names images outside of the folder, because their
    changes would go unnoticed.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder}: is not a folder")
    if table is None:
        return list_folder(folder, known)
    listing = list_csv(folder / table, known)
    outside = [image.name for image in listing.images if not _is_below(image.name)]
    if outside:
        raise LayoutError(
            f"{folder / table}: names files outside of {folder}: {enumerate_names(outside)}"
        )
    return listing


def image_manifest(listing: Listing) -> list[dict[str, Any]]:
    """For each image its name, class, split, size and SHA-256; of one that is unreadable, why.

    The splits are those of the listing; `splits.settle_images` has the last word.
    """
    manifest = []
    for image in listing.images:
        entry: dict[str, Any] = vars(image).copy()
        try:
            content = listing.read(image.name)
        except UnreadableImage as failure:
            entry["unreadable"] = failure.reason
        else:
            entry["size_bytes"] = len(content)
            entry["sha256"] = hashlib.sha256(content).hexdigest()
        manifest.append(entry)
    return manifest


def hold_to_manifest(listing: Listing, manifest: Sequence[Mapping[str, Any]]) -> Listing:
    """The listing, whose reading refuses images that are not those of the manifest any more.

    Images that the manifest keeps out are not in it. Raises LayoutError at once where names,
    classes or splits differ, later for a changed content.
    """
    noted = {entry["name"]: entry for entry in manifest}
    identities = [(entry["name"], entry["class_name"], entry["split"]) for entry in manifest]
    if identities != [(i.name, i.class_name, i.split) for i in listing.images]:
        raise LayoutError("the images have changed while the stages ran: run the study again")

    def read(name: str) -> bytes:
        content = listing.read(name)
        if hashlib.sha256(content).hexdigest() != noted[name].get("sha256"):
            raise LayoutError(f"{name}: has changed while the stages ran: run the study again")
        return content

    images = tuple(i for i in listing.images if "trained_as" not in noted[i.name])
    return replace(listing, images=images, read=read)


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and not os.path.normpath(name).startswith("..")
