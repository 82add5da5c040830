"""Images in object storage, by addresses that the user allows.

Keys and passwords are those of the environment, as fsspec and its libraries take them: no address,
file or message of this program holds one.
"""

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.reader import MAX_FILE_BYTES, DatasetError

SCHEMES = ("s3", "gs", "memory")
# By what stores tell one content of an object from another, the surest first.
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
_STORE_FAULTS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)


def is_address(text: str) -> bool:
    """Whether what the user gave is an address, of whichever kind, and no path."""
    return "://" in text


def check_own_address(source: str, address: str) -> None:
    """As `check_address`, of an address that the user typed, who thereby allows its bucket."""
    parts = urlsplit(address)
    check_address(source, address, [f"{parts.scheme}://{parts.netloc}"])


def content_mark(told: Mapping[str, Any]) -> str:
    """What a store `told` of an object's content: as long as it stays, so does the object."""
    return next((str(told[key]) for key in _MARKS if told.get(key)), "")


def listed_at(store: Any, place: str) -> list[Mapping[str, Any]]:
    """What a store tells of what lies at a place, anew, but for the place itself: a console's
    "Create folder" leaves an empty object there.

    Raises FileNotFoundError, and DatasetError for names with an empty part, which no path has.
    """
    store.invalidate_cache()
    found = store.ls(place, detail=True)
    store.invalidate_cache()
    own = [one for one in found if one["name"].rstrip("/") == place]
    if any(one["type"] == "directory" and not content_mark(one) for one in own):
        raise DatasetError(f"{place}: holds objects with // in their names: rename them")
    return [one for one in found if one not in own]


def check_address(source: str, address: str, allow: Sequence[str]) -> None:
    """Raise DatasetError for an address of no known form, or under none of `allow`."""
    parts = urlsplit(address)
    shown = shown_address(address)
    if parts.username is not None or parts.password is not None:
        raise DatasetError(
            f"{source}: {shown}: holds a name or password, which belong into the environment, as "
            "fsspec reads them"
        )
    if parts.scheme not in SCHEMES or parts.query or parts.fragment or "::" in address:
        raise DatasetError(f"{source}: {shown}: must be SCHEME://BUCKET/NAME of {SCHEMES}")
    if f"{parts.scheme}://{parts.netloc}" not in [one.rstrip("/") for one in allow]:
        allowed = ", ".join(allow) or "none"
        raise DatasetError(
            f"{source}: {shown}: is not allowed: source.allow (of `l2s embed` --allow) names "
            f"SCHEME://BUCKET of the addresses that may be opened; now: {allowed}"
        )


def shown_address(address: str) -> str:
    """The address for messages: without what may be a secret."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def read_object(address: str, name: str) -> bytes:
    """The bytes of the image `name` at an address that `check_address` has let through.

    Raises UnreadableImage for an object that is not there or too large, DatasetError for a store
    that cannot be reached, refuses, or needs a library that is not installed.
    """
    import fsspec

    shown, parts = shown_address(address), urlsplit(address)
    bucket = f"{parts.scheme}://{parts.netloc}"
    try:
        with store_errors(shown):
            store, root = fsspec.url_to_fs(bucket)  # of an address it would cut a name at "::"
            with store.open(root + address[len(bucket) :], "rb") as file:
                content: bytes = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise UnreadableImage(name, f"there is no {shown}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"has more than {MAX_FILE_BYTES} bytes")
    return content


@contextmanager
def store_errors(shown: str) -> Iterator[None]:
    """Faults of a store, by its address as messages may show it, as DatasetErrors; but for what is
    not there, and a full disk.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise DatasetError(
            f"{shown}: {error}: pip install 'large-to-small[storage]' brings s3fs; gs:// needs "
            "gcsfs"
        ) from error
    except _store_faults() as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        reason = type(error).__name__  # its words may hold a key
        raise DatasetError(
            f"{shown}: the store cannot be reached, or refuses ({reason})"
        ) from error


def _store_faults() -> tuple[type[Exception], ...]:
    """What is raised where a store is not there or refuses, by the libraries that are loaded."""
    loaded = [(sys.modules.get(module), name) for module, name in _STORE_FAULTS]
    found = [getattr(module, name) for module, name in loaded if module is not None]
    return (OSError, *found)
