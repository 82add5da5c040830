"""What starts when, and with which cores and GPUs, while stages run side by side."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from pipeline.flows.stage_runs import Outcome

DEFAULT_JOBS = 4  # at most, unless more are asked for: memory, too, is shared
LOOK_EVERY_S = 0.2


class Scheduler:
    """Which stages of a study wait, run and have ended; no threads, no processes.

    `upstreams` holds the stages to run, in order, with what each depends on; what is not among
    them has been done before. `seconds` are durations of earlier runs, as far as they are known.
    """

    def __init__(
        self, upstreams: Mapping[str, Sequence[str]], seconds: Mapping[str, float]
    ) -> None:
        self.upstreams = {
            name: tuple(other for other in others if other in upstreams)
            for name, others in upstreams.items()
        }
        self.started: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self._chain_s = dict.fromkeys(upstreams, 0.0)
        for name in reversed(self.upstreams):
            self._chain_s[name] += seconds.get(name, 1.0)
            for other in self.upstreams[name]:
                self._chain_s[other] = max(self._chain_s[other], self._chain_s[name])

    @property
    def running(self) -> list[str]:
        return [name for name in self.started if name not in self.outcomes]

    @property
    def not_started(self) -> list[str]:
        return [name for name in self.upstreams if name not in self.started]

    def ready(self) -> list[str]:
        """Stages that may start; those before the longest chain of work first."""
        done = {name for name, outcome in self.outcomes.items() if outcome.is_success}
        free = [name for name in self.not_started if done.issuperset(self.upstreams[name])]
        return sorted(free, key=lambda name: -self._chain_s[name])

    def advance(
        self,
        jobs: int,
        start: Callable[[str], object],
        ended: "SimpleQueue[Outcome]",
        *,
        draining: Callable[[], bool] = lambda: False,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Start what is ready, at most `jobs` at a time, until nothing is left that can start.

        `ended` brings the outcomes of what `start` began. While `draining()` nothing new starts;
        when `until()` the call ends and leaves running what runs. Returns whether all is over.
        """
        while not until():
            if not draining():
                for name in self.ready()[: max(0, jobs - len(self.running))]:
                    self.started.append(name)
                    start(name)
            if not self.running:
                return True
            with suppress(Empty):
                outcome = ended.get(timeout=LOOK_EVERY_S)
                self.outcomes[outcome.stage] = outcome
        return False


def study_shares() -> tuple[int, int]:
    """With how many threads each process of a stage computes, and how many processes it has.

    `threads` and `compute.processes` of params.yaml, 1 where it has none.
    """
    from ruamel.yaml import YAML

    with open("params.yaml", encoding="utf-8") as file:  # noqa: PTH123
        values = YAML(typ="safe").load(file) or {}
    processes = (values.get("compute") or {}).get("processes", 1)
    return int(values.get("threads", 1)), int(processes)


def share_cores(asked: int | None, each: int, cores: int) -> tuple[int, str]:
    """How many stages run side by side, each with `each` threads; and a message where it is not
    what was asked for, because threads would outnumber cores.
    """
    fitting = max(1, cores // each)
    if asked is None:
        return min(fitting, DEFAULT_JOBS), ""
    if asked <= fitting:
        return asked, ""
    each_has = f"threads x compute.processes = {each} in params.yaml"
    return fitting, f"{fitting} at a time instead of {asked}: {each_has}, the cores are {cores}"


def visible_gpus() -> list[str]:
    """The GPUs that CUDA would see, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    command = ["nvidia-smi", "-L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: S603
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
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
