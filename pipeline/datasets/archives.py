"""Archives read member by member: nothing is unpacked to named files, nothing unsafe is passed on.

Tar members come in archive order, which is no data set's official order. So a tar archive is read
once, and its members are spooled to an unnamed temporary file; after that they are read by name.
Memory holds the names and offsets only; the temporary file has the size of the unpacked archive.
Zip archives are read by name directly.
"""

import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.archive_gate import (
    ArchiveError,
    ArchiveLimits,
    DamagedArchiveError,
    MemberGate,
    UnsafeMemberError,
)
from pipeline.datasets.tar_streams import iterate_tar

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENCRYPTED = 0x1
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class OpenArchive:
    """The names of an archive's regular files, and a function that gives a file's bytes.

    `read` raises DamagedArchiveError where the bytes do not fit their checksum. Several threads may
    call it.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]


@contextmanager
def open_archive(
    archive: Path, *, limits: ArchiveLimits | None = None, spool_dir: Path | None = None
) -> Iterator[OpenArchive]:
    """The members of a .tgz or .zip file, told apart by their first bytes.

    limits: default `ArchiveLimits()`. spool_dir: where the temporary file of a tar archive lies
    (default: the system's); it needs as much room as the unpacked archive and leaves nothing.

    Raises DamagedArchiveError, UnsafeMemberError or ArchiveTooLargeError, each an ArchiveError and
    a ValueError.
    """
    limits = limits or ArchiveLimits()
    magic = _read_magic(archive)
    if magic.startswith(_GZIP_MAGIC):
        _check_room(archive, spool_dir)
        with spool_members(iterate_tar(archive, limits), spool_dir) as members:
            yield members
    elif magic in _ZIP_MAGICS:
        with _open_zip(archive, limits) as members:
            yield members
    else:
        raise DamagedArchiveError(archive, "is neither a .tgz nor a .zip file")


@contextmanager
def spool_members(
    members: Iterable[tuple[str, bytes]], spool_dir: Path | None
) -> Iterator[OpenArchive]:
    """Named contents, read once in their own order, then given by name from a temporary file."""
    with tempfile.TemporaryFile(prefix="l2s-spool-", dir=spool_dir) as spool:
        places: dict[str, tuple[int, int]] = {}
        offset = 0
        for name, content in members:
            places[name] = (offset, len(content))
            offset += spool.write(content)
        spool.flush()

        def read(name: str) -> bytes:
            start, length = places[name]
            return os.pread(spool.fileno(), length, start)

        yield OpenArchive(tuple(places), read)


def _read_magic(archive: Path) -> bytes:
    if not archive.is_file():
        raise DamagedArchiveError(archive, "is not a file")
    with archive.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise DamagedArchiveError(archive, "is empty (0 bytes)")
    return magic


def _check_room(archive: Path, spool_dir: Path | None) -> None:
    place = spool_dir or Path(tempfile.gettempdir())
    free_bytes, needed_bytes = shutil.disk_usage(place).free, archive.stat().st_size
    if free_bytes < needed_bytes:
        reason = f"needs {needed_bytes} bytes for its members in {place}, which has {free_bytes}"
        raise ArchiveError(archive, reason)


@contextmanager
def _open_zip(archive: Path, limits: ArchiveLimits) -> Iterator[OpenArchive]:
    try:
        opened = zipfile.ZipFile(archive)
    except _ZIP_FAULTS as error:
        raise DamagedArchiveError(archive, f"is truncated or no zip archive: {error}") from error
    with opened:
        members = _admit_zip_members(opened, MemberGate(archive, limits))

        def read(name: str) -> bytes:
            try:
                return opened.read(members[name])
            except _ZIP_FAULTS as error:
                raise DamagedArchiveError(archive, f"cannot be unpacked: {error}", name) from error

        yield OpenArchive(tuple(members), read)


def _admit_zip_members(opened: zipfile.ZipFile, gate: MemberGate) -> Mapping[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    end_bytes = 0
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
        gate.count_entry()
        if info.header_offset < end_bytes:
            raise UnsafeMemberError(gate.archive, "overlaps another member: a bomb", info.filename)
        end_bytes = info.header_offset + info.compress_size
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnsafeMemberError(gate.archive, "is a link or a device", info.filename)
        if info.flag_bits & _ZIP_ENCRYPTED:
            raise UnsafeMemberError(gate.archive, "is encrypted", info.filename)
        if info.is_dir():
            gate.check_name(info.orig_filename)
        else:
            members[gate.admit_file(info.orig_filename, info.file_size)] = info
    return members
