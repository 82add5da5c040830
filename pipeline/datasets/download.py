"""A published file on this disk: taken from a folder of archives or downloaded, and verified."""

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.parts import OnProgress, TransferError, drop_part, known_bytes
from pipeline.datasets.sources import SourceFile
from pipeline.datasets.transfers import Transferred, transfer

_CHUNK_BYTES = 1 << 20


class DownloadError(ValueError):
    """A file that could not be had, or is not the published one."""


@dataclass(frozen=True)
class Patience:
    """How often and how long an address is tried.

    `attempts` in a row that bring nothing new are the last: one that makes the part longer than it
    ever was is the first of a new row. Those of a row come `backoff_s`, twice, four times ... that
    apart. `timeout_s` is the longest silence.
    """

    attempts: int = 4
    backoff_s: float = 2.0
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff_s < 0 or self.timeout_s <= 0:
            raise ValueError(f"{self}: attempts >= 1, backoff_s >= 0 and timeout_s > 0 are needed")


@dataclass(frozen=True)
class ObtainedFile:
    """A file as it lies on this disk. `origin` is the path or address that it came from.

    `subset`: it is not the published file but a part of the data set, which the caller accepted.
    """

    path: Path
    size_bytes: int
    md5: str
    sha256: str
    origin: str
    subset: bool = False


def obtain_file(
    file: SourceFile,
    destination_dir: Path,
    *,
    archives_dir: Path | None = None,
    archive: Path | None = None,
    accept_subset: bool = False,
    patience: Patience | None = None,
    on_progress: OnProgress | None = None,
) -> ObtainedFile:
    """The published file, verified by its length and checksums.

    Taken from the first of: `archive`, a path; `archives_dir/NAME`; `destination_dir/NAME` of an
    earlier call; the addresses in their order. The first two are used where they lie and not
    copied. A download grows in `NAME.part`, is resumed by the next attempt or call, and gets its
    name only when it is verified; a part with a wrong checksum is removed. Where a server sends
    the whole file again, the part gives way only to what is longer or verified.

    accept_subset: a file on disk that is not the published one is taken as a part of the data
    set. on_progress: told the bytes that are there and the total, None where it is unknown.

    Raises DownloadError: a file on disk that is missing or not the published one, or every address
    with the reason why it did not give the file.
    """
    if archives_dir is not None and not archives_dir.is_dir():
        raise DownloadError(f"{archives_dir}: the folder of archives is not a folder")
    if archive is None and archives_dir is not None and (archives_dir / file.name).is_file():
        archive = archives_dir / file.name
    if archive is not None:
        return _take_from_disk(file, archive, accept_subset)
    final = destination_dir / file.name
    if final.is_file():
        there = _describe(final, str(final))
        if _difference(there, file) is None:
            return there
    return _download(file, final, patience or Patience(), on_progress)


def _take_from_disk(file: SourceFile, archive: Path, accept_subset: bool) -> ObtainedFile:
    if not archive.is_file():
        raise DownloadError(f"{archive}: there is no such file ({file.name} is wanted)")
    found = _describe(archive, str(archive))
    difference = _difference(found, file)
    if difference is None:
        return found
    if found.size_bytes == 0:
        raise DownloadError(f"{archive}: is empty (0 bytes)")
    if not accept_subset:
        raise DownloadError(
            f"{archive}: is not the published {file.name}: {difference}; "
            "a part of the data set needs accept_subset"
        )
    return ObtainedFile(
        archive, found.size_bytes, found.md5, found.sha256, found.origin, subset=True
    )


def _download(
    file: SourceFile, final: Path, patience: Patience, on_progress: OnProgress | None
) -> ObtainedFile:
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(file.name + ".part")
    _check_room(file, part)
    reasons = []
    for address in file.addresses:
        try:
            obtained = _try_address(address, file, part, patience, on_progress)
        except TransferError as failure:
            reasons.append(f"{address}: {failure}")
            continue
        obtained.path.replace(final)
        drop_part(part)
        return ObtainedFile(
            final, obtained.size_bytes, obtained.md5, obtained.sha256, origin=address
        )
    tried = "; ".join(reasons) or "no address is known"
    raise DownloadError(
        f"{file.name}: could not be had: {tried}; a copy of it is taken from the folder of archives"
    )


def _try_address(
    address: str,
    file: SourceFile,
    part: Path,
    patience: Patience,
    on_progress: OnProgress | None,
) -> ObtainedFile:
    """The verified file. Raises TransferError with the last reason and the number of attempts."""
    longest, in_a_row, attempts = known_bytes(part), 0, 0
    while True:
        attempts += 1
        reached = 0
        try:
            whole = transfer(
                address,
                part,
                size_bytes=file.size_bytes,
                timeout_s=patience.timeout_s,
                on_progress=on_progress,
            )
            reached = whole.path.stat().st_size
            return _verify(whole, part, address, file)
        except TransferError as failure:
            reached = max(reached, known_bytes(part))
            in_a_row = 1 if reached > longest else in_a_row + 1
            longest = max(longest, reached)
            if not failure.again or in_a_row >= patience.attempts:
                reason = f"{failure} ({attempts} attempt{'s' if attempts > 1 else ''})"
                raise TransferError(reason, again=False) from failure
        time.sleep(patience.backoff_s * 2 ** (in_a_row - 1))


def _verify(whole: Transferred, part: Path, address: str, file: SourceFile) -> ObtainedFile:
    """The file's description. A wrong one is removed; after a resumed one, a fresh may be right."""
    obtained = _describe(whole.path, address)
    difference = _difference(obtained, file)
    if difference is None:
        return obtained
    if whole.path == part:
        drop_part(part)
    whole.path.unlink(missing_ok=True)
    raise TransferError(f"gave another file: {difference}", again=whole.resumed)


def _describe(path: Path, origin: str) -> ObtainedFile:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    return ObtainedFile(path, path.stat().st_size, md5.hexdigest(), sha256.hexdigest(), origin)


def _difference(found: ObtainedFile, file: SourceFile) -> str | None:
    """The first property in which a file is not the published one."""
    if file.size_bytes not in (None, found.size_bytes):
        return f"{found.size_bytes} bytes, expected {file.size_bytes}"
    if file.md5 not in (None, found.md5):
        return f"md5 {found.md5}, expected {file.md5}"
    if file.sha256 not in (None, found.sha256):
        return f"sha256 {found.sha256}, expected {file.sha256}"
    return None


def _check_room(file: SourceFile, part: Path) -> None:
    there = part.stat().st_size if part.is_file() else 0
    free_bytes = shutil.disk_usage(part.parent).free
    if file.size_bytes is not None and free_bytes < file.size_bytes - there:
        missing = file.size_bytes - there
        raise DownloadError(f"{part.parent}: {missing} bytes are needed, {free_bytes} are free")
