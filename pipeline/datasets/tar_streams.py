"""A .tgz file as a stream of checked members.

The standard library's reader stops in silence at a damaged header and at a gzip stream that is cut
off, so that half an archive looks like a whole one. Here both are errors: the stream must reach
its end marker, and the checksum of the gzip stream is verified.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.archive_gate import (
    ArchiveLimits,
    DamagedArchiveError,
    MemberGate,
    UnsafeMemberError,
)

_BLOCK_BYTES = tarfile.BLOCKSIZE
_EXTENSION_BYTES = 1 << 20
_PADDING_BYTES = 1 << 20
_ZERO_BLOCK = bytes(_BLOCK_BYTES)
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_PAX_KEYS = (b"path", b"size")
_EXTENSION_TYPES = (
    *_PAX_TYPES,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LINK_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE)


def iterate_tar(archive: Path, limits: ArchiveLimits) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files of a .tgz file, in archive order.

    Raises DamagedArchiveError (truncated, altered, no tar), UnsafeMemberError (a path that points
    outside, a link, a device, a name that comes twice) or ArchiveTooLargeError.
    """
    with gzip.open(archive) as stream:
        yield from _TarStream(stream, MemberGate(archive, limits)).files()


class _TarStream:
    def __init__(self, stream: gzip.GzipFile, gate: MemberGate) -> None:
        self._stream = stream
        self._gate = gate
        self._archive = gate.archive

    def files(self) -> Iterator[tuple[str, bytes]]:
        overrides: dict[str, str] = {}
        is_extended = False
        last_name = None
        while (header := self._read(_BLOCK_BYTES, last_name)) != _ZERO_BLOCK:
            info = self._parse(header, last_name)
            self._gate.count_entry()
            if info.type in _EXTENSION_TYPES:
                overrides |= self._read_extension(info)
                is_extended |= info.type != tarfile.XGLTYPE
                continue
            name = last_name = overrides.get("path", info.name)
            size_bytes = self._size_of(info, overrides)
            overrides, is_extended = {}, False
            if info.isdir():
                self._gate.check_name(name)
            elif info.type in tarfile.REGULAR_TYPES and info.type != tarfile.GNUTYPE_SPARSE:
                checked = self._gate.admit_file(name, size_bytes)
                yield checked, self._read_padded(size_bytes, checked)
            else:
                kind = "a link" if info.type in _LINK_TYPES else "a device or a special file"
                raise UnsafeMemberError(self._archive, f"is {kind}", name)
        if is_extended:
            raise DamagedArchiveError(self._archive, "ends after an extended header", last_name)
        self._finish()

    def _read(self, size_bytes: int, member: str | None) -> bytes:
        try:
            content = self._stream.read(size_bytes)
        except EOFError as error:
            raise DamagedArchiveError(
                self._archive, "is truncated here or right after", member
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DamagedArchiveError(self._archive, f"is damaged: {error}", member) from error
        if len(content) < size_bytes:
            raise DamagedArchiveError(self._archive, "is truncated here or right after", member)
        return content

    def _parse(self, header: bytes, last_name: str | None) -> tarfile.TarInfo:
        try:
            # Names of users and groups may be in any encoding; the gate refuses such a file name.
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            reason = f"holds no valid tar header at or after this place: {error}"
            raise DamagedArchiveError(self._archive, reason, last_name) from error
        if info.size < 0:
            raise DamagedArchiveError(self._archive, "has a negative size", info.name)
        return info

    def _size_of(self, info: tarfile.TarInfo, overrides: dict[str, str]) -> int:
        if "GNU.sparse" in overrides:
            raise UnsafeMemberError(self._archive, "is a sparse file", info.name)
        size = overrides.get("size", str(info.size))
        if not size.isdecimal():
            raise DamagedArchiveError(self._archive, f"has the size {size!r}", info.name)
        return int(size)

    def _read_extension(self, info: tarfile.TarInfo) -> dict[str, str]:
        if info.size > _EXTENSION_BYTES:
            raise DamagedArchiveError(self._archive, "has an extended header over 1 MiB", info.name)
        self._gate.count_bytes(info.size, info.name)
        content = self._read_padded(info.size, info.name)
        try:
            if info.type == tarfile.GNUTYPE_LONGNAME:
                return {"path": content.rstrip(b"\0").decode()}
            return _parse_pax(content) if info.type in _PAX_TYPES else {}
        except ValueError as error:
            reason = f"has a damaged extended header: {error}"
            raise DamagedArchiveError(self._archive, reason, info.name) from error

    def _read_padded(self, size_bytes: int, member: str) -> bytes:
        content = self._read(size_bytes, member)
        self._read(-size_bytes % _BLOCK_BYTES, member)
        return content

    def _finish(self) -> None:
        """Read to the end of the gzip stream, which checks its sum; only padding may follow."""
        try:
            padding = self._stream.read(_PADDING_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedArchiveError(self._archive, f"is damaged at its end: {error}") from error
        if len(padding) > _PADDING_BYTES or padding.count(0) != len(padding):
            raise DamagedArchiveError(self._archive, "has data after its end marker")


def _parse_pax(content: bytes) -> dict[str, str]:
    """The records `length key=value newline` of a pax header that matter here. Raises ValueError.

    Values of other keys, such as a user's name or an extended attribute, may hold any bytes.
    """
    records: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits)
        record = content[len(digits) + 1 : length]
        if not record.endswith(b"\n") or b"=" not in record:
            raise ValueError("a record without key, value or end")
        key, _, value = record[:-1].partition(b"=")
        if key in _PAX_KEYS:
            records[key.decode()] = value.decode()
        elif key.startswith(b"GNU.sparse"):
            records["GNU.sparse"] = ""
        content = content[length:]
    return records
