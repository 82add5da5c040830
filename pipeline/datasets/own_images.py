"""The user's own images: a folder with one sub-folder a class, or a CSV file of paths.

A manifest says what they were, and reading is held to it.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.reader import (
    DatasetError,
    DatasetReader,
    Row,
    Split,
    build_reader,
    enumerate_names,
    is_image_name,
    natural_key,
)
from pipeline.datasets.splits import NO_CLASSES, ClassSplit, assign_reader

_SPLITS: Mapping[str, Split] = {"train": "train", "test": "test"}


def list_own_images(
    folder: Path, table: str | None, known: Mapping[str, ClassSplit] = NO_CLASSES
) -> DatasetReader:
    """The images of `folder`, by its sub-folders or by the CSV file `table` in it.

    known: the classes whose splits are settled.

    Raises DatasetError; also for a CSV file that names images outside of the folder, because their
    changes would go unnoticed.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is not a folder")
    if table is None:
        return list_folder(folder, known)
    reader = list_csv(folder / table, known)
    outside = [image.name for image in reader.images if not _is_below(image.name)]
    if outside:
        raise DatasetError(
            f"{folder / table}: names files outside of {folder}: {enumerate_names(outside)}"
        )
    return reader


def image_manifest(reader: DatasetReader) -> list[dict[str, Any]]:
    """For each image its name, class, split, size and SHA-256; of one that is unreadable, why.

    The splits are the reader's; `splits.settle_images` has the last word.
    """
    manifest = []
    for image in reader.images:
        entry: dict[str, Any] = vars(image).copy()
        try:
            content = reader.read(image.name)
        except UnreadableImage as failure:
            entry["unreadable"] = failure.reason
        else:
            entry["size_bytes"] = len(content)
            entry["sha256"] = hashlib.sha256(content).hexdigest()
        manifest.append(entry)
    return manifest


def hold_to_manifest(reader: DatasetReader, manifest: Sequence[Mapping[str, Any]]) -> DatasetReader:
    """The reader, whose reading refuses images that are not those of the manifest any more.

    Images that the manifest keeps out are not in it. Raises DatasetError at once where names,
    classes or splits differ, later for a changed content.
    """
    noted = {entry["name"]: entry for entry in manifest}
    identities = [(entry["name"], entry["class_name"], entry["split"]) for entry in manifest]
    if identities != [(i.name, i.class_name, i.split) for i in reader.images]:
        raise DatasetError("the images have changed while the stages ran: run the study again")

    def read(name: str) -> bytes:
        content = reader.read(name)
        if hashlib.sha256(content).hexdigest() != noted[name].get("sha256"):
            raise DatasetError(f"{name}: has changed while the stages ran: run the study again")
        return content

    images = tuple(i for i in reader.images if "trained_as" not in noted[i.name])
    return replace(reader, images=images, read=read)


