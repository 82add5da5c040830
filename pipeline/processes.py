"""Processes: whether one still lives, and groups on disk, so that nothing outlives a study."""

import json
import os
import re
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pipeline.files import write_json
from pipeline.paths import WORK

Told = TypeVar("Told")
FOLDER = WORK / "processes"
# Patience after each signal. SIGINT lets DVC release its locks and a training note its state.
SIGNALS = (("SIGINT", 10.0), ("SIGTERM", 5.0), ("SIGKILL", 5.0))  # Windows has not all of them

# Of this process and of those that it starts, where they are not set; libraries read most of them
# when they are imported.
SETTINGS = {
    "DO_NOT_TRACK": "1",  # Prefect's clients
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # through which timm fetches weights that are asked for
    # Fresh memory of large tensors costs a quarter in huge pages; torch reads this with its first.
    "THP_MEM_ALLOC_ENABLE": "1",
}

NO_MEMORY = re.compile("(?i)out of memory|allocate memory|failed to map segment|bad_alloc")


def prepare_process() -> None:
    """What holds for each process of ours, before it imports much: no library calls out, and no
    proxy stands before the servers of this machine.

    What Pillow only warns of is told nobody, as it changes no result.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    named = [one.strip() for one in given.split(",")]
    every = ["*"] if "*" in named else [*named, "127.0.0.1", "localhost"]  # * holds alone only
    direct = ",".join(filter(None, dict.fromkeys(every)))
    os.environ |= {"no_proxy": direct, "NO_PROXY": direct}
    warnings.filterwarnings("ignore", module="PIL")


def own_cores() -> int:
    """How many cores this process may run on."""
    is_linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if is_linux else os.cpu_count() or 1


def memory_fault(error: Exception) -> str | None:
    """In words, where an error comes of too little memory, which libraries tell in many ways."""
    text = str(error)
    if not isinstance(error, MemoryError) and not NO_MEMORY.search(text):
        return None
    limit = -1
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = "" if limit < 0 else f"; `ulimit -v` allows a process {limit >> 20} MiB: raise it"
    return f"too little memory ({text.strip() or type(error).__name__}){limited}"


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


def process_name(pid: int) -> dict[str, str]:
    """What tells a process of this machine, for others to ask after it."""
    return {"host": socket.gethostname(), "pid": str(pid), "process_start": start_mark(pid) or ""}


def own_name() -> dict[str, str]:
    """The name of this process."""
    return process_name(os.getpid())


def is_dead(name: Mapping[str, Any]) -> bool:
    """Whether the process of that name has ended; never said of one on another machine."""
    if name.get("host") != socket.gethostname() or not name.get("pid", "").isdigit():
        return False
    return start_mark(int(name["pid"])) != name.get("process_start")


def command_of(pid: int) -> str | None:
    """The arguments of a living process, joined by spaces; None when it does not live."""
    words = _told(pid, psutil.Process.cmdline)
    return None if words is None else " ".join(words).strip()


def _told(pid: int, question: Callable[[psutil.Process], Told]) -> Told | None:
    """The answer of a living process; None when it does not live, or is another user's."""
    try:
        return question(psutil.Process(pid))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def group_members(group: int) -> list[int]:
    """The living processes of a group."""
    return [pid for pid in psutil.pids() if _group_of(pid) == group and start_mark(pid)]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def record_group(name: str, pid: int) -> Path:
    """Note a process that leads its own session, and that this process looks after it.

    The file goes when the group has ended.
    """
    path = FOLDER / f"{name}.json"
    write_json(path, {"leader": process_name(pid), "owner": own_name()})
    return path


def end_group(group: int, patience: Callable[[], bool] = lambda: True) -> None:
    """End a process group: SIGINT, then SIGTERM, then SIGKILL. `patience()` False: at once."""
    for name, seconds in SIGNALS:
        is_last = name == "SIGKILL"
        if not (is_last or patience()):
            continue
        if not group_members(group):
            return
        try:
            os.killpg(group, signal.Signals[name])
        except ProcessLookupError:
            return
        until_s = time.monotonic() + seconds
        while (is_last or patience()) and time.monotonic() < until_s and group_members(group):
            time.sleep(0.05)


def end_leftovers(keep: Collection[str] = (), *, own: bool = True) -> list[str]:
    """End the recorded groups that nobody looks after; the names of what lived.

    Those are the groups of dead processes, and with `own` those of this one. Groups of another
    process that lives stay, and so do those of the names in `keep`.
    """
    ended = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:  # its group has just ended, and its owner has forgotten it
            continue
        is_own = own and record["owner"] == own_name()
        if path.stem in keep or not (is_own or is_dead(record["owner"])):
            continue
        if _is_ours(record["leader"]):
            end_group(int(record["leader"]["pid"]))
            ended.append(path.stem)
        path.unlink(missing_ok=True)
    return ended


def _is_ours(leader: Mapping[str, str]) -> bool:
    """Whether the group of that leader still is the one that was recorded.

    A number is not given anew while its group lives. So either the leader is the recorded process,
    or it is gone and what is left of the group works in this folder.
    """
    pid = int(leader["pid"])
    if start_mark(pid) is not None:
        return not is_dead(leader)
    return any(
        _told(member, psutil.Process.cwd) == str(Path.cwd()) for member in group_members(pid)
    )
