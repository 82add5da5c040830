"""The server of the page and of other programs. What a request may take is bounded.

Without a token it listens on loopback, and only requests to a loopback name are answered, so that
no web site can reach it by a name of its own that resolves to this machine (DNS rebinding), and
only from the page itself.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.datasets.decode import UnreadableImage
from pipeline.search.page.access import Access, Bearers
from pipeline.search.page.api import routes
from pipeline.search.page.service import SearchService

LOCAL = Access()
HEAD_S = 5  # for the head of a request, from the connection or the last answer on
MAX_CONNECTIONS = 500  # more than may wait in all queues; a process may open 1024 files
HERE = Path(__file__).parent
PAGES = ("page.html", "page.css", "answers.js", "page.js", "icon.svg")
FILES = {name: HERE / name for name in PAGES} | {"look.css": HERE.parents[1] / "look.css"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(service: SearchService, access: Access = LOCAL) -> FastAPI:
    """The application; all its errors are JSON: {"error": what is wrong}.

    With a token it is for programs: a browser could not send one, so that there is no page.
    """
    app = FastAPI(title="Search by picture", docs_url=None, redoc_url=None)
    # The last one added comes first.
    if access.token is not None:
        app.add_middleware(Bearers, token=access.token)
    app.add_middleware(Guard, names=access.names())
    for kind in (StarletteHTTPException, RequestValidationError, ValueError, Exception):
        app.add_exception_handler(kind, _described)
    if access.token is None:
        app.include_router(routes(service))
        _add_page(app)
    else:
        told = HTTPBearer(auto_error=False)  # for the description: `Bearers` checks it
        app.include_router(routes(service), dependencies=[Security(told)])
    return app


class Guard:
    """Answers no other web site and to no other name, and gives every answer the page's policy."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app, self._names = app, [name.lower() for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin, host = headers.get("origin"), headers.get("host", "")
            name = re.sub(r":\d*\Z", "", host).lower()
            if origin is not None and origin != f"http://{host}":
                app = _error(403, f"requests from {origin} are not answered")
            elif "*" not in self._names and name not in self._names:
                known = ", ".join(self._names)
                app = _error(400, f"requests to {host!r} are not answered; known: {known}")
        await app(scope, receive, send_with_policy)


def _add_page(app: FastAPI) -> None:
    for name, path in FILES.items():
        app.add_route("/" if name == "page.html" else f"/{name}", _sends(path))


def _sends(path: Path) -> Callable[[Request], FileResponse]:
    return lambda request: FileResponse(path)


def _described(request: Request, error: Exception) -> Response:
    """What was wrong, and whose fault it was."""
    if isinstance(error, StarletteHTTPException):
        return _error(error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError):
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return _error(422, "; ".join(faults))
    if isinstance(error, MemoryError):
        return _error(503, "there is not enough memory for this picture now")
    if isinstance(error, ValueError):
        return _error(422 if isinstance(error, UnreadableImage) else 409, str(error))
    return _error(500, f"a fault of the program ({type(error).__name__}): see its terminal")


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer; a connection whose upload was not taken in full is of no further use."""
    closing = {"Connection": "close"} if status in (408, 413, 503) else {}
    return JSONResponse({"error": text}, status, {**(headers or {}), **closing})


def listen(port: int, access: Access = LOCAL) -> socket.socket:
    """A socket at a host; port 0 is any free one. Raises ValueError for one that is taken."""
    address = access.address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family)
    except OSError as error:
        raise ValueError(f"{access.host}, port {port}: {error.strerror}; choose another") from None
    # Inherited by connections. Else the body of an answer waits 40 ms for the receipt of its head
    # on a connection that is kept: asyncio sees to it only where a socket names its protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Connection(H11Protocol):
    """A connection, which ends where no head of a request is whole within `HEAD_S`.

    uvicorn's own time begins after an answer, and ends with any byte.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # no request is at work
            self.timeout_keep_alive_task = timer
        elif timer is not None:
            timer.cancel()


def server_of(app: FastAPI) -> uvicorn.Server:
    """What answers at a listener."""
    config = uvicorn.Config(
        app,
        http=Connection,  # by h11, which bounds the head of a request
        log_level="warning",
        timeout_keep_alive=HEAD_S,
        server_header=False,
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until the process is interrupted, or told to end."""
    with suppress(KeyboardInterrupt):
        server_of(app).run(sockets=[listener])
