"""One attempt to bring a file from an HTTP address into a .part file, going on where it ends.

NAME.part.json beside NAME.part says whose bytes the part holds. Both stay when a transfer ends too
soon, for the next attempt or call.
"""

import errno
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path

from pipeline.files import write_json
from pipeline.progress import Progress

_CHUNK_BYTES = 1 << 16
_MB = 1_000_000
_AGENT = "Mozilla/5.0 (compatible; large-to-small)"
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_NETWORK_FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError)


class TransferError(Exception):
    """An attempt that failed; `again` says whether the same address may do better next time."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class _CannotResumeError(TransferError):
    """A server that does not go on where the part ends; it may still send the whole file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, again=True)


@dataclass(frozen=True)
class _Origin:
    """Where the last bytes of a part come from.

    `validator` is the ETag or modification date with which a server vouches for the same file,
    `total_bytes` the length of the whole file there; None where the server does not tell.
    """

    address: str
    validator: str | None
    total_bytes: int | None


def transfer(
    address: str, part: Path, *, size_bytes: int | None, timeout_s: float
) -> tuple[Path, bool]:
    """The file that is whole by its length, and whether some of its bytes were there before.

    The file is the part, or, where the server sent all of it anew without making it longer, one
    beside the part, which is left for the caller to verify. What is sent anew and ends too soon
    takes the part's place only if it is longer.

    size_bytes: the published length, or None. timeout_s: the longest silence of the server.

    Raises TransferError. What came stays in the part; what came beyond the length is removed.
    """
    origin = _read_origin(part)
    if origin is None or (size_bytes is not None and known_bytes(part) > size_bytes):
        drop_part(part)
        origin = None
    offset = 0
    # Without a published length only the server itself can say that its file is still the same.
    if origin and (size_bytes or (origin.address == address and origin.validator)):
        offset = known_bytes(part)
        if offset in (size_bytes, origin.total_bytes):
            return part, True
    try:
        return _receive(address, part, offset, size_bytes, timeout_s)
    except _CannotResumeError:
        return _receive(address, part, 0, size_bytes, timeout_s)


def _receive(
    address: str, part: Path, offset: int, size_bytes: int | None, timeout_s: float
) -> tuple[Path, bool]:
    """One request, from `offset` on where the server can; what it sent anew lies beside a part."""
    origin = _read_origin(part)
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if offset and origin:
        headers["Range"] = f"bytes={offset}-"
        if origin.address == address and origin.validator:
            headers["If-Range"] = origin.validator
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  # ours: http or https
    # An opener of its own: the shared one keeps the proxies of the first call of all.
    with _named_faults(), urllib.request.build_opener().open(request, timeout=timeout_s) as reply:
        start = offset if reply.status == 206 else 0
        total = _total_bytes(reply.headers, start)
        if size_bytes and total not in (None, size_bytes):
            raise TransferError(f"offers {total} bytes, expected {size_bytes}", again=False)
        if start and origin and total and origin.total_bytes not in (None, total):
            raise _CannotResumeError("the file there has changed since the part was written")
        stated = _Origin(address, _validator(reply.headers), total)
        target = part if start or not known_bytes(part) else part.with_name(part.name + ".new")
        if target == part:
            write_json(_origin_path(part), asdict(stated))
        try:
            _copy(reply, target, start, total or size_bytes)
        except BaseException:
            if target != part:
                _keep_longer(target, part, stated)
            elif start and origin and part.stat().st_size == start:
                write_json(_origin_path(part), asdict(origin))
            elif not part.stat().st_size:
                drop_part(part)
            raise
    return target, start > 0


def _copy(reply: http.client.HTTPResponse, target: Path, start: int, total: int | None) -> None:
    name = target.name.removesuffix(".new").removesuffix(".part")
    progress = Progress(f"downloading {name}", (total or 0) // _MB, done=start // _MB, unit="MB")
    done = start
    with progress, target.open("r+b" if start else "wb") as file:
        file.seek(start)
        while chunk := reply.read(_CHUNK_BYTES):
            done += len(chunk)
            if total and done > total:
                file.truncate(start)
                reason = f"sends more than {total} bytes"
                raise _CannotResumeError(reason) if start else TransferError(reason, again=False)
            file.write(chunk)
            progress.total = max(progress.total, done // _MB)  # it may not be known before
            progress.advance(done // _MB - progress.done)
        if total and done < total:
            raise TransferError(f"cut off after {done} of {total} bytes", again=True)


def _keep_longer(successor: Path, part: Path, origin: _Origin) -> None:
    """At no moment does the JSON describe other bytes: whoever is stopped here leaves none."""
    if successor.stat().st_size > part.stat().st_size:
        _origin_path(part).unlink()
        successor.replace(part)
        write_json(_origin_path(part), asdict(origin))
    else:
        successor.unlink()


def _validator(headers: Message) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _total_bytes(headers: Message, start: int) -> int | None:
    if not start:
        length = headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != start:
        raise _CannotResumeError("the server resumed at another place")
    return None if found[2] == "*" else int(found[2])


@contextmanager
def _named_faults() -> Iterator[None]:
    """Faults of the network and of the disk, as TransferErrors."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                raise _CannotResumeError("the file there is no longer than the part") from error
            reason = f"HTTP {error.code} {error.reason}"
            raise TransferError(reason, again=error.code in _TRANSIENT_STATUS) from error
    except _NETWORK_FAULTS as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        raise TransferError(str(cause) or type(cause).__name__, again=not full) from error


def _read_origin(part: Path) -> _Origin | None:
    """What is known of a part; None where there is nothing to resume from."""
    try:
        return _Origin(**json.loads(_origin_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def known_bytes(part: Path) -> int:
    """The length of a part whose origin is known, else 0."""
    return part.stat().st_size if part.is_file() and _read_origin(part) is not None else 0


def drop_part(part: Path) -> None:
    """Remove a part, what is known of it, and what was to replace it."""
    for path in (part, _origin_path(part), part.with_name(part.name + ".new")):
        path.unlink(missing_ok=True)


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")
