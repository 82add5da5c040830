"""Archives read member by member: nothing is unpacked to named files, nothing unsafe is passed on.

Tar members come in archive order, which is no data set's official order. So a tar archive is read
once, and its members are spooled to an unnamed temporary file; after that they are read by name.
Memory holds the names and offsets only; the temporary file has the size of the unpacked archive.
Zip archives are read by name directly.
"""

import gzip
import os
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

_MIB = 1 << 20
# How much an archive may unpack to, and how many times its own size. The ratio counts only once
# RATIO_FROM_BYTES are unpacked, since a small archive of text has a high one and does no harm.
UNPACKED_BYTES = 16 * 1024 * _MIB
MEMBER_BYTES = 256 * _MIB
MEMBERS = 500_000
RATIO = 100
RATIO_FROM_BYTES = 64 * _MIB
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENCRYPTED = 0x1
_FAULTS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class ArchiveError(ValueError):
    """An archive that is not read, with its path, the member (where one is to blame) and why."""

    def __init__(self, archive: Path, reason: str, member: str | None = None) -> None:
        super().__init__(archive, reason, member)  # so that it can come from another process

    def __str__(self) -> str:
        archive, reason, member = self.args
        place = f"{archive}" if member is None else f"{archive}: member {member!r}"
        return f"{place}: {reason}"


