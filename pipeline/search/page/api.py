"""The routes that answer with data: for the page, and for other programs."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from pipeline.datasets.decode import pixel_count
from pipeline.search.page import turns
from pipeline.search.page.bodies import (
    JSON,
    PICTURES_BODY,
    QUERIES_BODY,
    Pictures,
    count_vectors,
    media_type,
    read_pictures,
)
from pipeline.search.page.schema import Answers, Embeddings, Entry, Fault
from pipeline.search.page.service import SearchService

MAX_RESULTS = 50
FAULTS: dict[int | str, dict[str, Any]] = {
    404: {"model": Fault, "description": "A name that is not there."},
    408: {"model": Fault, "description": "The body did not arrive in time."},
    409: {"model": Fault, "description": "Files of the workspace are damaged, or do not fit."},
    413: {"model": Fault, "description": "The body is too large."},
    422: {"model": Fault, "description": "What was sent cannot be used; the error says which."},
    503: {"model": Fault, "description": "Too many wait; Retry-After says when to come again."},
}
DatabaseName = Annotated[
    str | None, Query(alias="database", description="Of /databases; by default the first.")
]
NetworkName = Annotated[
    str | None, Query(alias="network", description="One of the database; by default the first.")
]


def routes(service: SearchService) -> APIRouter:
    """All of them; errors are described by `server`."""
    router = APIRouter(responses=FAULTS)
    uploads, lanes = turns.Uploads(), turns.Lanes()
    pictures, answers = turns.Turns(turns.PICTURES_WAITING), turns.Answers()
    cutting = asyncio.Lock()

    async def received(request: Request) -> tuple[Pictures, turns.Turns]:
        """The pictures of a request, and the queue that they wait in."""
        told = request.headers.get("content-type", "")
        async with uploads.held(request) as body:
            async with cutting:  # a form takes four times its bytes meanwhile
                sent = await run_in_threadpool(read_pictures, body, told)
            pixels = await run_in_threadpool(lambda: sum(pixel_count(one) for _, one in sent))
            return sent, lanes.of(pixels, len(body), len(sent))

    @router.get("/databases")
    async def databases(request: Request) -> list[Entry]:
        """What can be searched, and with which networks."""
        return await pictures.run(request, lambda: list(service.catalogue()))

    @router.get("/picture", response_class=Response, responses=_files("image/jpeg", "image/*"))
    async def picture(request: Request, database: str, row: int, full: bool = False) -> Response:
        """A picture of a database, as a small JPEG or as it is."""
        read = service.picture if full else service.thumbnail
        shown = await pictures.run(request, read, database, row)
        return answers.picture(shown, "application/octet-stream" if full else "image/jpeg")

    @router.post("/embed", openapi_extra={"requestBody": PICTURES_BODY})
    async def embed(
        request: Request, database: DatabaseName = None, network: NetworkName = None
    ) -> Embeddings:
        """Unit vectors of pictures. One that cannot be read refuses all, and is named."""
        sent, lane = await received(request)
        return await lane.run(request, service.embed, sent, database, network)

    @router.post(
        "/view",
        openapi_extra={"requestBody": PICTURES_BODY},
        response_class=Response,
        responses=_files("image/png"),
    )
    async def view(
        request: Request, database: DatabaseName = None, network: NetworkName = None
    ) -> Response:
        """What a network sees of a picture, pixel by pixel, as PNG."""
        sent, lane = await received(request)
        shown = await lane.run(request, service.view, sent, database, network)
        return answers.picture(shown, "image/png")

    @router.post("/search", openapi_extra={"requestBody": QUERIES_BODY})
    async def search(
        request: Request,
        database: DatabaseName = None,
        network: NetworkName = None,
        k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 10,
    ) -> Answers:
        """The most similar images of each picture, or of each vector, in order.

        One query that cannot be used refuses all, and is named.
        """
        if media_type(request.headers.get("content-type", "")) == JSON:
            body = await uploads.read(request)
            if network is not None:
                raise HTTPException(422, "network: vectors are embedded already; leave it out")
            lane = lanes.of(0, len(body), count_vectors(body))
            return await lane.run(request, service.search_vectors, body, database, k)
        sent, lane = await received(request)
        return await lane.run(request, service.search, sent, database, network, k)

    return router


def _files(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is a file."""
    return {200: {"content": {one: {} for one in media_types}}}
