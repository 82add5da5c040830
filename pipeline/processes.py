"""Processes: whether one still lives, and groups on disk, so that nothing outlives a study."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.files import write_json
from pipeline.paths import WORK

FOLDER = WORK / "processes"
# Patience after each signal. SIGINT lets DVC release its locks and a training note its state.
SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def start_mark(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None when it does not live.

    Seconds from the boot to its start: unlike the time of day they stay when the clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time() - psutil.boot_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def own_name() -> dict[str, str]:
    """What this process leaves behind, for others to ask after it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": str(pid), "process_start": start_mark(pid) or ""}


def is_dead(name: dict[str, str]) -> bool:
    """Whether the process of that name has ended; never said of one on another machine."""
    if name.get("host") != socket.gethostname() or not name.get("pid", "").isdigit():
        return False
    return start_mark(int(name["pid"])) != name.get("process_start")


def command_of(pid: int) -> str | None:
    """The arguments of a living process, joined by spaces; None when it does not live."""
    try:
        return " ".join(psutil.Process(pid).cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


@dataclass(frozen=True)
class GroupRecord:
    """A process group, led by the process of the same number in a session of its own.

    `owner` is the process that started it and looks after it, told apart by `owner_started`.
    """

    name: str
    group: int
    started: str
    owner: int = 0
    owner_started: str = ""


def group_members(group: int) -> list[int]:
    """The living processes of a group."""
    return [pid for pid in psutil.pids() if _group_of(pid) == group and start_mark(pid)]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def record_group(name: str, pid: int) -> Path:
    """Note a process that leads its own session; the file goes when the group has ended."""
    path = FOLDER / f"{name}.json"
    own = os.getpid()
    record = GroupRecord(name, pid, start_mark(pid) or "", own, start_mark(own) or "")
    write_json(path, asdict(record))
    return path


def end_group(group: int, patience: Callable[[], bool] = lambda: True) -> None:
    """End a process group: SIGINT, then SIGTERM, then SIGKILL. `patience()` False: at once."""
    for number, seconds in SIGNALS:
        if not patience() and number != signal.SIGKILL:
            continue
        if not group_members(group):
            return
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while (
            group_members(group)
            and time.monotonic() < until
            and (patience() or number == signal.SIGKILL)
        ):
            time.sleep(0.05)


def end_leftovers(keep: Collection[str] = (), *, own: bool = True) -> list[str]:
    """End the recorded groups that nobody looks after; the names of what lived.

    Those are the groups of dead processes, and with `own` those of this one. Groups of another
    process that lives stay, and so do those of the names in `keep`.
    """
    ended = []
    for path in sorted(FOLDER.glob("*.json")):
        if path.stem in keep:
            continue
        record = GroupRecord(**json.loads(path.read_text()))
        if (not own or record.owner != os.getpid()) and _has_owner(record):
            continue
        if _is_ours(record):
            end_group(record.group)
            ended.append(record.name)
        path.unlink(missing_ok=True)
    return ended


def _has_owner(record: GroupRecord) -> bool:
    return record.owner != 0 and start_mark(record.owner) == record.owner_started


def _is_ours(record: GroupRecord) -> bool:
    """Whether the group still is the one that was recorded.

    A number is not given anew while its group lives. So either the leader is the recorded process,
    or it is gone and what is left of the group works in this folder.
    """
    leader = start_mark(record.group)
    if leader is not None:
        return leader == record.started
    return any(_folder_of(pid) == str(Path.cwd()) for pid in group_members(record.group))


def _folder_of(pid: int) -> str | None:
    try:
        return psutil.Process(pid).cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
