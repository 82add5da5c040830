"""One attempt to bring a file from one address into a .part file, resuming what is there."""

import errno
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.datasets.ftp_transfers import open_ftp
from pipeline.datasets.parts import (
    CannotResumeError,
    OnProgress,
    PartOrigin,
    Reply,
    TransferError,
    drop_part,
    fill_part,
    known_bytes,
    read_origin,
)

_AGENT = "Mozilla/5.0 (compatible; large-to-small)"
_SCHEMES = ("https://", "http://", "ftp://")
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_NETWORK_FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Transferred:
    """A file that is whole by its length. `resumed`: some of its bytes were there before."""

    path: Path
    resumed: bool


def transfer(
    address: str,
    part: Path,
    *,
    size_bytes: int | None,
    timeout_s: float,
    on_progress: OnProgress | None = None,
) -> Transferred:
    """The file that `address` gives: `part`, or NAME.part.new where the part was longer.

    A part is resumed if the server vouches that its file is the same (If-Range), or, without such
    a statement or from another address, if the length is the expected one: whether the bytes
    belong together is for a checksum to say. A server that does not resume sends the whole file,
    which replaces the part when it has become longer; until then the disk holds both.

    size_bytes: the expected length, or None. timeout_s: the longest silence of the server.
    on_progress: told the bytes that are there and the total, None where it is unknown.

    Raises TransferError. The longest part stays for the next attempt unless it is of no use.
    """
    if not address.startswith(_SCHEMES):
        raise ValueError(f"{address}: must begin with one of {', '.join(_SCHEMES)}")
    origin = read_origin(part)
    if origin is None or (size_bytes is not None and known_bytes(part) > size_bytes):
        drop_part(part)
        origin = None
    offset = known_bytes(part) if _may_resume(origin, address, size_bytes) else 0
    if origin is not None and offset and offset in (size_bytes, origin.total_bytes):
        return Transferred(part, resumed=True)

    def receive(start: int) -> Transferred:
        with _open(address, start, origin, size_bytes, timeout_s) as reply:
            _check_total(reply, origin, size_bytes)
            path = fill_part(part, reply, size_bytes=size_bytes, on_progress=on_progress)
            return Transferred(path, resumed=reply.start > 0)

    with _named_faults():
        try:
            return receive(offset)
        except CannotResumeError as refusal:
            if isinstance(refusal, _NothingFollowsError) and _was_whole(origin, address):
                drop_part(part)
            return receive(0)


class _NothingFollowsError(CannotResumeError):
    pass


def _may_resume(origin: PartOrigin | None, address: str, size_bytes: int | None) -> bool:
    if origin is None or size_bytes is not None:
        return origin is not None
    told = origin.total_bytes if _is_direct_ftp(address) else origin.validator
    return origin.address == address and told is not None


def _was_whole(origin: PartOrigin | None, address: str) -> bool:
    """Nothing follows a part whose server never told its length: it was the whole of a page."""
    return origin is not None and origin.address == address and origin.total_bytes is None


def _is_direct_ftp(address: str) -> bool:
    """An FTP address that no proxy, which would speak HTTP, is asked for."""
    if not address.startswith("ftp:"):
        return False
    host = urlsplit(address).netloc
    return "ftp" not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(host))


@contextmanager
def _open(
    address: str,
    offset: int,
    origin: PartOrigin | None,
    size_bytes: int | None,
    timeout_s: float,
) -> Iterator[Reply]:
    if _is_direct_ftp(address):
        part_total = origin.total_bytes if origin is not None else None
        with open_ftp(
            address, offset, size_bytes=size_bytes, part_total=part_total, timeout_s=timeout_s
        ) as reply:
            yield reply
        return
    request = _request(address, offset, origin)
    try:
        # An opener of its own: the shared one keeps the proxies of the first call of all.
        opened = urllib.request.build_opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:
            error.close()
            raise _NothingFollowsError("the file there is no longer than the part") from error
        raise
    with opened as http_reply:
        start = offset if http_reply.status == 206 else 0
        total = _total_bytes(http_reply.headers, start)
        stated = PartOrigin(address, _validator(http_reply.headers), total)
        yield Reply(stated, start, http_reply.read)


def _request(address: str, offset: int, origin: PartOrigin | None) -> urllib.request.Request:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if offset and origin is not None:
        headers["Range"] = f"bytes={offset}-"
        if origin.address == address and origin.validator is not None:
            headers["If-Range"] = origin.validator
    return urllib.request.Request(address, headers=headers)  # noqa: S310  # checked by transfer


def _validator(headers: Message) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _total_bytes(headers: Message, start: int) -> int | None:
    if not start:
        length = headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != start:
        raise CannotResumeError("the server resumed at another place")
    return None if found[3] == "*" else int(found[3])


def _check_total(reply: Reply, origin: PartOrigin | None, size_bytes: int | None) -> None:
    """Refuse a file of a wrong length before a byte of it is written."""
    total = reply.origin.total_bytes
    if total is None:
        return
    if size_bytes is not None and total != size_bytes:
        raise TransferError(f"offers {total} bytes, expected {size_bytes}", again=False)
    if reply.start and origin is not None and origin.total_bytes not in (None, total):
        raise CannotResumeError("the file there has changed since the part was written")


@contextmanager
def _named_faults() -> Iterator[None]:
    """Faults of the network and of the disk, as TransferErrors."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {error.reason}"
            raise TransferError(reason, again=error.code in _TRANSIENT_STATUS) from error
    except _NETWORK_FAULTS as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = str(cause) or type(cause).__name__
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        raise TransferError(reason, again=not full) from error
