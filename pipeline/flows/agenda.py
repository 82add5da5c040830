"""Which stages of a study wait, run and have ended; no threads, no processes."""

from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from pipeline.flows.stage_runs import Outcome

LOOK_EVERY_S = 0.2


class Agenda:
    """The bookkeeping of one study.

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
        free = [
            name for name in self.not_started if all(map(self._succeeded, self.upstreams[name]))
        ]
        return sorted(free, key=lambda name: -self._chain_s[name])

    def _succeeded(self, name: str) -> bool:
        return name in self.outcomes and self.outcomes[name].is_success

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
            try:
                outcome = ended.get(timeout=LOOK_EVERY_S)
            except Empty:
                continue
            self.outcomes[outcome.stage] = outcome
        return False
