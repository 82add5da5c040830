"""Files that appear whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FULL_BYTES = 1 << 16  # a disk with less free is full: what stays is less than libraries buffer


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    The file is synced to disk before it is renamed; on an error nothing stays behind. Raises
    OSError where the disk is full, which faiss, safetensors and torch each tell otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        free_bytes = shutil.disk_usage(path.parent).free
        if free_bytes < FULL_BYTES or "No space left" in str(error):
            raise OSError(errno.ENOSPC, "the disk is full: make room on it", str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path, end: str) -> Path:
    """What stands beside a folder while `replacing_folder` is at it: `part` and `former`."""
    return path.with_name(f".{path.name}.{end}")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its name when the block ends without an error.

    An earlier folder is renamed aside, and deleted when the new one stands in its place; what a
    killed process left aside is put back first. On an error the earlier one stays. A link stays,
    and what it leads to is replaced. Raises ValueError where another process is at it.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former, own = (beside(path, end) for end in ("part", "former", "part.lock"))
    lock = FileLock(own)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{path}: another process is writing it") from None

    def settle() -> None:
        if former.exists() and not path.exists():
            former.rename(path)
        for left in (temporary, former):
            shutil.rmtree(left, ignore_errors=True)

    try:
        settle()
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(former)
        temporary.rename(path)
    finally:
        settle()
        own.unlink(missing_ok=True)  # before another can have it
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a UTF-8 file that holds `text`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON: sorted keys, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The names and values of a JSON file. Raises ValueError for a file that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}): run `l2s study`") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is damaged (no table of names and values): run `l2s study`")
    return found


def file_md5(path: Path) -> str:
    """The MD5 of a file in hexadecimal, which is what dvc.lock knows it by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def content_md5(path: Path) -> str:
    """The MD5 of a file, or of the names and contents of all files below a folder."""
    if not path.is_dir():
        return file_md5(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    lines = [f"{file_md5(one)}  {one.relative_to(path).as_posix()}\n" for one in files]
    return hashlib.md5("".join(lines).encode(), usedforsecurity=False).hexdigest()


def known_md5(path: Path) -> str:
    """As `file_md5`; a file that stays as it was is read once by a process, however often asked."""
    s = path.stat()
    return _md5_of_state(path.absolute(), s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size)


@lru_cache(maxsize=256)
def _md5_of_state(path: Path, *state: int) -> str:
    return file_md5(path)


def user_path(given: str | Path, here: Path = Path()) -> Path:
    """A path that a user gave in the folder `here`, with a leading ~ or ~NAME replaced, unless
    `here` holds what is called so.
    """
    path = here / given
    return path if path.exists() else here / os.path.expanduser(given)  # noqa: PTH111


def is_utf8(name: str) -> bool:
    """Whether a name is text: Python stands for a byte that is none with a lone surrogate."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable_files(given: Path) -> Iterator[str]:
    """What of a file, or of the files below a folder, cannot be read to its end, and why.

    As DVC reads them: links to files are followed, links to folders are not.
    """
    walked: Iterable[tuple[str, list[str], list[str]]] = [(str(given.parent), [], [given.name])]
    if given.is_dir():
        walked = os.walk(str(given))
    for path in (os.path.join(parent, name) for parent, _, names in walked for name in names):  # noqa: PTH118
        if not is_utf8(path):
            yield f"{path!a}: is no name in UTF-8: rename it"
        elif os.path.isfile(path):  # noqa: PTH113
            if not os.access(path, os.R_OK):
                yield f"{path}: may not be read: change its permissions, or remove it"
        elif os.path.exists(path):  # noqa: PTH110
            yield f"{path}: is a pipe, a socket or a device: remove it"
        elif os.path.islink(path):  # noqa: PTH114
            yield f"{path}: is a link to nowhere, as editors leave as a lock: remove it"