@dataclass(frozen=True)
class OpenArchive:
    """The names of an archive's regular files, and a function that gives a file's bytes.

    `read` raises ArchiveError where the bytes do not fit their checksum. Several threads may call
    it.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]


@contextmanager
def open_archive(archive: Path, spool_dir: Path | None = None) -> Iterator[OpenArchive]:
    """The members of a .tgz or .zip file, told apart by their first bytes.

    spool_dir: where the temporary file of a tar archive lies (default: the system's); it needs as
    much room as the unpacked archive and leaves nothing.

    Raises ArchiveError: truncated, altered, no archive; a member that points outside, is a link, a
    device or encrypted, or comes twice; more than the limits allow.
    """
    if not archive.is_file():
        raise ArchiveError(archive, "is not a file")
    with archive.open("rb") as file:
        magic = file.read(4)
    gate = _Gate(archive)
    if magic.startswith(_GZIP_MAGIC):
        with spool_members(_tar_members(gate), spool_dir) as members:
            yield members
    elif magic in _ZIP_MAGICS:
        with _open_zip(gate) as members:
            yield members
    else:
        reason = "is neither a .tgz nor a .zip file" if magic else "is empty (0 bytes)"
        raise ArchiveError(archive, reason)


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


def read_table(archive: Path, members: OpenArchive, file: str, *, columns: int) -> list[list[str]]:
    """The lines of a text file, each cut at blanks into `columns` words; the last may hold blanks.

    A byte order mark at the start and blank lines at the end are left out. Raises ArchiveError that
    names the archive, the file and the line.
    """
    if file not in members.names:
        raise ArchiveError(archive, f"{file} is missing")
    try:
        text = members.read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArchiveError(archive, f"is not UTF-8 text: {error.reason}", file) from error
    table = []
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        words = line.strip().split(maxsplit=columns - 1)
        if len(words) != columns:
            reason = f"line {number} has {len(words)} columns instead of {columns}"
            raise ArchiveError(archive, reason, file)
        table.append(words)
    return table


@dataclass
class _Gate:
    """Lets the members of one archive through, or says why not: names and limits."""

    archive: Path
    unpacked_bytes: int = 0
    entries: int = 0
    seen: set[str] = field(default_factory=set)

    def check_entry(self, name: str) -> str:
        """Count a file or folder; its name without a leading "./"."""
        self.entries += 1
        if self.entries > MEMBERS:
            raise ArchiveError(self.archive, f"has more than {MEMBERS} members")
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":"):
            raise ArchiveError(self.archive, "has an absolute path", name)
        if ".." in parts:
            raise ArchiveError(self.archive, "points outside the archive ('..')", name)
        # What is printed as itself, blanks of every width included.
        if "\\" in name or not all(
            c.isprintable() or unicodedata.category(c) == "Zs" for c in name
        ):
            reason = "has a backslash, a control character or bytes that are not UTF-8 in its name"
            raise ArchiveError(self.archive, reason, name)
        return "/".join(part for part in parts if part not in ("", "."))

    def admit_file(self, name: str, size_bytes: int) -> str:
        """The checked name of a regular file, before it is unpacked."""
        checked = self.check_entry(name)
        if not checked or checked in self.seen:
            raise ArchiveError(self.archive, "comes twice" if checked else "has no name", name)
        self.seen.add(checked)
        if size_bytes > MEMBER_BYTES:
            reason = f"unpacks to {size_bytes} bytes, more than {MEMBER_BYTES}"
            raise ArchiveError(self.archive, reason, checked)
        by_ratio = max(RATIO_FROM_BYTES, RATIO * self.archive.stat().st_size)
        allowed = min(UNPACKED_BYTES, by_ratio)
        self.unpacked_bytes += size_bytes
        if self.unpacked_bytes > allowed:
            reason = f"brings the unpacked bytes to more than {allowed} (a bomb?)"
            raise ArchiveError(self.archive, reason, checked)
        return checked


class _StrictTarInfo(tarfile.TarInfo):
    """A tar header. `tarfile` takes a damaged or missing one for the end; here it is an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        # `tarfile` holds extended headers in memory; images are read after the gate saw their size.
        if info.size < 0 or (not info.isreg() and info.size > _MIB):
            raise tarfile.ReadError(f"a header of {info.name!r} claims {info.size} bytes")
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end marker
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _tar_members(gate: _Gate) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files of a .tgz file, in archive order."""
    name = None
    try:
        with gzip.open(gate.archive) as stream:
            tar = tarfile.TarFile(
                fileobj=stream, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape"
            )
            for name, info in _tar_files(gate, tar):
                opened = tar.extractfile(info)
                assert opened is not None, "it is a regular file"
                yield name, opened.read()
            name = None
            _check_rest(gate.archive, stream)  # to the end of the gzip stream, which checks its sum
    except ArchiveError:
        raise
    except _FAULTS as error:
        raise _damaged(gate.archive, error, name) from error


def _tar_files(gate: _Gate, tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files of a tar archive that the gate lets through, in archive order."""
    while info := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
        name = info.name
        if info.isdir():
            gate.check_entry(name)
            continue
        if not info.isreg() or info.issparse() or "GNU.sparse.major" in info.pax_headers:
            raise ArchiveError(gate.archive, "is a link, a device or a special file", name)
        if not (size := info.pax_headers.get("size", "0")).isdecimal():
            raise ArchiveError(gate.archive, f"has the size {size!r}", name)
        yield gate.admit_file(name, info.size), info


def _check_rest(archive: Path, stream: BinaryIO | gzip.GzipFile) -> None:
    """Raise ArchiveError for more than zeros behind the end marker, which a damaged header, or one
    of several archives in a row, looks like.
    """
    padding = stream.read(_MIB + 1)
    if len(padding) > _MIB or padding.count(0) != len(padding):
        raise ArchiveError(archive, "has data after its end marker")


def tar_places(archive: Path) -> dict[str, tuple[int, int]]:
    """Where the files of an archive that is not packed lie: offsets and sizes in bytes, by name.

    Raises ArchiveError as `open_archive` does.
    """
    places: dict[str, tuple[int, int]] = {}
    name = None
    try:
        with archive.open("rb") as stream:
            tar = tarfile.TarFile(
                fileobj=stream, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape"
            )
            for name, info in _tar_files(_Gate(archive), tar):
                places[name] = (info.offset_data, info.size)
            name = None
            _check_rest(archive, stream)
    except ArchiveError:
        raise
    except _FAULTS as error:
        raise _damaged(archive, error, name) from error
    return places


def _damaged(archive: Path, error: BaseException, member: str | None = None) -> ArchiveError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ArchiveError(archive, f"is truncated or damaged: {reason}", member)


@contextmanager
def _open_zip(gate: _Gate) -> Iterator[OpenArchive]:
    try:
        opened = zipfile.ZipFile(gate.archive)
    except _FAULTS as error:
        raise _damaged(gate.archive, error) from error
    with opened:
        members = _zip_members(opened, gate)

        def read(name: str) -> bytes:
            try:
                return opened.read(members[name])
            except _FAULTS as error:
                raise _damaged(gate.archive, error, name) from error

        yield OpenArchive(tuple(members), read)


def _zip_members(opened: zipfile.ZipFile, gate: _Gate) -> Mapping[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    end_bytes = 0
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end_bytes:
            raise ArchiveError(gate.archive, "overlaps another member: a bomb", info.filename)
        end_bytes = info.header_offset + info.compress_size
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(gate.archive, "is a link or a device", info.filename)
        if info.flag_bits & _ZIP_ENCRYPTED:
            raise ArchiveError(gate.archive, "is encrypted", info.filename)
        if info.is_dir():
            gate.check_entry(info.orig_filename)
        else:
            members[gate.admit_file(info.orig_filename, info.file_size)] = info
    return members
