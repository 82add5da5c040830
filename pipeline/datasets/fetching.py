"""Published files on this disk: taken from where they lie or downloaded, and verified."""

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.datasets.parquet import split_of
from pipeline.datasets.published import Archive, PublishedFile
from pipeline.datasets.transfers import TransferError, drop_part, known_bytes, transfer

ATTEMPTS = 4  # in a row that bring nothing new
BACKOFF_S = 2.0  # before the second attempt of a row; twice, four times ... that before the next
_CHUNK_BYTES = 1 << 20


class FetchError(ValueError):
    """A file that could not be had, or is not the published one."""


@dataclass(frozen=True)
class FetchedFile:
    """A file as it lies on this disk.

    `subset`: it is not the published file but a part of the data set, which the caller accepted.
    """

    path: Path
    size_bytes: int
    md5: str
    sha256: str
    subset: bool = False


def download_files(
    archive: Archive, folder: Path, *, archives_dir: Path | None, accept_subset: bool
) -> dict[str, FetchedFile]:
    """The files of an archive by their published names, each from the first place that has it.

    The places: `archives_dir` (files are used where they lie), `folder` (of earlier downloads), its
    address. Two processes that want one file wait for each other.

    Raises FetchError, which names the pages that offer the files.
    """
    pages = " and ".join(archive.pages)
    if not archive.files:
        raise FetchError(
            f"this archive has no files that could be downloaded: get them from {pages}, "
            "and name their folder as an input"
        )
    if archives_dir is not None and not archives_dir.is_dir():
        raise FetchError(f"{archives_dir}: the folder of archives is not a folder")
    files = {}
    for file in archive.files:
        if archives_dir is not None and (archives_dir / file.name).is_file():
            path = archives_dir / file.name
            files[file.name] = take_file(file, path, accept_subset=accept_subset)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock"):
            try:
                files[file.name] = fetch_file(file, folder)
            except FetchError as error:
                raise FetchError(f"{error}; it is offered on {pages}") from error
    return files


def given_files(archive: Archive, given: Path, *, accept_subset: bool) -> dict[str, FetchedFile]:
    """The files of an archive that lie at `given`, verified: a folder, or its only file.

    Parquet files are those whose split is told by name or folder, in sub-folders too; those of
    unpublished names are taken as a part of the data set. Raises FetchError for a file that is
    missing or another.
    """
    files = {file.name: file for file in archive.files}
    if archive.is_parquet:
        if not given.is_dir():
            raise FetchError(f"{given}: must be the folder of the files train-* and test-*")
        paths = {
            path.name if path.name in files else path.relative_to(given).as_posix(): path
            for path in sorted(given.rglob("*.parquet"))
            if split_of(path)
        }
        missing = sorted(files.keys() - paths.keys())
        if not paths or (missing and not accept_subset):
            names = ", ".join(missing) or "train-* and test-*.parquet"
            raise FetchError(f"{given}: misses {names}")
    elif given.is_dir():
        paths = {name: given / name for name in files}
    elif len(files) == 1:
        paths = dict.fromkeys(files, given)
    else:
        raise FetchError(f"{given}: must be the folder that holds {', '.join(files)}")
    return {
        name: take_file(files.get(name, PublishedFile(name)), path, accept_subset=accept_subset)
        for name, path in paths.items()
    }


def describe_files(files: Mapping[str, FetchedFile]) -> dict[str, Any]:
    """What identifies the files, and nothing of this machine: names, sizes, checksums."""
    return {
        "files": [
            {"name": name, "size_bytes": f.size_bytes, "md5": f.md5, "sha256": f.sha256}
            for name, f in sorted(files.items())
        ],
        "subset": any(file.subset for file in files.values()),
    }


def take_file(file: PublishedFile, path: Path, *, accept_subset: bool) -> FetchedFile:
    """The file at `path`, verified by length and checksums, and used where it lies.

    accept_subset: one that is not the published file is taken as a part of the data set.

    Raises FetchError: missing, empty, or another file.
    """
    if not path.is_file():
        raise FetchError(f"{path}: there is no such file ({file.name} is wanted)")
    found = _describe(path)
    difference = _difference(found, file)
    if difference is None:
        return found
    if found.size_bytes == 0:
        raise FetchError(f"{path}: is empty (0 bytes)")
    if not accept_subset:
        raise FetchError(
            f"{path}: is not the published {file.name}: {difference}; "
            "a part of the data set needs accept_subset"
        )
    return replace(found, subset=True)


def fetch_file(file: PublishedFile, folder: Path) -> FetchedFile:
    """The published file in `folder`: that of an earlier call, or downloaded; verified.

    `ATTEMPTS` in a row that bring nothing new are the last: one that makes the part longer than it
    ever was is the first of a new row. A part with a wrong checksum is removed.

    Raises FetchError, which names the address and why it did not give the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / file.name
    if final.is_file():
        there = _describe(final)
        if _difference(there, file) is None:
            return there
    remedy = "a copy of it is taken from the folder of archives"
    if file.address is None:
        raise FetchError(f"{file.name}: could not be had: no address is known; {remedy}")
    part = folder / f"{file.name}.part"
    longest = known_bytes(part)
    free_bytes, missing = shutil.disk_usage(folder).free, (file.size_bytes or 0) - longest
    if free_bytes < missing:
        raise FetchError(f"{folder}: {missing} bytes are needed, {free_bytes} are free")
    in_a_row = 0
    while True:
        try:
            resumed = transfer(file.address, part, file.size_bytes)
            fetched = _describe(part)
            difference = _difference(fetched, file)
            if difference is None:
                part.replace(final)
                drop_part(part)
                return replace(fetched, path=final)
            drop_part(part)
            raise TransferError(f"gave another file: {difference}", again=resumed)
        except TransferError as failure:
            in_a_row = 1 if known_bytes(part) > longest else in_a_row + 1
            longest = max(longest, known_bytes(part))
            if not failure.again or in_a_row >= ATTEMPTS:
                reason = f"could not be had: {file.address}: {failure}; {remedy}"
                raise FetchError(f"{file.name}: {reason}") from failure
        time.sleep(BACKOFF_S * 2 ** (in_a_row - 1))


def _describe(path: Path) -> FetchedFile:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    return FetchedFile(path, path.stat().st_size, md5.hexdigest(), sha256.hexdigest())


def _difference(found: FetchedFile, file: PublishedFile) -> str | None:
    """The first property in which a file is not the published one."""
    for name in ("size_bytes", "md5", "sha256"):
        value, expected = getattr(found, name), getattr(file, name)
        if expected not in (None, value):
            return f"{name} {value}, expected {expected}"
    return None
