"""The page's server on loopback. Nothing is written to disk; what a request may take is bounded.

Only requests to a loopback name are answered, so that no web site can reach the page by a name of
its own that resolves to this machine (DNS rebinding), and only from the page itself.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.datasets.decode import UnreadableImage, pixel_count
from pipeline.search.page import turns
from pipeline.search.page.service import SearchService

HOST = "127.0.0.1"
MAX_RESULTS = 50
HERE = Path(__file__).parent
PAGES = ("page.html", "page.css", "page.js", "icon.svg")
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


def create_app(service: SearchService) -> FastAPI:
    """The application; all its errors are JSON: {"error": what is wrong}."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    hosts = [HOST, "localhost"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(Guard)
    for kind in (StarletteHTTPException, RequestValidationError, ValueError, Exception):
        app.add_exception_handler(kind, _described)
    _add_pages(app, service)
    return app


class Guard:
    """Answers the page alone, and gives every answer the page's policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        origin = host = None
        if scope["type"] == "http":
            origin, host = map(Headers(scope=scope).get, ("origin", "host"))
        app = self._app
        if origin is not None and origin != f"http://{host}":
            app = _error(403, f"requests from {origin} are not answered")
        await app(scope, receive, send_with_policy)


def _add_pages(app: FastAPI, service: SearchService) -> None:
    uploads = turns.Uploads()
    small, large = turns.Turns(turns.SMALL_WAITING), turns.Turns(turns.LARGE_WAITING)
    pictures, answers = turns.Turns(turns.PICTURES_WAITING), turns.Answers()

    @app.get("/")
    @app.get("/{name}")
    def file(name: str = "page.html") -> FileResponse:
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(FILES[name])

    @app.get("/api/databases")
    async def databases(request: Request) -> list[dict[str, Any]]:
        return await pictures.run(request, service.catalogue)

    @app.get("/api/picture")
    async def picture(request: Request, database: str, row: int, full: bool = False) -> Response:
        read = service.picture if full else service.thumbnail
        shown = await pictures.run(request, read, database, row)
        return answers.picture(shown, "application/octet-stream" if full else "image/jpeg")

    @app.post("/api/search")
    async def search(
        request: Request,
        database: str,
        network: str,
        k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 10,
    ) -> dict[str, Any]:
        encoded = await uploads.read(request)
        pixels = await run_in_threadpool(pixel_count, encoded)
        is_small = pixels <= turns.SMALL_PIXELS and len(encoded) <= turns.SMALL_BYTES
        lane = small if is_small else large
        return await lane.run(request, service.search, encoded, database, network, k)


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


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 is any free one. Raises ValueError for one that is taken."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(f"port {port}: {error.strerror}; choose another") from None


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until the process is interrupted, or told to end."""
    config = uvicorn.Config(
        app,
        http="h11",  # which bounds the head of a request
        log_level="warning",
        timeout_keep_alive=5,
        server_header=False,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
