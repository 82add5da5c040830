"""Pictures that a user names: files, folders, globs, lists; read as those of a data set are."""

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.datasets.decode import UnreadableImage, decode_image, encode_jpeg
from pipeline.datasets.reader import is_image_name, is_system_name, natural_key, read_file
from pipeline.files import user_path


def name_pictures(arguments: Iterable[str], folder: Path, listed: Iterable[str]) -> list[str]:
    """The files that arguments name: a file, a folder (all below it), a glob, or - for `listed`.

    Relative names refer to `folder`, in the result too. A file that is named stands in it even
    where there is none: reading it says so. Raises ValueError for a folder, a glob or a list
    without images.
    """
    pictures: dict[Path, None] = {}
    for argument in arguments:
        if argument == "-":
            found = [folder / line.rstrip("\r\n") for line in listed if line.strip()]
        else:
            found = _found(argument, folder)
        if not found:
            raise ValueError(
                f"IMAGE = {argument!r}: names no image; give a file, a folder, a glob, or - for a "
                "list on standard input"
            )
        pictures |= dict.fromkeys(found)
    return [str(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in pictures]


def _found(argument: str, folder: Path) -> list[Path]:
    """The files of one argument."""
    path = user_path(argument, folder)
    if path.is_dir():
        return [path / name for name in image_names(path)]
    if glob.has_magic(argument) and not path.exists():
        matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [match for match in matches if match.is_file() and is_image_name(match.name)]
        return sorted(files, key=lambda file: natural_key(str(file)))
    return [path]


def image_names(folder: Path) -> list[str]:
    """Images at any depth below a folder, by their paths in it, in natural order.

    Hidden files and folders, those of operating systems, and links to folders are passed over.
    Raises ValueError for what is no folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder")
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [n for n in folders if not (n.startswith(".") or is_system_name(n))]
        images = [name for name in files if not name.startswith(".") and is_image_name(name)]
        names += [Path(place, name).relative_to(folder).as_posix() for name in images]
    return sorted(names, key=natural_key)


def read_indexed(folder: Path, name: str, sha256: str) -> bytes:
    """The bytes that were indexed under a name in a folder. Raises UnreadableImage.

    An index may come from elsewhere: what lies outside of the folder, or is not what was indexed,
    is not read out.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnreadableImage(name, "lies outside of the folder that was indexed")
    encoded = read_file(folder / path, name)
    if hashlib.sha256(encoded).hexdigest() != sha256:
        raise UnreadableImage(name, "has changed since: `l2s index FOLDER --replace` takes it")
    return encoded


def thumbnail(encoded: bytes, side_px: int, name: str = "thumbnail") -> bytes:
    """A JPEG file of the picture, at most `side_px` a side. Raises UnreadableImage.

    A JPEG is decoded to a fraction of its size.
    """
    picture = decode_image(encoded, name, least_px=side_px)
    picture.thumbnail((side_px, side_px))
    return encode_jpeg(picture, quality=85)
