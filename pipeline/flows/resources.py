"""Cores and GPUs, shared out among stages that run side by side."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DEFAULT_JOBS = 4  # at most, unless more are asked for: memory, too, is shared


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(asked: int | None, each: int, cores: int) -> tuple[int, str]:
    """How many stages run side by side, each with `each` threads; and a word where it is not
    what was asked for, because threads would outnumber cores.
    """
    fitting = max(1, cores // each)
    if asked is None:
        return min(fitting, DEFAULT_JOBS), ""
    if asked <= fitting:
        return asked, ""
    return fitting, (
        f"{fitting} at a time instead of {asked}: each computes with {each} "
        f"{'thread' if each == 1 else 'threads'} (threads x compute.processes in params.yaml), "
        f"the cores are {cores}"
    )


@dataclass(frozen=True)
class Shares:
    """What one stage of the study computes with: processes, and threads of each."""

    threads: int
    processes: int

    @property
    def cores(self) -> int:
        return self.threads * self.processes


def study_shares() -> Shares:
    """`threads` and `compute.processes` of params.yaml, 1 where it has none."""
    from ruamel.yaml import YAML

    with open("params.yaml", encoding="utf-8") as file:  # noqa: PTH123
        values = YAML(typ="safe").load(file) or {}
    processes = (values.get("compute") or {}).get("processes", 1)
    return Shares(int(values.get("threads", 1)), int(processes))


def visible_gpus() -> list[str]:
    """The GPUs that CUDA would see, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired:
        return []
    count = sum(line.startswith("GPU ") for line in listed.splitlines())
    return [str(number) for number in range(count)]


class Gpus:
    """GPUs lent to stages: each gets those that fewest others use, one a process."""

    def __init__(self, names: list[str], each: int = 1) -> None:
        self._users = dict.fromkeys(names, 0)
        self._each = each
        self._guard = threading.Lock()

    @contextmanager
    def some(self) -> Iterator[str | None]:
        """GPUs as CUDA_VISIBLE_DEVICES names them; None where there is no choice."""
        if len(self._users) < 2:
            yield None
            return
        with self._guard:
            names = sorted(self._users, key=self._users.__getitem__)[: self._each]
            for name in names:
                self._users[name] += 1
        try:
            yield ",".join(names)
        finally:
            with self._guard:
                for name in names:
                    self._users[name] -= 1
