"""Who is served when, and within which bounds: uploads that come in time, work that takes turns.

What the requests of a page may take together: uploads that arrive (`ARRIVING_BYTES`) and that wait
for their turn (`SMALL_WAITING` and `LARGE_WAITING` of their kinds), 450 MiB, and a form that is cut
into its pictures, 60 MiB; pictures that are sent and not taken yet (`ANSWERING_BYTES`), 128 MiB;
one small and one large picture that are decoded, 0.3 GiB; the networks and databases that are open.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Made = TypeVar("Made")

MAX_UPLOAD_BYTES = 20 << 20  # a photograph of 40 megapixels
REFUSED_BYTES = 4 * MAX_UPLOAD_BYTES  # so much is read of it: who still sends hears no answer
UPLOAD_S = 10  # for all of an upload: a browser on this machine takes well under a second
ARRIVING_BYTES = 128 << 20  # of all uploads that are not whole yet
ANSWER_S = 10  # for all of a picture to be taken
ANSWERING_BYTES = 128 << 20  # of all pictures that are not taken yet
PART_BYTES = 1 << 18  # of a picture that the connection holds
RETRY_AFTER_S = 5  # what is told to whoever comes to a full queue
# Large queries, and many, take turns among themselves: others need not wait for them.
SMALL_PIXELS, SMALL_BYTES, SMALL_QUERIES = 4_000_000, 2 << 20, 4
SMALL_WAITING = 100  # 64 clients and some more, 2 MiB each
LARGE_WAITING = 6  # 20 MiB and a second of work each
PICTURES_WAITING = 200  # of the database, to be shown: two pages of 50 + 50 results


class Busy(HTTPException):
    """More ask than can wait: 503, and when to come again."""

    def __init__(self) -> None:
        message = f"too many requests are waiting already: try again in {RETRY_AFTER_S} s"
        super().__init__(503, message, {"Retry-After": str(RETRY_AFTER_S)})


class Turns:
    """Work that is done one at a time, in the order in which it was asked for.

    At most `waiting` more wait for their turn; who comes then gets Busy.
    """

    def __init__(self, waiting: int) -> None:
        self._room = waiting + 1
        self._turn = asyncio.Lock()

    async def run(self, request: Request, work: Callable[..., Made], *given: Any) -> Made:
        """`work` on a thread, when its turn comes; who goes meanwhile leaves the queue at once."""
        if self._room <= 0:
            raise Busy
        self._room -= 1
        try:
            await self._wait(request)
            try:
                return await run_in_threadpool(work, *given)
            finally:
                self._turn.release()
        finally:
            self._room += 1

    async def _wait(self, request: Request) -> None:
        """Take the turn. Raises HTTPException where the client goes before it comes."""
        turn = asyncio.ensure_future(self._turn.acquire())
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise HTTPException(408, "the client has gone")
        except BaseException:
            if turn.done():
                self._turn.release()
            turn.cancel()
            raise
        finally:
            gone.cancel()


class Lanes:
    """Two queues: small queries need not wait for large ones, nor for many."""

    def __init__(self) -> None:
        self.small, self.large = Turns(SMALL_WAITING), Turns(LARGE_WAITING)

    def of(self, pixels: int, size_bytes: int, queries: int) -> Turns:
        """The queue of a request. pixels: of its pictures; vectors have none."""
        is_small = pixels <= SMALL_PIXELS and size_bytes <= SMALL_BYTES
        return self.small if is_small and queries <= SMALL_QUERIES else self.large


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Uploads:
    """Bodies of requests, read side by side: one within `UPLOAD_S`, all in `ARRIVING_BYTES`."""

    def __init__(self) -> None:
        self._held_bytes = 0

    async def read(self, request: Request) -> bytes:
        """The body. Raises HTTPException: 413 for a large one, 408 for a slow or cut one, Busy."""
        body, arrived_bytes = bytearray(), 0
        try:
            async with asyncio.timeout(UPLOAD_S):
                async for part in request.stream():
                    arrived_bytes += len(part)
                    if arrived_bytes > REFUSED_BYTES:
                        break
                    if arrived_bytes <= MAX_UPLOAD_BYTES:
                        body += part
                        self._held_bytes += len(part)
                    else:  # it is refused: what came of it takes no room from others
                        self._held_bytes -= len(body)
                        body.clear()
                    if self._held_bytes > ARRIVING_BYTES:
                        raise Busy
        except TimeoutError:
            raise HTTPException(408, f"the upload did not arrive within {UPLOAD_S} s") from None
        except ClientDisconnect:
            raise HTTPException(408, "the client has gone") from None
        finally:
            self._held_bytes -= len(body)
        if arrived_bytes > MAX_UPLOAD_BYTES:
            raise HTTPException(413, f"the upload has more than {MAX_UPLOAD_BYTES} bytes")
        return bytes(body)

    @asynccontextmanager
    async def held(self, request: Request) -> AsyncIterator[bytes]:
        """As `read`; the body counts as one that arrives until the block ends."""
        body = await self.read(request)
        self._held_bytes += len(body)
        try:
            yield body
        finally:
            self._held_bytes -= len(body)


class Answers:
    """Pictures that clients take side by side: one within `ANSWER_S`, all in `ANSWERING_BYTES`."""

    def __init__(self) -> None:
        self.held_bytes = 0

    def picture(self, encoded: bytes, media_type: str) -> Response:
        """What sends it. Raises Busy."""
        if self.held_bytes + len(encoded) > ANSWERING_BYTES:
            raise Busy
        self.held_bytes += len(encoded)
        return _Answer(self, encoded, media_type)


class _Answer(Response):
    """A picture that is sent in parts; a client that does not take them in time is left."""

    def __init__(self, answers: Answers, encoded: bytes, media_type: str) -> None:
        super().__init__(encoded, media_type=media_type)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await send({"type": "http.response.start", **start})
                    for at in range(0, len(self.body), PART_BYTES):
                        part = {"body": self.body[at : at + PART_BYTES], "more_body": True}
                        await send({"type": "http.response.body", **part})
                    await send({"type": "http.response.body", "body": b""})
        finally:
            self._answers.held_bytes -= len(self.body)
