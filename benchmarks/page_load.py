"""Many clients of the search page at once, one of ten of them slow or hostile: who is served?

Each client searches again as soon as it has its answer. Of the others one in turn sends its upload
byte by byte, a picture of 39 megapixels, one of 65500 x 1, no picture, an upload that never ends,
or goes away before the answer. On a shared machine the server's CPU seconds a search are the
steadier figure.
Run: python -m benchmarks.page_load [--clients 64] [--hostile 0 6]
"""

import argparse
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

import numpy as np

from benchmarks.attacks import (
    GIB,
    STUDENT,
    UPLOAD,
    Page,
    cpu_seconds,
    make_study,
    peak_bytes,
    picture_file,
    served,
)

SEARCH = f"/search?{urlencode({'database': 'emblems', 'network': STUDENT})}"
Hostile = Callable[[Page, threading.Event], object]


def connect(page: Page, length: int | None) -> socket.socket:
    """A search whose head is sent, and whose body is not."""
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    connection = socket.create_connection(("127.0.0.1", page.port), timeout=30)
    head = f"POST {SEARCH} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n{body}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def send_slowly(page: Page, done: threading.Event) -> None:
    with suppress(OSError), connect(page, 1_000_000) as connection:
        while not done.wait(0.2):
            connection.sendall(b"\xff")


def send_endlessly(page: Page, done: threading.Event) -> None:
    with suppress(OSError), connect(page, None) as connection:
        while not done.is_set():
            connection.sendall(b"10000\r\n" + b"\xff" * 65536 + b"\r\n")


def go_away(page: Page, done: threading.Event) -> None:
    content = picture_file((300, 200), "JPEG")
    with suppress(OSError), connect(page, len(content)) as connection:
        connection.sendall(content)
    done.wait(0.05)


def hostile_clients() -> list[Hostile]:
    large = picture_file(UPLOAD, "PNG", "RGBA")
    long = picture_file((65_500, 1), "JPEG")
    return [
        send_slowly,
        lambda page, done: page.search(large),
        lambda page, done: page.search(long),
        lambda page, done: page.search(b"\xff" * 100_000),
        send_endlessly,
        go_away,
    ]


def measure(page: Page, clients: int, hostile: int, seconds: float) -> str:
    """What the honest ones of the clients see."""
    picture = picture_file((300, 200), "JPEG")
    done, answers, times_s = threading.Event(), Counter[int](), list[float]()

    def ask() -> None:
        while not done.is_set():
            started_s = time.perf_counter()
            status, _ = page.search(picture)
            answers[status] += 1
            if status == 200:
                times_s.append(time.perf_counter() - started_s)

    def attack(work: Hostile) -> None:
        while not done.is_set():
            work(page, done)

    works = itertools.cycle(hostile_clients())
    threads = [threading.Thread(target=attack, args=[next(works)]) for _ in range(hostile)]
    threads += [threading.Thread(target=ask) for _ in range(clients - hostile)]
    before_s = cpu_seconds(page.pid)
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    done.set()
    cpu_s = cpu_seconds(page.pid) - before_s
    for thread in threads:
        thread.join()
    p50, p95, p99 = np.percentile(times_s or [np.nan], [50, 95, 99])
    others = {status: count for status, count in answers.items() if status != 200}
    answered = answers[200] / max(1, answers.total())
    return (
        f"{clients - hostile:3} honest, {hostile} hostile: {answers[200] / seconds:6.1f} answers/s "
        f"({answered:.1%} of requests; others {others}); "
        f"p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s; "
        f"{1000 * cpu_s / max(1, answers[200]):.0f} ms of CPU an answer; "
        f"peak {peak_bytes(page.pid) / GIB:.2f} GiB"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--hostile", type=int, nargs="+", default=[0, 6], help="of the clients")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as passing, served(make_study(Path(passing, "study"))) as page:
        page.search(picture_file((300, 200), "JPEG"))
        for hostile in given.hostile:
            print(measure(page, given.clients, hostile, given.seconds), flush=True)


if __name__ == "__main__":
    main()
