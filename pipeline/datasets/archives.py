"""Archives read member by member: nothing is unpacked to named files, nothing unsafe is passed on.

Tar members come in archive order, which is no data set's official order. So a tar archive is read
once, and its members are spooled to an unnamed temporary file; after that they are read by name.
Memory holds the names and offsets only; the temporary file has the size of the unpacked archive.
Zip archives are read by name directly.
"""

import gzip
import os
import shutil
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
from typing import Self

_MIB = 1 << 20
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
        place = f"{archive}" if member is None else f"{archive}: member {member!r}"
        super().__init__(f"{place}: {reason}")


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may unpack to.

    `ratio` is unpacked bytes over archive bytes; it counts only once `ratio_from_bytes` are
    unpacked, since a small archive of text has a high ratio and does no harm.
    """

    unpacked_bytes: int = 16 * 1024 * _MIB
    member_bytes: int = 256 * _MIB
    members: int = 500_000
    ratio: float = 100.0
    ratio_from_bytes: int = 64 * _MIB


@dataclass(frozen=True)
class OpenArchive:
    """The names of an archive's regular files, and a function that gives a file's bytes.

    `read` raises ArchiveError where the bytes do not fit their checksum. Several threads may call
    it.
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

    Raises ArchiveError: truncated, altered, no archive; a member that points outside, is a link, a
    device or encrypted, or comes twice; more than the limits allow.
    """
    if not archive.is_file():
        raise ArchiveError(archive, "is not a file")
    with archive.open("rb") as file:
        magic = file.read(4)
    gate = _Gate(archive, limits or ArchiveLimits())
    if magic.startswith(_GZIP_MAGIC):
        _check_room(archive, spool_dir)
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
    limits: ArchiveLimits
    unpacked_bytes: int = 0
    entries: int = 0
    seen: set[str] = field(default_factory=set)

    def check_entry(self, name: str) -> str:
        """Count a file or folder; its name without a leading "./"."""
        self.entries += 1
        if self.entries > self.limits.members:
            raise ArchiveError(self.archive, f"has more than {self.limits.members} members")
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":"):
            raise ArchiveError(self.archive, "has an absolute path", name)
        if ".." in parts:
            raise ArchiveError(self.archive, "points outside the archive ('..')", name)
        if "\\" in name or not all(map(_is_shown, name)):
            reason = "has a backslash, a control character or bytes that are not UTF-8 in its name"
            raise ArchiveError(self.archive, reason, name)
        return "/".join(part for part in parts if part not in ("", "."))

    def admit_file(self, name: str, size_bytes: int) -> str:
        """The checked name of a regular file, before it is unpacked."""
        checked = self.check_entry(name)
        if not checked or checked in self.seen:
            raise ArchiveError(self.archive, "comes twice" if checked else "has no name", name)
        self.seen.add(checked)
        limits = self.limits
        most_by_ratio = int(limits.ratio * self.archive.stat().st_size)
        allowed = min(limits.unpacked_bytes, max(limits.ratio_from_bytes, most_by_ratio))
        self.unpacked_bytes += size_bytes
        if size_bytes > limits.member_bytes:
            reason = f"unpacks to {size_bytes} bytes, more than {limits.member_bytes}"
            raise ArchiveError(self.archive, reason, checked)
        if self.unpacked_bytes > allowed:
            reason = f"brings the unpacked bytes to more than {allowed} (a bomb?)"
            raise ArchiveError(self.archive, reason, checked)
        return checked


def _is_shown(character: str) -> bool:
    """Whether a character is printed as itself, blanks of every width included."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _check_room(archive: Path, spool_dir: Path | None) -> None:
    place = spool_dir or Path(tempfile.gettempdir())
    free_bytes, needed_bytes = shutil.disk_usage(place).free, archive.stat().st_size
    if free_bytes < needed_bytes:
        reason = f"needs {needed_bytes} bytes for its members in {place}, which has {free_bytes}"
        raise ArchiveError(archive, reason)


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
    last_name = None
    with gzip.open(gate.archive) as stream:
        with _named_faults(gate.archive, last_name):
            tar = tarfile.TarFile(
                fileobj=stream, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape"
            )
        while True:
            with _named_faults(gate.archive, last_name):
                info = tar.next()
            if info is None:
                break
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            last_name = info.name
            if info.isdir():
                gate.check_entry(info.name)
                continue
            if not info.isreg() or info.issparse() or "GNU.sparse.major" in info.pax_headers:
                reason = "is a link, a device or a special file"
                raise ArchiveError(gate.archive, reason, info.name)
            if not (size := info.pax_headers.get("size", "0")).isdecimal():
                raise ArchiveError(gate.archive, f"has the size {size!r}", info.name)
            name = gate.admit_file(info.name, info.size)
            with _named_faults(gate.archive, name):
                opened = tar.extractfile(info)
                assert opened is not None, "it is a regular file"
                content = opened.read()
            yield name, content
        with _named_faults(gate.archive, None):
            padding = stream.read(_MIB + 1)  # to the end of the gzip stream, which checks its sum
        if len(padding) > _MIB or padding.count(0) != len(padding):
            raise ArchiveError(gate.archive, "has data after its end marker")


@contextmanager
def _named_faults(archive: Path, member: str | None) -> Iterator[None]:
    """Faults of the libraries, as ArchiveErrors."""
    try:
        yield
    except _FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(archive, f"is truncated or damaged: {reason}", member) from error


@contextmanager
def _open_zip(gate: _Gate) -> Iterator[OpenArchive]:
    with _named_faults(gate.archive, None):
        opened = zipfile.ZipFile(gate.archive)
    with opened:
        members = _zip_members(opened, gate)

        def read(name: str) -> bytes:
            with _named_faults(gate.archive, name):
                return opened.read(members[name])

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
