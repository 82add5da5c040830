"""Signals ask; only the third Ctrl-C breaks in."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from pipeline.flows.stops import SIGNALS, Stop, heeding_signals


@pytest.fixture(autouse=True)
def not_deaf() -> Iterator[None]:
    """What a shell starts in its background ignores SIGINT; these tests do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signal_asks_for_the_stop() -> None:
    stop = Stop()
    with heeding_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.event.is_set()
        assert (stop.reason, stop.number) == ("SIGTERM", signal.SIGTERM)
        assert stop.is_patient
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reason == "SIGTERM"
        assert not stop.is_patient
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with heeding_signals(Stop()):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_signal_has_no_effect_but_a_handler() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    try:
        with heeding_signals(stop), heeding_signals(stop):
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.event.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def look() -> None:
        with heeding_signals(Stop()):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == before
