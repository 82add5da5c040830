"""dvc.lock after a parallel study: the order of a serial one, and no entries of lost stages."""

import io
import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.files import write_text
from pipeline.paths import LOCK, WORK, LockConflictError, parse_lock
from pipeline.processes import command_of

GOOD_COPY = WORK / "dvc.lock"
PATH_LOCKS = Path(".dvc/tmp/rwlock")
WRITING_S = 0.5  # longer than DVC takes to write either file


def sorted_lock(text: str, order: Sequence[str], without: Collection[str] = ()) -> str:
    """The text of a dvc.lock with its entries in the given order, as DVC writes it.

    Entries that `order` does not know come last; those in `without` are left out.
    """
    data = parse_lock(text)
    entries = data.get("stages") or {}
    names = dict.fromkeys([*order, *entries])
    data["stages"] = {
        name: entries[name] for name in names if name in entries and name not in without
    }
    yaml = YAML()
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def normalise_lock(order: Sequence[str]) -> None:
    """Give dvc.lock the order of a serial `dvc repro`. DVC must be at rest."""
    if LOCK.exists():
        text = LOCK.read_text(encoding="utf-8")
        ordered = sorted_lock(text, order)
        if ordered != text:
            write_text(LOCK, ordered)
        _keep_copy()


def _keep_copy() -> None:
    """Keep the last dvc.lock that could be read: DVC does not write it in one piece."""
    GOOD_COPY.parent.mkdir(exist_ok=True)
    if LOCK.exists() and _is_sound(LOCK):
        shutil.copyfile(LOCK, GOOD_COPY)


def heal_locks() -> list[str]:
    """Repair what a DVC process that was killed in mid-writing left; a line for each repair.

    No stage may be running. The entries that a restored dvc.lock lacks come from DVC's run cache.
    A sound dvc.lock is kept as a copy for the next time. Raises LockConflictError: which side of
    a merge counts is not ours to say.
    """
    healed = []
    if _is_broken(LOCK, _is_sound):
        if GOOD_COPY.exists():
            write_text(LOCK, GOOD_COPY.read_text(encoding="utf-8"))
        else:
            LOCK.unlink()
        healed.append("dvc.lock was written half: its last sound state is restored")
    if _is_broken(PATH_LOCKS, _is_in_use):
        PATH_LOCKS.unlink()
        healed.append("released what a run that was stopped here had locked")
    _keep_copy()
    return healed


def _is_broken(path: Path, is_whole: Callable[[Path], bool]) -> bool:
    """Whether a file is there, is not whole, and nobody is just writing it."""
    if not path.exists() or is_whole(path):
        return False
    time.sleep(WRITING_S)
    return path.exists() and not is_whole(path)


def _is_in_use(path: Path) -> bool:
    """Whether DVC's locks of paths can be read, and a process that lives holds one, or none does.

    DVC itself ignores those of dead processes, unless their number is that of another one now.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    holders = [*held.get("write", {}).values(), *chain(*held.get("read", {}).values())]
    return not holders or any(map(_is_living_dvc, holders))


def _is_living_dvc(holder: Mapping[str, Any]) -> bool:
    """Whether the process that took a lock still lives: same number, same arguments."""
    command = command_of(int(holder["pid"]))
    return command is not None and command.endswith(str(holder["cmd"]).partition(" ")[2])


def _is_sound(path: Path) -> bool:
    try:
        data = parse_lock(path.read_text(encoding="utf-8"))
    except LockConflictError:
        raise
    except ValueError:
        return False
    entries = data.get("stages")
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and "cmd" in entry for entry in entries.values()
    )
