"""One attempt to bring a file from one address into a .part file, resuming what is there."""

import errno
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path

_CHUNK_BYTES = 1 << 16
_AGENT = "Mozilla/5.0 (compatible; large-to-small)"
_SCHEMES = ("https://", "http://", "ftp://")
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_NETWORK_FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError)

OnProgress = Callable[[int, int | None], None]


class TransferError(Exception):
    """An attempt that failed; `again` says whether the same address may do better next time."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class PartOrigin:
    """Where the bytes of a .part file come from; it lies beside it as JSON.

    `validator` is the ETag or modification date with which a server vouches for the same file.
    """

    address: str
    validator: str | None
    total_bytes: int | None


def transfer(
    address: str,
    part: Path,
    *,
    size_bytes: int | None,
    timeout_s: float,
    on_progress: OnProgress | None = None,
) -> bool:
    """Complete `part` from `address`; True where it was resumed, False where it began anew.

    A part is resumed if the server vouches that its file is the same (If-Range), or, without such
    a statement or from another address, if the length is the expected one. A server that knows no
    ranges sends the whole file, which replaces the part. FTP always begins anew.

    size_bytes: the expected length, or None. timeout_s: the longest silence of the server.
    on_progress: told the bytes that are there and the total, None where it is unknown.

    Raises TransferError. The part stays for the next attempt unless its bytes are of no use.
    """
    origin = read_origin(part)
    offset = part.stat().st_size if part.is_file() and origin is not None else 0
    if origin is not None and not _may_resume(origin, address, offset, size_bytes):
        offset = 0
    if offset and offset in (size_bytes, origin.total_bytes if origin else None):
        return True
    try:
        request = _request(address, offset, origin)
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310  # checked
            resumed = offset > 0 and reply.status == 206
            start = offset if resumed else 0
            total = _total_bytes(reply.headers, resumed, offset)
            _check_total(total, size_bytes, origin if resumed else None)
            _write_origin(part, PartOrigin(address, _validator(reply.headers), total))
            done = _append(reply.read, part, start, total or size_bytes, on_progress)
            _check_end(done, total, size_bytes)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                drop_part(part)
                raise TransferError(
                    "the file there is shorter than the part", again=True
                ) from error
            reason = f"HTTP {error.code} {error.reason}"
            raise TransferError(reason, again=error.code in _TRANSIENT_STATUS) from error
    except _UselessPartError as error:
        drop_part(part)
        raise TransferError(str(error), again=error.again) from error
    except _NETWORK_FAULTS as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = str(cause) or type(cause).__name__
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        raise TransferError(reason, again=not full) from error
    return resumed


def read_origin(part: Path) -> PartOrigin | None:
    """What is known of a part; None where there is nothing to resume from."""
    try:
        return PartOrigin(**json.loads(_origin_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def drop_part(part: Path) -> None:
    """Remove a part and what is known of it."""
    part.unlink(missing_ok=True)
    _origin_path(part).unlink(missing_ok=True)


class _UselessPartError(TransferError):
    pass


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _may_resume(origin: PartOrigin, address: str, offset: int, size_bytes: int | None) -> bool:
    if address.startswith("ftp:") or (size_bytes is not None and offset > size_bytes):
        return False
    vouched = origin.address == address and origin.validator is not None
    return vouched or size_bytes is not None


def _request(address: str, offset: int, origin: PartOrigin | None) -> urllib.request.Request:
    if not address.startswith(_SCHEMES):
        raise ValueError(f"{address}: must begin with one of {', '.join(_SCHEMES)}")
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if offset and origin is not None:
        headers["Range"] = f"bytes={offset}-"
        if origin.address == address and origin.validator is not None:
            headers["If-Range"] = origin.validator
    return urllib.request.Request(address, headers=headers)  # noqa: S310  # checked above


def _validator(headers: Message) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _total_bytes(headers: Message, resumed: bool, offset: int) -> int | None:
    if not resumed:
        length = headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != offset:
        raise _UselessPartError("the server resumed at another place", again=True)
    return None if found[3] == "*" else int(found[3])


def _check_total(total: int | None, size_bytes: int | None, origin: PartOrigin | None) -> None:
    """Refuse a file of a wrong length before a byte of it is written."""
    if total is None:
        return
    if origin is not None and origin.total_bytes not in (None, total):
        raise _UselessPartError("the file there has changed since the part was written", again=True)
    if size_bytes is not None and total != size_bytes:
        raise TransferError(f"offers {total} bytes, expected {size_bytes}", again=False)


def _append(
    read: Callable[[int], bytes],
    part: Path,
    start: int,
    total: int | None,
    on_progress: OnProgress | None,
) -> int:
    """Write what is read into the part from `start`; the length of the part."""
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while chunk := read(_CHUNK_BYTES):
            done += len(chunk)
            if total is not None and done > total:
                raise _UselessPartError(f"sends more than {total} bytes", again=False)
            file.write(chunk)
            if on_progress is not None:
                on_progress(done, total)
    return done


def _check_end(done: int, total: int | None, size_bytes: int | None) -> None:
    if total is not None and done < total:
        raise TransferError(f"cut off after {done} of {total} bytes", again=True)
    if total is None and size_bytes is not None and done < size_bytes:
        # A short reply that never said its length may as well be an error page: not resumed.
        raise _UselessPartError(f"ended after {done} bytes, expected {size_bytes}", again=True)


def _write_origin(part: Path, origin: PartOrigin) -> None:
    _origin_path(part).write_text(json.dumps(asdict(origin)), encoding="utf-8")
