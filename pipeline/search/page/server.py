"""The page's server on loopback. Nothing is written to disk; uploads are bounded in bytes, pixels.

Only requests to a loopback name are answered, so that no web site can reach the page by a name of
its own that resolves to this machine (DNS rebinding), and only from the page itself.
"""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.datasets.decode import UnreadableImage
from pipeline.search.page.service import SearchService
from pipeline.search.pictures import thumbnail

HOST = "127.0.0.1"
MAX_UPLOAD_BYTES = 20 << 20
MAX_RESULTS = 50
MAX_WAITING = 4
THUMBNAIL_PX = 192
FILES = ("page.html", "page.css", "page.js", "icon.svg")
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
    for kind in (StarletteHTTPException, RequestValidationError, ValueError):
        app.add_exception_handler(kind, _described)
    _add_pages(app, service)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers.get('host')}":
            response: Response = _error(403, f"requests from {origin} are not answered")
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return app


def _add_pages(app: FastAPI, service: SearchService) -> None:
    waiting = 0

    @app.get("/")
    @app.get("/{name}")
    def file(name: str = "page.html") -> FileResponse:
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(Path(__file__).with_name(name))

    @app.get("/api/databases")
    def databases() -> list[dict[str, Any]]:
        return service.catalogue()

    @app.get("/api/picture")
    def picture(database: str, row: int, full: bool = False) -> Response:
        encoded = service.picture(database, row)
        if full:
            return Response(encoded, media_type="application/octet-stream")
        return Response(thumbnail(encoded, THUMBNAIL_PX), media_type="image/jpeg")

    @app.post("/api/search")
    async def search(
        request: Request,
        database: str,
        network: str,
        k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 10,
    ) -> dict[str, Any]:
        nonlocal waiting
        if waiting > MAX_WAITING:
            raise HTTPException(503, "other searches are waiting already: try again")
        waiting += 1
        try:
            encoded = await _bounded_body(request)
            return await run_in_threadpool(service.search, encoded, database, network, k)
        finally:
            waiting -= 1


async def _bounded_body(request: Request) -> bytes:
    """The upload, refused as soon as it is known to be too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_UPLOAD_BYTES:
            raise HTTPException(413, f"the picture has more than {MAX_UPLOAD_BYTES} bytes")
    return bytes(body)


def _described(request: Request, error: Exception) -> Response:
    """What was wrong, and whose fault it was."""
    if isinstance(error, StarletteHTTPException):
        return _error(error.status_code, error.detail)
    if isinstance(error, RequestValidationError):
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return _error(422, "; ".join(faults))
    return _error(422 if isinstance(error, UnreadableImage) else 409, str(error))


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 is any free one. Raises ValueError for one that is taken."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(f"port {port}: {error.strerror}; choose another") from None


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until the process is interrupted, or told to end."""
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=5, server_header=False)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
