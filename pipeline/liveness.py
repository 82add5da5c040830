"""Whether a process that left its name somewhere still lives."""

import os
import socket
import subprocess
from pathlib import Path

PROC = Path("/proc")


def start_mark(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None when it does not live."""
    if PROC.is_dir():
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] == "Z" else f"{boot} {fields[19]}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or None


def own_name() -> dict[str, str]:
    """What this process leaves behind, for others to ask after it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": str(pid), "process_start": start_mark(pid) or ""}


def is_dead(name: dict[str, str]) -> bool:
    """Whether the process of that name has ended; never said of one on another machine."""
    if name.get("host") != socket.gethostname() or not name.get("pid", "").isdigit():
        return False
    return start_mark(int(name["pid"])) != name.get("process_start")
