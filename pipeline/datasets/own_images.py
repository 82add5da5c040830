"""The user's own images: a folder with one sub-folder a class, a CSV file of paths, or any folder
of images without classes.

A manifest says what they were, and reading is held to it.
"""

import csv
import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.sources import (
    CsvSource,
    ImagesSource,
    OwnSource,
    TableSource,
    TarsSource,
)
from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.reader import (
    SPLITS,
    DatasetError,
    DatasetReader,
    ListedImage,
    Split,
    check_files,
    check_names,
    check_split,
    enumerate_names,
    is_image_name,
    is_system_name,
    natural_key,
    read_file,
)
from pipeline.datasets.tables import list_table
from pipeline.datasets.tars import list_tars
from pipeline.files import is_utf8


def list_own_images(folder: Path, source: OwnSource) -> DatasetReader:
    """The images of `folder`: by its sub-folders, by the table in it that `source` names, in its
    tar shards, or all of them without classes.

    Their splits are those that the file gives, else not settled. Raises DatasetError.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is not a folder")
    match source:
        case CsvSource():
            return list_csv(folder / source.table)
        case ImagesSource():
            return list_images(folder)
        case TableSource():
            place, reader = folder / source.table, list_table(folder / source.table, source.allow)
        case TarsSource():
            place, reader = folder, list_tars(folder)
        case _:
            return list_folder(folder)
    _check_spelling(place, reader.images)
    _check_accents(place, reader.images)
    return reader


def image_manifest(reader: DatasetReader) -> list[dict[str, Any]]:
    """For each image its name, class, size and SHA-256; of one that is unreadable, why."""
    manifest = []
    for image in reader.images:
        entry: dict[str, Any] = {"name": image.name, "class_name": image.class_name}
        try:
            content = reader.read(image.name)
            digest = hashlib.sha256(content).hexdigest()
            entry |= {"size_bytes": len(content), "sha256": digest}
        except UnreadableImage as failure:
            entry["unreadable"] = failure.reason
        manifest.append(entry)
    return manifest


def hold_to_manifest(reader: DatasetReader, manifest: Mapping[str, Any]) -> DatasetReader:
    """The reader with the splits of a manifest, whose reading refuses images that are others now.

    Images that the manifest keeps out are not in it. Raises DatasetError at once where names or
    classes differ, later for a changed content.
    """
    noted = {entry["name"]: entry for entry in manifest["images"]}
    identities = [(name, entry["class_name"]) for name, entry in noted.items()]
    if identities != [(image.name, image.class_name) for image in reader.images]:
        raise DatasetError("the images have changed while the stages ran: run the study again")

    def read(name: str) -> bytes:
        content = reader.read(name)
        if hashlib.sha256(content).hexdigest() != noted[name].get("sha256"):
            raise DatasetError(f"{name}: has changed while the stages ran: run the study again")
        return content

    images = tuple(
        replace(image, split=noted[image.name]["split"])
        for image in reader.images
        if "trained_as" not in noted[image.name]
    )
    return replace(reader, images=images, read=read, positions=manifest["positions"])


def list_folder(root: Path) -> DatasetReader:
    """The images of `root/CLASS/FILE` in natural order; names are `CLASS/FILE`.

    Hidden files and folders are ignored; those of operating systems, files that are no images by
    their names, and files beside the class folders, are passed over and counted.

    Raises DatasetError: a class folder that has no images, or is a link, whose changes DVC does not
    see; a folder inside a class folder; two classes of one name; a name that is not UTF-8.
    """
    images: list[ListedImage] = []
    entries, passed_over = _visible(root)
    beside = [entry.name for entry in entries if not entry.is_dir()]
    folders = [entry for entry in entries if entry.is_dir()]
    if links := [entry.name for entry in folders if entry.is_symlink()]:
        reason = (
            f"classes are links to folders, whose changes go unnoticed: {enumerate_names(links)}"
        )
        raise DatasetError(f"{root}: {reason}: put the folders there (`cp -al` copies no content)")
    for number, folder in enumerate(folders, start=1):
        entries, odd = _visible(folder)
        if nested := [entry.name for entry in entries if entry.is_dir()]:
            reason = f"holds folders ({enumerate_names(nested)}): one sub-folder a class, no deeper"
            raise DatasetError(f"{folder}: {reason}")
        names = [f"{folder.name}/{entry.name}" for entry in entries]
        found = [ListedImage(n, folder.name, number) for n in names if is_image_name(n)]
        if not found:
            raise DatasetError(f"{folder}: is a class without images: fill it or remove it")
        images += found
        passed_over += [name for name in names if not is_image_name(name)]
        passed_over += [f"{folder.name}/{name}" for name in odd]
    if not images:
        raise DatasetError(
            f"{root}: holds no class: each class is a sub-folder with its images; "
            f"{len(beside)} files lie beside"
        )
    _check_spelling(root, images)
    odd_names = tuple(passed_over + beside)
    return DatasetReader(tuple(images), _file_reader(root), passed_over=odd_names)


def list_images(root: Path) -> DatasetReader:
    """The images in `root` and its sub-folders, without classes, in natural order of their paths.

    Names are paths below `root`. What is ignored, passed over and refused is as in `list_folder`,
    but sub-folders may be empty, and as deep as they like.

    Raises DatasetError: no image at all; a folder that is a link; a name that is not UTF-8; two
    names that differ by the form of their accents only.
    """
    images: list[ListedImage] = []
    passed_over: list[str] = []
    waiting = [""]
    while waiting:
        below = waiting.pop()
        entries, odd = _visible(root / below)
        passed_over += [below + name for name in odd]
        folders = [entry for entry in entries if entry.is_dir()]
        if links := [below + entry.name for entry in folders if entry.is_symlink()]:
            reason = f"holds links to folders, whose changes go unnoticed: {enumerate_names(links)}"
            raise DatasetError(f"{root}: {reason}: put the folders there")
        waiting += [f"{below}{folder.name}/" for folder in reversed(folders)]
        for entry in entries:
            if entry not in folders:
                name = below + entry.name
                if is_image_name(name):
                    images.append(ListedImage(name, "", 0))
                else:
                    passed_over.append(name)
    if not images:
        raise DatasetError(f"{root}: holds no image; {len(passed_over)} other files lie there")
    _check_accents(root, images)
    return DatasetReader(tuple(images), _file_reader(root), passed_over=tuple(passed_over))


def list_csv(table: Path) -> DatasetReader:
    """The images of a CSV file with the columns `path`, `class` and, if wanted, `split`.

    Order is the file's, and classes are ordered by their first line. Paths are relative to the
    file's folder, or absolute and in it. `split` is train or test, the same for every image of a
    class. Case and blanks do not matter in the header, nor in names their normal form.

    Raises DatasetError that names the line, two classes of one name, or the files that are missing,
    or outside of the folder or behind a link, where their changes would go unnoticed.
    """
    if not table.is_file():
        raise DatasetError(f"{table}: is not a file")
    folder = Path(os.path.realpath(table.parent))
    images: list[ListedImage] = []
    class_numbers: dict[str, int] = {}
    for line, cells in _read_csv(table):
        path, class_name = (cells.get("path") or "").strip(), (cells.get("class") or "").strip()
        if not path or not class_name:
            raise DatasetError(f"{table}, line {line}: path and class must not be empty")
        number = class_numbers.setdefault(class_name, len(class_numbers) + 1)
        name = _name_on_disk(path, folder)
        images.append(ListedImage(name, class_name, number, _split(table, line, cells)))
    check_names(str(table), images)
    _check_spelling(table, images)
    check_files(table, [image.name for image in images])
    if any(image.split for image in images):
        check_split(str(table), images)
    return DatasetReader(tuple(images), _file_reader(table.parent))


def _name_on_disk(path: str, folder: Path) -> str:
    """A path of a table, relative to its resolved folder where it is absolute and in it."""
    given = Path(path)
    if given.is_absolute():
        if not given.is_relative_to(folder):
            given = Path(os.path.realpath(given.parent), given.name)
        path = str(given.relative_to(folder)) if given.is_relative_to(folder) else path
    forms = [path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]
    return next((form for form in forms if (folder / form).is_file()), path)


def _check_accents(source: Path, images: Iterable[ListedImage]) -> None:
    """Raises DatasetError for images without classes whose names differ by normal form only: they
    are split, and have vectors, by their names.
    """
    spelled = Counter(
        unicodedata.normalize("NFC", image.name) for image in images if not image.class_name
    )
    if twice := [ascii(name) for name, count in spelled.items() if count > 1]:
        reason = f"names differ by the form of their accents only: {enumerate_names(twice)}"
        raise DatasetError(f"{source}: {reason}: rename them")


def _check_spelling(source: Path, images: Iterable[ListedImage]) -> None:
    """Raises DatasetError for classes whose names differ by normal form or case only."""
    alike = defaultdict(list)
    for name in dict.fromkeys(image.class_name for image in images):
        alike[unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())].append(
            name
        )
    if twice := [" and ".join(map(ascii, names)) for names in alike.values() if len(names) > 1]:
        reason = "names of classes differ by case or by the form of their accents only"
        raise DatasetError(f"{source}: {reason}: {enumerate_names(twice)}: merge or rename them")


def _visible(folder: Path) -> tuple[list[Path], list[str]]:
    """What lies in a folder and is not hidden, and the names of what an operating system put in."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if odd := [entry.name for entry in entries if not is_utf8(entry.name)]:
        reason = f"holds names that are not UTF-8: {enumerate_names(map(ascii, sorted(odd)))}"
        raise DatasetError(f"{folder}: {reason}: rename them")
    entries.sort(key=lambda entry: natural_key(entry.name))
    system = [entry.name for entry in entries if is_system_name(entry.name)]
    return [entry for entry in entries if entry.name not in system], system


def _file_reader(root: Path) -> Callable[[str], bytes]:
    return lambda name: read_file(root / name, name)


def _read_csv(table: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The lines below the header, each with its number."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            lines = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: is not a UTF-8 CSV file: {error}") from error
    if [columns.count(name) for name in ("path", "class")] != [1, 1] or columns.count("split") > 1:
        found = ", ".join(columns) or "nothing"
        reason = f"the first line must name path, class (and split) once, not {found}"
        raise DatasetError(f"{table}: {reason}")
    if surplus := [line for line, cells in lines if None in cells]:
        raise DatasetError(f"{table}, line {surplus[0]}: has more columns than the first line")
    return lines


def _split(table: Path, line: int, cells: Mapping[str, str | None]) -> Split | None:
    if "split" not in cells:
        return None
    word = (cells["split"] or "").strip().lower()
    for split in SPLITS:
        if word == split:
            return split
    raise DatasetError(f"{table}, line {line}: split is {word!r}, must be train or test")
