"""One attempt to bring a file from an HTTP address into a .part file, going on where it ends.

NAME.part.json beside NAME.part says which file of which address the part is the beginning of. Both
stay when a transfer ends too soon, for the next attempt or call.
"""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from pipeline.files import read_json, write_json
from pipeline.progress import Progress

TIMEOUT_S = 60.0  # the longest silence of a server
_CHUNK_BYTES = 1 << 16
_MB = 1_000_000
_AGENT = "Mozilla/5.0 (compatible; large-to-small)"


class TransferError(Exception):
    """An attempt that failed; `again` says whether the same address may do better next time."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def transfer(address: str, part: Path, size_bytes: int | None) -> bool:
    """Bring the file into `part`; whether some of its bytes were there before.

    A part is gone on with where the server vouches, by its ETag or modification date, that its file
    is the same; else the file comes anew. size_bytes: the published length, or None.

    Raises TransferError. What came stays in the part, unless it is none of the file.
    """
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    start, origin = known_bytes(part), _origin(part)
    if start and origin["address"] == address:
        headers |= {"Range": f"bytes={start}-", "If-Range": origin["validator"]}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  # ours: http or https
    try:
        # An opener of its own: the shared one keeps the proxies of the first call of all.
        with urllib.request.build_opener().open(request, timeout=TIMEOUT_S) as reply:
            return _receive(reply, address, part, size_bytes)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing follows: the part is whole
            return True
        again = error.code >= 500 or error.code in (408, 425, 429)
        raise TransferError(f"HTTP {error.code} {error.reason}", again=again) from error
    except (http.client.HTTPException, OSError) as error:
        cause = getattr(error, "reason", error)
        raise TransferError(str(cause) or type(cause).__name__, again=True) from error


def _receive(
    reply: http.client.HTTPResponse, address: str, part: Path, size_bytes: int | None
) -> bool:
    start = known_bytes(part) if reply.status == 206 else 0
    place = reply.headers.get("Content-Range", "")
    if start and not place.startswith(f"bytes {start}-"):
        drop_part(part)
        raise TransferError("the server resumed at another place", again=True)
    total = size_bytes if reply.length is None else start + reply.length
    if size_bytes not in (None, total):
        raise TransferError(f"offers {total} bytes, expected {size_bytes}", again=False)
    if not start:
        drop_part(part)
        etag = reply.headers.get("ETag", "W/")
        validator = reply.headers.get("Last-Modified") if etag.startswith("W/") else etag
        if validator:
            write_json(_origin_path(part), {"address": address, "validator": validator})
    done, name = start, part.name.removesuffix(".part")
    progress = Progress(f"downloading {name}", (total or 0) // _MB, done=start // _MB, unit="MB")
    with progress, part.open("ab") as file:
        while chunk := reply.read(_CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if total and done > total:
                drop_part(part)
                raise TransferError(f"sends more than {total} bytes", again=start > 0)
            progress.total = max(progress.total, done // _MB)  # it may not be known before
            progress.advance(done // _MB - progress.done)
        if total and done < total:
            raise TransferError(f"cut off after {done} of {total} bytes", again=True)
    return start > 0


def known_bytes(part: Path) -> int:
    """The length of a part that can be gone on with, else 0."""
    return part.stat().st_size if part.is_file() and _origin(part) else 0


def drop_part(part: Path) -> None:
    """Remove a part and what is known of it."""
    part.unlink(missing_ok=True)
    _origin_path(part).unlink(missing_ok=True)


def _origin(part: Path) -> dict[str, str]:
    """The address of a part and the server's name of the file; empty where they are not known."""
    path = _origin_path(part)
    return read_json(path) if path.is_file() else {}


def _origin_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")
