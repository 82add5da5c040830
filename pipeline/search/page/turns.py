"""Who is served when, and within which bounds: uploads that come in time, work that takes turns.

What a request may take, by `l2s ui` as a whole. Largest at once: uploads that arrive and that wait
(`ARRIVING_BYTES`, and `LARGE_WAITING` and `SMALL_WAITING` of their kind: 456 MiB), one large and
one small picture that are decoded (0.4 GiB), and the open networks.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

Given = ParamSpec("Given")
Made = TypeVar("Made")

MAX_UPLOAD_BYTES = 20 << 20  # a photograph of 40 megapixels
UPLOAD_S = 10  # for all of an upload: a browser on this machine takes well under a second
ARRIVING_BYTES = 128 << 20  # of uploads that are not whole yet; then the eldest gives way
REQUEST_S = 60  # from the head of a request to the last byte of its answer
HEAD_S = 5  # for a request's head, from the connection or the answer before it
RETRY_AFTER_S = 5  # what is told to whoever comes to a full queue
# Large pictures take turns among themselves: others need not wait for them.
SMALL_PIXELS, SMALL_BYTES = 4_000_000, 2 << 20
SMALL_WAITING = 100  # 64 clients and some more, 2 MiB each
LARGE_WAITING = 6  # 20 MiB and a second of work each
PICTURES_WAITING = 200  # of the database, to be shown: two pages of 50 + 50 results
SENDING = 4  # pictures in full at a time, of up to 20 MiB, to whoever may read slowly
SENDING_WAITING = 16


class Busy(HTTPException):
    """More ask than can wait: 503, and when to come again."""

    def __init__(self) -> None:
        message = f"too many requests are waiting already: try again in {RETRY_AFTER_S} s"
        super().__init__(503, message, {"Retry-After": str(RETRY_AFTER_S)})


class Turns:
    """Work that is done `at_once` at a time, in the order in which it was asked for.

    At most `waiting` more wait for their turn; who comes then gets Busy.
    """

    def __init__(self, waiting: int, at_once: int = 1) -> None:
        self._room = waiting + at_once
        self._turn = asyncio.Semaphore(at_once)

    async def __aenter__(self) -> None:
        if self._room <= 0:
            raise Busy
        self._room -= 1
        try:
            await self._turn.acquire()
        except BaseException:
            self._room += 1
            raise

    async def __aexit__(self, *fault: object) -> None:
        self._turn.release()
        self._room += 1

    async def run(
        self, request: Request, work: Callable[Given, Made], *args: Given.args, **kw: Given.kwargs
    ) -> Made:
        """`work` on a thread, when its turn comes; not for a client that has gone meanwhile."""
        async with self:
            if await request.is_disconnected():
                raise HTTPException(408, "the client has gone")
            return await run_in_threadpool(work, *args, **kw)


class Uploads:
    """Bodies of requests, read side by side, each within `UPLOAD_S`.

    Together they hold `ARRIVING_BYTES` at most: where they would hold more, the one that has taken
    longest is given up, which is a slow one.
    """

    def __init__(self) -> None:
        self._held: dict[asyncio.Timeout, int] = {}

    async def read(self, request: Request) -> bytes:
        """The body. Raises HTTPException 413 as soon as it is too large, 408 if it takes long."""
        if int(request.headers.get("content-length", 0)) > MAX_UPLOAD_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(UPLOAD_S) as deadline:
                try:
                    async for part in request.stream():
                        body += part
                        if len(body) > MAX_UPLOAD_BYTES:
                            raise _too_large()
                        self._held[deadline] = len(body)
                        self._make_room()
                finally:
                    self._held.pop(deadline, None)
        except TimeoutError:
            raise HTTPException(408, f"the picture did not arrive within {UPLOAD_S} s") from None
        return bytes(body)

    def _make_room(self) -> None:
        while sum(self._held.values()) > ARRIVING_BYTES:
            eldest = next(iter(self._held))
            del self._held[eldest]
            if not eldest.expired():
                eldest.reschedule(0)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the picture has more than {MAX_UPLOAD_BYTES} bytes")
