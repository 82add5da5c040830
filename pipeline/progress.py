"""Progress of long steps: a bar on a terminal, sparse lines in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

LINE_INTERVAL_S = 10.0

Item = TypeVar("Item")


class Progress:
    """A step of `total` units, `done` of which an earlier process has finished.

    On a terminal a bar with rate and remaining time; elsewhere a line every `LINE_INTERVAL_S`, and
    one at the end; nothing unless `shown`. Used as a context.
    """

    def __init__(
        self, name: str, total: int, *, done: int = 0, unit: str = "it", shown: bool = True
    ) -> None:
        self.name = name
        self.total = total
        self.first = self.done = done
        self.unit = unit
        self.shown = shown
        self.notes = ""
        self.started_s = self.told_s = time.monotonic()
        self.bar: tqdm | None = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=name, unit=unit, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def advance(self, units: int = 1) -> None:
        self.done += units
        if self.bar is not None:
            self.bar.update(units)
        elif time.monotonic() - self.told_s >= LINE_INTERVAL_S:
            self._tell()

    def note(self, values: Mapping[str, float]) -> None:
        """Figures shown beside the progress from now on."""
        self.notes = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_postfix_str(self.notes)

    def _tell(self) -> None:
        self.told_s = time.monotonic()
        if not self.shown:
            return
        elapsed_s = self.told_s - self.started_s
        rate = (self.done - self.first) / max(elapsed_s, 1e-9)
        left = self.total - self.done
        rest = f", {time_text(left / rate)} left" if left and rate else ""
        notes = f", {self.notes}" if self.notes else ""
        counts = f"{self.done}/{self.total} {self.unit}, {rate_text(rate, self.unit)}"
        sys.stderr.write(f"{self.name}: {counts}, {time_text(elapsed_s)}{rest}{notes}\n")
        sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self._tell()


def rate_text(rate: float, unit: str) -> str:
    """Units a second, or, where that is less than one, seconds a unit."""
    if 0 < rate < 1:
        return f"{1 / rate:.1f} s/{unit}"
    return f"{rate:.1f} {unit}/s"


def time_text(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: int, what: str) -> str:
    """So many of `what`, whose plural has an s more: "1 image", "2 images"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def track(items: Iterable[Item], name: str, total: int, unit: str = "it") -> Iterator[Item]:
    """`items`, with the progress of their consumption shown."""
    with Progress(name, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
