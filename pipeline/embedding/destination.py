"""The folder of vectors, written to and read from: on a disk, or in a store by an address."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from pipeline.datasets.object_storage import (
    check_address,
    check_own_address,
    is_address,
    listed_at,
    shown_address,
    store_errors,
)
from pipeline.datasets.reader import DatasetError
from pipeline.datasets.vectors import Vectors, open_folder
from pipeline.files import replacing, user_path

_LOCK = ".embed.lock"


def destination_of(given: str, here: Path, option: str = "--to") -> "Destination":
    """What a user names by an option: an address, or a path that refers to the folder `here`.

    Raises DatasetError for an address of no known form, and one that holds a password.
    """
    if not is_address(given):
        return Destination(str(user_path(given, here).resolve()))
    check_own_address(option, given)
    return Destination(given.rstrip("/"))


def may_open(named: str, allow: Sequence[str]) -> bool:
    """Whether to open what a file names, not the user: a path, or an address under one of `allow`,
    SCHEME://BUCKET each.
    """
    if not is_address(named):
        return True
    try:
        check_address("", named, allow)
    except DatasetError:
        return False
    return True


@dataclass(frozen=True)
class Destination:
    """An absolute path or SCHEME://BUCKET/NAME. A file is there whole or not at all.

    On a disk it is written beside and renamed; a store shows an object when all of it is there.
    All raise DatasetError for a store that cannot be reached, OSError for a full disk.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def is_remote(self) -> bool:
        return is_address(self.address)

    @property
    def bucket(self) -> str:
        """SCHEME://BUCKET of an address."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    def names(self) -> frozenset[str]:
        """The names of the files that are there."""
        if not self.is_remote:
            folder = Path(self.address)
            return (
                frozenset(one.name for one in folder.iterdir()) if folder.is_dir() else frozenset()
            )
        store, root = self._store()
        with store_errors(shown_address(self.address)):
            store.invalidate_cache()
            # Without this s3fs lists all that lies beside a place where nothing is.
            found = listed_at(store, root) if store.exists(root) else []
        return frozenset(one["name"].rstrip("/").rpartition("/")[2] for one in found)

    def put(self, name: str, content: bytes) -> None:
        """Write a file, in place of what is there."""
        with self.replacing(name) as file:
            file.write_bytes(content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if not self.is_remote:
            Path(self.address, name).unlink(missing_ok=True)
            return
        store, root = self._store()
        with suppress(FileNotFoundError), store_errors(shown_address(self.address)):
            store.rm_file(f"{root}/{name}")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary path on this machine's disk, what is written to which takes the name."""
        if not self.is_remote:
            with replacing(Path(self.address, name)) as temporary:
                yield temporary
            return
        with TemporaryDirectory() as folder:
            temporary = Path(folder, name)
            yield temporary
            store, root = self._store()
            with store_errors(shown_address(self.address)):
                store.put_file(str(temporary), f"{root}/{name}")

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A file to read from any place in it. Raises FileNotFoundError.

        Of a store any OSError in the block is told as the store's.
        """
        if not self.is_remote:
            with Path(self.address, name).open("rb") as file:
                yield file
            return
        store, root = self._store()
        with store_errors(shown_address(self.address)), store.open(f"{root}/{name}", "rb") as file:
            yield file

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A file on this machine's disk, of a store a copy for as long as the block runs.

        Raises FileNotFoundError.
        """
        if not self.is_remote:
            yield Path(self.address, name)
            return
        store, root = self._store()
        with TemporaryDirectory() as folder:
            copy = Path(folder, name)
            with store_errors(shown_address(self.address)):
                store.get_file(f"{root}/{name}", str(copy))
            yield copy

    def vectors(self) -> Vectors:
        """What `l2s embed` has put here, opened. Raises VectorsError as `open_folder` does."""
        return open_folder(str(self), self.names(), self.fetched)

    def read(self, name: str) -> bytes:
        """All of a file. Raises FileNotFoundError."""
        with self.opened(name) as file:
            return file.read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """As the only one that embeds into a folder of this machine. Raises ValueError.

        In a store nobody is kept out: two write the same bytes twice, unless the source changes.
        """
        if self.is_remote:
            yield
            return
        folder = Path(self.address)
        if folder.is_file():
            raise ValueError(f"{folder}: is a file: name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / _LOCK, timeout=0):
                yield
        except Timeout as error:
            raise ValueError(f"{folder}: another `l2s embed` is writing to it") from error

    def _store(self) -> tuple[Any, str]:
        import fsspec

        with store_errors(shown_address(self.address)):
            store, root = fsspec.url_to_fs(self.address)
        return store, root.rstrip("/")
