"""The page's server on loopback. Nothing is written to disk; uploads are bounded in bytes, pixels.

Only requests to a loopback name are answered, so that no web site can reach the page by a name of
its own that resolves to this machine (DNS rebinding), and only from the page itself.
"""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.datasets.decode import UnreadableImage
from pipeline.search.page.service import SearchService, UnknownNameError
from pipeline.search.pictures import thumbnail
from pipeline.search.search import Answer, QueryNetwork

HOST = "127.0.0.1"
MAX_UPLOAD_BYTES = 20 << 20
MAX_RESULTS = 50
MAX_WAITING = 4
THUMBNAIL_PX = 192
LOOPBACK = [HOST, "localhost"]
HERE = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
STATUSES = {UnknownNameError: 404, UnreadableImage: 422, ValueError: 409}
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
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False)
    for address, (name, kind) in FILES.items():
        _add_file(app, address, (HERE / name).read_text(encoding="utf-8"), kind)
    _add_searches(app, service)
    _add_errors(app)

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


def _add_file(app: FastAPI, address: str, content: str, kind: str) -> None:
    @app.get(address)
    def file() -> Response:
        return Response(content, media_type=kind)


def _add_searches(app: FastAPI, service: SearchService) -> None:
    waiting = 0

    @app.get("/api/databases")
    def databases() -> list[dict[str, Any]]:
        return service.catalogue()

    @app.get("/api/picture")
    def picture(database: str, row: int, full: bool = False) -> Response:
        encoded = service.picture(database, row)
        content = encoded if full else thumbnail(encoded, THUMBNAIL_PX)
        kind = "image/jpeg" if not full else "application/octet-stream"
        return Response(content, media_type=kind)

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
            answers = await run_in_threadpool(service.search, encoded, database, network, k)
        finally:
            waiting -= 1
        return {role: _described(*answer) for role, answer in answers.items()}


async def _bounded_body(request: Request) -> bytes:
    """The upload, refused as soon as it is known to be too large: by its header, or in passing."""
    told = request.headers.get("content-length", "")
    too_large = HTTPException(413, f"the picture has more than {MAX_UPLOAD_BYTES} bytes")
    if told.isdecimal() and int(told) > MAX_UPLOAD_BYTES:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_UPLOAD_BYTES:
            raise too_large
    return bytes(body)


def _described(network: QueryNetwork, answer: Answer) -> dict[str, Any]:
    hits = [asdict(hit) for hit in answer.hits]
    return {
        "name": network.name,
        "champion_version": network.version,
        "query_px": network.size_px,
        "times_ms": dict(answer.times_ms),
        "hits": hits,
    }


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return _error(422, "; ".join(faults))

    for kind, status in STATUSES.items():
        _add_error(app, kind, status)


def _add_error(app: FastAPI, kind: type[ValueError], status: int) -> None:
    @app.exception_handler(kind)
    def told(request: Request, error: ValueError) -> Response:
        return _error(status, str(error))


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 is any free one. Raises ValueError for one that is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ValueError(f"port {port} of {HOST}: {error.strerror}; choose another") from None
    return listener


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until the process is interrupted, or told to end."""
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=5, server_header=False)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
