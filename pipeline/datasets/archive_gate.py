"""What is let through of an archive: its limits, its checks, and the errors that say why not."""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

_MIB = 1 << 20


class ArchiveError(ValueError):
    """An archive that is not read, with its path, the member (where one is to blame) and why."""

    def __init__(self, archive: Path, reason: str, member: str | None = None) -> None:
        place = f"{archive}" if member is None else f"{archive}: member {member!r}"
        super().__init__(f"{place}: {reason}")
        self.archive = archive
        self.member = member


class DamagedArchiveError(ArchiveError):
    """The archive is truncated, altered, or no archive."""


class UnsafeMemberError(ArchiveError):
    """A member points outside, is a link or a device, or comes twice."""


class ArchiveTooLargeError(ArchiveError):
    """The archive unpacks to more than the limits allow."""


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


@dataclass
class MemberGate:
    """Lets the members of one archive through, or says why not: names, types, limits."""

    archive: Path
    limits: ArchiveLimits
    unpacked_bytes: int = 0
    entries: int = 0
    seen: set[str] = field(default_factory=set)

    def count_entry(self) -> None:
        """Count a header of any type. Raises ArchiveTooLargeError."""
        self.entries += 1
        if self.entries > self.limits.members:
            raise ArchiveTooLargeError(self.archive, f"has more than {self.limits.members} members")

    def count_bytes(self, size_bytes: int, member: str) -> None:
        """Count bytes before they are unpacked. Raises ArchiveTooLargeError."""
        limits = self.limits
        self.unpacked_bytes += size_bytes
        if size_bytes > limits.member_bytes:
            reason = f"unpacks to {size_bytes} bytes, more than {limits.member_bytes}"
            raise ArchiveTooLargeError(self.archive, reason, member)
        if self.unpacked_bytes > limits.unpacked_bytes:
            reason = f"brings the unpacked bytes to more than {limits.unpacked_bytes}"
            raise ArchiveTooLargeError(self.archive, reason, member)
        ratio = self.unpacked_bytes / max(self.archive.stat().st_size, 1)
        if self.unpacked_bytes > limits.ratio_from_bytes and ratio > limits.ratio:
            reason = f"brings the compression ratio to more than {limits.ratio:g}: a bomb"
            raise ArchiveTooLargeError(self.archive, reason, member)

    def check_name(self, name: str) -> str:
        """The name without a leading "./". Raises UnsafeMemberError where it points outside."""
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":"):
            raise UnsafeMemberError(self.archive, "has an absolute path", name)
        if ".." in parts:
            raise UnsafeMemberError(self.archive, "points outside the archive ('..')", name)
        if "\\" in name or not all(map(_is_shown, name)):
            reason = "has a backslash, a control character or bytes that are not UTF-8 in its name"
            raise UnsafeMemberError(self.archive, reason, name)
        return "/".join(part for part in parts if part not in ("", "."))

    def admit_file(self, name: str, size_bytes: int) -> str:
        """The checked name of a regular file. Raises UnsafeMemberError or ArchiveTooLargeError."""
        checked = self.check_name(name)
        if not checked or checked in self.seen:
            raise UnsafeMemberError(
                self.archive, "has no name" if not checked else "comes twice", name
            )
        self.seen.add(checked)
        self.count_bytes(size_bytes, checked)
        return checked


def _is_shown(character: str) -> bool:
    """Whether a character is printed as itself: letters, signs, and blanks of every width."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