def list_folder(root: Path, known: Mapping[str, ClassSplit] = NO_CLASSES) -> DatasetReader:
    """The images of `root/CLASS/FILE` in natural order, split by `splits.assign_classes`.

    Names are `CLASS/FILE`. Hidden files and folders are ignored; files that are no images by their
    names, and files beside the class folders, are passed over and counted. known: the classes whose
    splits are settled.

    Raises DatasetError: no folder, a class folder without images, a folder inside a class folder, a
    pipe or a device with the name of an image, a name that is not UTF-8.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder")
    rows: list[Row] = []
    passed_over: list[str] = []
    class_number = 0
    for entry in _visible(root):
        if not entry.is_dir():
            passed_over.append(entry.name)
            continue
        class_number += 1
        names, others = _class_files(entry)
        _check_regular(entry, entry, names)
        rows += [Row(f"{entry.name}/{name}", entry.name, class_number) for name in names]
        passed_over += [f"{entry.name}/{name}" for name in others]
    if not rows:
        raise DatasetError(
            f"{root}: holds no class: each class is a sub-folder with its images; "
            f"{len(passed_over)} files lie beside"
        )
    reader = build_reader(str(root), rows, _file_reader(root), passed_over=tuple(passed_over))
    return assign_reader(str(root), reader, known)


def list_csv(table: Path, known: Mapping[str, ClassSplit] = NO_CLASSES) -> DatasetReader:
    """The images of a CSV file with the columns `path`, `class` and, if wanted, `split`.

    Order is the file's, and classes are ordered by their first line. Paths are relative to the
    file's folder, or absolute. `split` is train or test, the same for every image of a class;
    without the column `splits.assign_classes` splits, as it does a folder.

    Raises DatasetError that names the line, or the files that are missing, no regular files, or
    listed under several names.
    """
    if not table.is_file():
        raise DatasetError(f"{table}: is not a file")
    rows: list[Row] = []
    class_numbers: dict[str, int] = {}
    for line, cells in _read_csv(table):
        path, class_name = (cells.get("path") or "").strip(), (cells.get("class") or "").strip()
        if not path or not class_name:
            raise DatasetError(f"{table}, line {line}: path and class must not be empty")
        number = class_numbers.setdefault(class_name, len(class_numbers) + 1)
        rows.append(Row(path, class_name, number, split=_split(table, line, cells)))
    missing = [row.name for row in rows if not (table.parent / row.name).exists()]
    if missing:
        raise DatasetError(f"{table}: {len(missing)} files are missing: {enumerate_names(missing)}")
    _check_regular(table, table.parent, [row.name for row in rows])
    _check_one_name(table, [row.name for row in rows])
    reader = build_reader(str(table), rows, _file_reader(table.parent))
    given = any(row.split is not None for row in rows)
    return assign_reader(str(table), replace(reader, splits_given=given), known)


def _visible(folder: Path) -> list[Path]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    undecoded = [ascii(entry.name) for entry in entries if not _is_text(entry.name)]
    if undecoded:
        reason = f"holds names that are not UTF-8: {enumerate_names(sorted(undecoded))}"
        raise DatasetError(f"{folder}: {reason}: rename them")
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _is_text(name: str) -> bool:
    """Whether the name is text: Python stands for a byte that is none with a lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _class_files(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the images in a class folder, and of the files that are no images."""
    entries = _visible(folder)
    nested = [entry.name for entry in entries if entry.is_dir()]
    if nested:
        reason = f"holds folders ({enumerate_names(nested)}): one sub-folder a class, no deeper"
        raise DatasetError(f"{folder}: {reason}")
    names = [entry.name for entry in entries if is_image_name(entry.name)]
    if not names:
        raise DatasetError(f"{folder}: is a class without images: fill it or remove it")
    return names, [entry.name for entry in entries if not is_image_name(entry.name)]


def _check_regular(place: Path, folder: Path, names: list[str]) -> None:
    """Raises DatasetError for what is no regular file: a pipe blocks, a device may never end.

    A link that leads nowhere is left to the reader, for which it is an unreadable image.
    """
    odd = [n for n in names if (folder / n).exists() and not (folder / n).is_file()]
    if odd:
        reason = "are no regular files, but folders, pipes or devices"
        raise DatasetError(f"{place}: {len(odd)} images {reason}: {enumerate_names(odd)}")


def _check_one_name(table: Path, names: list[str]) -> None:
    """Raises DatasetError where a file is listed twice, such as `a.jpg` and `./a.jpg`."""
    names_of: dict[str, list[str]] = {}
    for name in names:
        names_of.setdefault(os.path.realpath(table.parent / name), []).append(name)
    twice = [" = ".join(same) for same in names_of.values() if len(set(same)) > 1]
    if twice:
        raise DatasetError(f"{table}: files listed under several names: {enumerate_names(twice)}")


def _file_reader(root: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise UnreadableImage(name, f"cannot be read: {error.strerror}") from error

    return read


def _read_csv(table: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The lines below the header, each with its number."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            lines = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: is not a UTF-8 CSV file: {error}") from error
    if not {"path", "class"} <= set(columns):
        found = ", ".join(columns) or "nothing"
        raise DatasetError(
            f"{table}: the first line must name path, class (and split), not {found}"
        )
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise DatasetError(f"{table}: the first line names {enumerate_names(twice)} more than once")
    surplus = [line for line, cells in lines if None in cells]
    if surplus:
        raise DatasetError(f"{table}, line {surplus[0]}: has more columns than the first line")
    return lines


def _split(table: Path, line: int, cells: dict[str, str | None]) -> Split | None:
    if "split" not in cells:
        return None
    word = (cells["split"] or "").strip().lower()
    if word not in _SPLITS:
        raise DatasetError(f"{table}, line {line}: split is {word!r}, must be train or test")
    return _SPLITS[word]


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and not os.path.normpath(name).startswith("..")
