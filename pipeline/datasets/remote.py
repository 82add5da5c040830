"""What lies in object storage as a folder of this machine, fetched and kept up to date.

DVC watches no address. So the objects become files of the workspace, which it watches as any
others, and whose folder is compared with the store before a study runs.
"""

import hashlib
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.datasets.archives import MEMBERS
from pipeline.datasets.object_storage import check_own_address, content_mark, store_errors
from pipeline.datasets.reader import IMAGE_SUFFIXES, DatasetError
from pipeline.datasets.vectors import CARD
from pipeline.files import read_json, replacing, write_json
from pipeline.progress import track

FOLDER = Path("remote")  # in the workspace, a folder a data set and address
RECORD = ".address.json"  # hidden, so that no source takes it for an image's
_WANTED = (*IMAGE_SUFFIXES, ".tar", ".parquet", ".arrow", ".feather", ".csv", ".npy", ".txt")
_AT_ONCE = 8


def folder_of(name: str, address: str) -> Path:
    """Where what lies at an address is fetched to for a data set: another address leaves it."""
    return FOLDER / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def fetch_address(address: str, folder: Path) -> Path:
    """Bring `folder` to what lies below an address, and give it, or the file of a single object.

    Objects are known by name, size and what their store marks their content with (an ETag, a hash,
    or else a time): known ones are not fetched again, and what is there no more is deleted here.
    Hidden objects and those that are neither images nor tables, shards or vectors are passed over.
    An interrupted fetch goes on where it was. The user, who names the bucket, allows it.

    Raises DatasetError for an address of another form, a store that cannot be read, nothing that
    could be used, more than a disk or a data set holds, and a folder with other things in it.
    """
    check_own_address("the address", address)
    known: dict[str, list[Any]] = {}
    if (folder / RECORD).exists():
        record = read_json(folder / RECORD)
        known = record["objects"] if record["address"] == address else {}
    elif folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f"{folder}: holds files that were not fetched: move them away")
    store, found = _listed(address)
    for file in [one for one in folder.rglob("*") if one.is_file() and one.name != RECORD]:
        if (name := file.relative_to(folder).as_posix()) not in found:
            file.unlink()
            known.pop(name, None)
    wanted = [
        name
        for name, (_, *mark) in found.items()
        if known.get(name) != mark or not (folder / name).is_file()
    ]
    _check_room(address, folder, sum(found[name][1] for name in wanted))
    kept = {name: mark for name, mark in known.items() if name in found and name not in wanted}

    def fetch(name: str) -> None:
        path, *mark = found[name]
        with replacing(folder / name) as temporary, store_errors(address):
            store.get_file(path, str(temporary))
        kept[name] = mark

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            done: Iterable[None] = pool.map(fetch, wanted)
            for _ in track(done, "fetching", len(wanted), "object"):
                pass
    finally:
        write_json(folder / RECORD, {"address": address, "objects": kept})
    single = folder / urlsplit(address).path.rpartition("/")[2]
    return single if list(found) == [single.name] else folder


def bring_up_to_date(inputs: Iterable[str]) -> None:
    """Compare the folders among `inputs` that were fetched with their stores. Raises the same."""
    for folder in map(Path, inputs):
        if (folder / RECORD).is_file():
            fetch_address(read_json(folder / RECORD)["address"], folder)


def _listed(address: str) -> tuple[Any, dict[str, tuple[str, int, str]]]:
    """The open store, and of each object by its name below the address: path, bytes and mark."""
    import fsspec

    try:
        with store_errors(address):
            store, root = fsspec.core.url_to_fs(address)
            store.invalidate_cache()
            listed = store.find(root.rstrip("/"), detail=True)
    except FileNotFoundError as error:
        raise DatasetError(f"{address}: there is nothing") from error
    found = {}
    for path, about in listed.items():
        name = path.removeprefix(root.rstrip("/")).lstrip("/") or path.rpartition("/")[2]
        is_plain = all(part and part[0] != "." and "\\" not in part for part in name.split("/"))
        last = Path(name)
        if is_plain and (last.suffix.lower() in _WANTED or last.name == CARD):
            found[name] = (path, int(about["size"]), content_mark(about))
    if not found or len(found) > MEMBERS:
        raise DatasetError(
            f"{address}: holds {len(found)} images, tables, shards or vectors among {len(listed)} "
            f"objects: must be 1 to {MEMBERS}"
        )
    return store, found


def _check_room(address: str, folder: Path, size_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if size_bytes > (free_bytes := shutil.disk_usage(folder).free):
        raise DatasetError(
            f"{address}: {size_bytes / 1e9:.1f} GB are to be fetched, and {folder} has room for "
            f"{free_bytes / 1e9:.1f} GB"
        )
