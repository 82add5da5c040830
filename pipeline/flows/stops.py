"""How a study is asked to end: by a signal, or from Prefect."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The exit code of a command that such a signal ends: 128 and its number.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a study is to end, why, and whether at once. Any thread may ask or look."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason = ""
        self.number: int | None = None
        self.asked = 0

    def ask(self, reason: str, number: int | None = None) -> None:
        """Asked twice, processes are no longer given time to end in order."""
        self.asked += 1
        if not self.event.is_set():
            self.reason, self.number = reason, number
            self.event.set()

    @property
    def is_patient(self) -> bool:
        return self.asked < 2


@contextmanager
def heeding_signals(stop: Stop) -> Iterator[None]:
    """Signals ask for the stop instead of breaking in anywhere; the third Ctrl-C does break in.

    A signal that this process was started to ignore stays without effect on it. It gets a handler
    all the same: processes started from here would inherit that they ignore it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None) -> None:
        stop.ask(signal.Signals(number).name, number)
        if number == signal.SIGINT and stop.asked > 2:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, _ignore if handler in (signal.SIG_IGN, _ignore) else ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, _: FrameType | None) -> None:
    pass
