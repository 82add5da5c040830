"""Readers and writers of one index of vectors: readers see one state, writers wait for one another.

What a reader opens names files that a writer deletes, or exchanges for others of the same names,
while the reader is at it. So it looks whether the state is the same when it has opened all.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.search.faiss_index import PARTS
from pipeline.search.vector_index import CARD, VectorIndexCard, read_card

EXCHANGE_S = 1.0  # two renames of folders take milliseconds
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
    former, until_s = _former(home), time.monotonic() + EXCHANGE_S
    while not (home / CARD).is_file() and former.exists():
        if time.monotonic() > until_s:
            raise ValueError(
                f"{folder}: the build that was to replace it was killed as it did: `l2s index add` "
                "or `l2s index build` puts it in order"
            )
        time.sleep(0.002)
    return [_stamp(home / name) for name in (CARD, PARTS)]


def _former(home: Path) -> Path:
    return home.with_name(f".{home.name}.former")


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
