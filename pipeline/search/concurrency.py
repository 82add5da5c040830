"""Readers and writers of one index of vectors: readers see one state, writers wait for one another.

What a reader opens names files that a writer deletes, or exchanges for others of the same names,
while the reader is at it. So it looks whether the state is the same when it has opened all.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from pipeline.files import beside
from pipeline.search.faiss_index import PARTS, Parts
from pipeline.search.stores import LOCAL, TABLE
from pipeline.search.vector_index import CARD, VectorIndexCard, is_vector_index, read_card

EXCHANGE_S = 1.0  # two renames of folders take milliseconds
WRITTEN = ("part-*.vectors", "part-*.arrow", "structure-*.faiss", "removed-*.npy")
T = TypeVar("T")


def in_force(folder: Path, read: Callable[[VectorIndexCard], T]) -> T:
    """What is read of an index, all of one state: anew where a writer has put another in force.

    Raises ValueError where there is no index, and what `read` raises of a state that stays.
    """
    while True:
        state = _state(folder)
        try:
            found = read(read_card(folder))
        except (ValueError, OSError):
            if _state(folder) == state:
                raise
        else:
            if _state(folder) == state:
                return found


def _state(folder: Path) -> list[tuple[int, int] | None]:
    """What differs when one of the files is replaced that say what is in force.

    While a build renames the former folder aside and its own into its place (`replacing_folder`),
    it waits. Raises ValueError where the build was killed there.
    """
    home = folder.resolve()
    former, until_s = beside(home, "former"), time.monotonic() + EXCHANGE_S
    while not (home / CARD).is_file() and former.exists():
        if time.monotonic() > until_s:
            raise ValueError(
                f"{folder}: the build that was to replace it was killed as it did: `l2s index add` "
                "or `l2s index build` puts it in order"
            )
        time.sleep(0.002)
    return [_stamp(home / name) for name in (CARD, PARTS)]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """The folder with its name, which "." has not. The next writer of the index waits.

    An index that a killed build renamed aside is put back, and what killed writers left is deleted.
    """
    home = folder.resolve()
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(beside(home, "lock")):
        former, half_built = beside(home, "former"), beside(home, "part")
        if former.exists() and not home.exists():
            former.rename(home)
        if is_vector_index(home):
            for left in (former, half_built):
                shutil.rmtree(left, ignore_errors=True)
            with suppress(ValueError):  # of a damaged index, which opening it tells
                for file in _left_over(home):
                    file.unlink()
        yield home


def foreign_in(folder: Path) -> str:
    """What speaks against the replacing of a folder, in words; empty where it is an index, damaged
    or not, or is not there.
    """
    if not folder.exists():
        return ""
    if not (folder / CARD).is_file():
        return f"it has no {CARD}"
    own = (CARD, PARTS, *WRITTEN, ".*.part", f"{TABLE}.lance", LOCAL)
    names = sorted(file.name for file in folder.iterdir())
    if others := [name for name in names if not any(fnmatch(name, one) for one in own)]:
        return f"it holds {others[0]}"
    if names == [CARD]:  # as of one that a server keeps
        try:
            read_card(folder)
        except ValueError:
            return f"its {CARD} is of something else"
    return ""


def _left_over(folder: Path) -> list[Path]:
    """The files of an index, of any kind, that killed writers left: temporary ones, and those that
    they had not put in force. Raises ValueError for damaged parts.json.
    """
    left = [file for file in folder.glob(".*.part") if file.is_file()]  # of `replacing`
    if (state := folder / PARTS).is_file():
        parts = Parts.model_validate_json(state.read_bytes())
        known = {parts.structure, parts.removed}
        known |= {f"part-{n}.{end}" for n in range(len(parts.rows)) for end in ("vectors", "arrow")}
        written = chain.from_iterable(map(folder.glob, WRITTEN))
        left += [file for file in written if file.name not in known]
    return left
