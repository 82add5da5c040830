"""The user's own images: a manifest of what they were, and reading that holds them to it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data.layout_user import list_csv, list_folder
from pipeline.data.listings import LayoutError, Listing, enumerate_names
from pipeline.data.normalisation import UnreadableImage


def list_own_images(folder: Path, table: str | None) -> Listing:
    """The images of `folder`, by its sub-folders or by the CSV file `table` in it.

    Raises LayoutError; also for a CSV file that names images outside of the folder, because their
    changes would go unnoticed.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder}: is not a folder")
    if table is None:
        return list_folder(folder)
    listing = list_csv(folder / table)
    outside = [image.name for image in listing.images if not _is_below(image.name)]
    if outside:
        raise LayoutError(
            f"{folder / table}: names files outside of {folder}: {enumerate_names(outside)}"
        )
    return listing


def image_manifest(listing: Listing) -> list[dict[str, Any]]:
    """For each image its name, class, split, size and SHA-256; of one that is unreadable, why."""
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

    Raises LayoutError at once where names, classes or splits differ, later for a changed content.
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

    return replace(listing, read=read)


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and not os.path.normpath(name).startswith("..")
