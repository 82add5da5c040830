"""Many clients of the server at once, one of ten of them slow or hostile: who is served?

Each client searches again as soon as it has its answer. Of the others one in turn sends its upload
byte by byte, a picture of 39 megapixels, one of 65500 x 1, no picture, an upload that never ends,
or goes away before the answer. On a shared machine the server's CPU seconds a search are the
steadier figure. A search is that of a student, POST /search; each row has a server of its own.
Run: python -m benchmarks.page_load [--clients 1 8 32 64] [--hostile 0 0.1]
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


COLUMNS = (
    "clients  hostile  answers/s  answered   p50 s   p95 s   p99 s  CPU ms  peak GiB  other answers"
)


def measure(page: Page, clients: int, hostile: int, seconds: float) -> str:
    """What the honest ones of the clients see, as a row of the table."""
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
        f"{clients:7}  {hostile:7}  {answers[200] / seconds:9.1f}  {answered:8.1%}  {p50:6.3f}  "
        f"{p95:6.3f}  {p99:6.3f}  {1000 * cpu_s / max(1, answers[200]):6.1f}  "
        f"{peak_bytes(page.pid) / GIB:8.2f}  {others or ''}"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--hostile", type=float, nargs="+", default=[0, 0.1], help="share of them")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args(arguments)
    print(COLUMNS)
    with TemporaryDirectory() as passing:
        study = make_study(Path(passing, "study"))
        for hostile, clients in itertools.product(given.hostile, given.clients):
            with served(study) as page:
                page.search(picture_file((300, 200), "JPEG"))
                print(measure(page, clients, int(hostile * clients), given.seconds), flush=True)


if __name__ == "__main__":
    main()
