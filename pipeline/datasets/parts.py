"""The .part file in which a download grows: whose bytes it holds, and when others replace them."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 16

OnProgress = Callable[[int, int | None], None]


class TransferError(Exception):
    """An attempt that failed; `again` says whether the same address may do better next time."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class CannotResumeError(TransferError):
    """A server that does not go on where the part ends; it may still send the whole file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, again=True)


@dataclass(frozen=True)
class PartOrigin:
    """Where the last bytes of a .part file come from; it lies beside it as JSON.

    `validator` is the ETag or modification date with which a server vouches for the same file.
    `total_bytes` is the length of the whole file there, None where the server does not tell.
    """

    address: str
    validator: str | None
    total_bytes: int | None


@dataclass(frozen=True)
class Reply:
    """The bytes of a file from `start` on, as a server sends them: `read` gives b"" at the end."""

    origin: PartOrigin
    start: int
    read: Callable[[int], bytes]


def read_origin(part: Path) -> PartOrigin | None:
    """What is known of a part; None where there is nothing to resume from."""
    try:
        return PartOrigin(**json.loads(_origin_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def known_bytes(part: Path) -> int:
    """The length of a part whose origin is known, else 0."""
    return part.stat().st_size if part.is_file() and read_origin(part) is not None else 0


def drop_part(part: Path) -> None:
    """Remove a part, what is known of it, and what was to replace it."""
    for path in (part, _origin_path(part), _successor_path(part)):
        path.unlink(missing_ok=True)


def fill_part(
    part: Path, reply: Reply, *, size_bytes: int | None, on_progress: OnProgress | None
) -> Path:
    """The file that now holds the whole reply: the part, or NAME.part.new.

    A reply from the part's end on is added to it. One from the first byte on is written to
    NAME.part.new, which takes the part's place as soon as it is longer: what ends sooner and is
    not whole is removed and leaves the part as it was. What is whole, but not longer, stays
    beside the part for the caller to verify.

    size_bytes: the expected length, or None. on_progress: told the bytes that are there and the
    total, None where it is unknown.

    Raises TransferError: fewer bytes than were announced or expected, which stay in the part;
    more, which are removed (CannotResumeError where the part they were added to is left).
    """
    if reply.start:
        _extend_part(part, reply, size_bytes, on_progress)
        return part
    return _replace_part(part, reply, size_bytes, on_progress)


class _OverrunError(TransferError):
    pass


def _extend_part(
    part: Path, reply: Reply, size_bytes: int | None, on_progress: OnProgress | None
) -> None:
    earlier = read_origin(part)
    _write_origin(part, reply.origin)
    with part.open("r+b") as file:
        file.seek(reply.start)
        try:
            _copy(reply, file, size_bytes, on_progress)
        except _OverrunError as error:
            file.truncate(reply.start)
            if earlier is not None:
                _write_origin(part, earlier)
            raise CannotResumeError(str(error)) from error


def _replace_part(
    part: Path, reply: Reply, size_bytes: int | None, on_progress: OnProgress | None
) -> Path:
    successor, to_exceed = _successor_path(part), known_bytes(part)

    def tell(done: int, total: int | None) -> None:
        if done > to_exceed and successor.is_file():
            _succeed(successor, part, reply.origin)
        if on_progress is not None:
            on_progress(done, total)

    try:
        with successor.open("wb") as file:
            _copy(reply, file, size_bytes, tell)
    except BaseException as error:
        if isinstance(error, _OverrunError) and not successor.is_file():
            drop_part(part)
        successor.unlink(missing_ok=True)
        raise
    return successor if successor.is_file() else part


def _succeed(successor: Path, part: Path, origin: PartOrigin) -> None:
    """At no moment does the JSON describe other bytes: whoever is stopped here leaves none."""
    _origin_path(part).unlink(missing_ok=True)
    successor.replace(part)
    _write_origin(part, origin)


def _copy(
    reply: Reply, file: BinaryIO, size_bytes: int | None, on_progress: OnProgress | None
) -> None:
    done, total = reply.start, reply.origin.total_bytes
    limit = size_bytes if total is None else total
    while chunk := reply.read(_CHUNK_BYTES):
        done += len(chunk)
        if limit is not None and done > limit:
            raise _OverrunError(f"sends more than {limit} bytes", again=False)
        file.write(chunk)
        if on_progress is not None:
            on_progress(done, limit)
    if total is not None and done < total:
        raise TransferError(f"cut off after {done} of {total} bytes", again=True)
    if size_bytes is not None and done < size_bytes:
        raise TransferError(f"ended after {done} bytes, expected {size_bytes}", again=True)


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _successor_path(part: Path) -> Path:
    return part.with_name(part.name + ".new")


def _write_origin(part: Path, origin: PartOrigin) -> None:
    _origin_path(part).write_text(json.dumps(asdict(origin)), encoding="utf-8")
