"""The user's own images in tar shards, as WebDataset writes them: members KEY.jpg, KEY.cls."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.datasets.archives import MEMBERS, tar_places
from pipeline.datasets.reader import (
    IMAGE_SUFFIXES,
    DatasetError,
    DatasetReader,
    ListedImage,
    check_names,
    enumerate_names,
    is_image_name,
    is_system_name,
    natural_key,
)

_CLASS_BYTES = 4096
Place = tuple[Path, int, int]  # shard, offset, bytes


def list_tars(folder: Path) -> DatasetReader:
    """The images of the visible *.tar files in a folder, in the order of shards and members.

    An image's name is its key: its path up to the first dot of the file's name. A member KEY.cls
    is the class of its image, a number or a name: all images have one, or none has. Other members
    are passed over. An image's bytes are read from their place when they are asked for.

    Raises DatasetError for no shard, images beside the shards, a key that comes twice and images of
    which some have classes; ArchiveError for what is no tar file, or holds what is not safe.
    """
    if packed := sorted(one.name for one in folder.iterdir() if one.name.endswith((".gz", ".tgz"))):
        raise DatasetError(f"{folder}: holds packed shards: {enumerate_names(packed)}: unpack them")
    shards = sorted(tar_files(folder), key=lambda file: natural_key(file.name))
    if not shards:
        raise DatasetError(f"{folder}: holds no .tar file")
    if beside := _image_beside(folder):
        reason = f"holds shards, and images beside them ({beside})"
        raise DatasetError(f"{folder}: {reason}: put the ones or the others elsewhere")
    found: dict[str, Place] = {}
    classes: dict[str, str] = {}
    passed_over: list[str] = []
    for shard in shards:
        for member, place in tar_places(shard).items():
            key, ending = _key(member)
            if f".{ending}" in IMAGE_SUFFIXES:
                if key in found:
                    where = f"{found[key][0].name} and {shard.name}"
                    raise DatasetError(f"{folder}: the key {key} has images in {where}")
                found[key] = (shard, *place)
            elif ending == "cls":
                classes[key] = _class_name(shard, member, *place)
            else:
                passed_over.append(member)
        if len(found) > MEMBERS:
            raise DatasetError(f"{folder}: holds more than {MEMBERS} images")
    if not found:
        raise DatasetError(f"{folder}: its shards hold no image")
    if classes and (without := [key for key in found if not classes.get(key)]):
        raise DatasetError(
            f"{folder}: images without a member .cls, which others have: {enumerate_names(without)}"
        )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(classes.values()), 1)}
    images = [
        ListedImage(key, classes.get(key, ""), numbers.get(classes.get(key, ""), 0))
        for key in found
    ]
    check_names(str(folder), images)
    return DatasetReader(tuple(images), _reader(found), passed_over=tuple(passed_over))


def tar_files(folder: Path) -> Iterator[Path]:
    """The visible *.tar files in a folder, in no order, found as they are asked for."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.endswith(".tar") and entry.name[0] != "." and Path(entry).is_file():
                yield Path(entry)


def _image_beside(folder: Path) -> str | None:
    """An image that lies in the folder of shards, or below it, as a file of its own."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and not is_system_name(name)]
        if found := next((one for one in names if is_image_name(one) and one[0] != "."), None):
            return Path(place, found).relative_to(folder).as_posix()
    return None


def _key(member: str) -> tuple[str, str]:
    """A member's key and its ending, as WebDataset cuts names at the first dot of the last part."""
    folder, slash, name = member.rpartition("/")
    stem, _, ending = name.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _class_name(shard: Path, member: str, offset: int, size_bytes: int) -> str:
    try:
        return _read(shard, offset, size_bytes, limit=_CLASS_BYTES).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{shard}: {member}: is no name of a class in UTF-8") from error


def _reader(places: dict[str, Place]) -> Callable[[str], bytes]:
    return lambda name: _read(*places[name])


def _read(shard: Path, offset: int, size_bytes: int, *, limit: int | None = None) -> bytes:
    with shard.open("rb") as file:
        return os.pread(file.fileno(), min(size_bytes, limit or size_bytes), offset)
