"""A web server on loopback that is slow, breaks off, lies or is gone, as it is told."""

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.datasets.published import PublishedFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PAGE = b"<html>login</html>"


def published(address: str | None = None, content: bytes = CONTENT) -> PublishedFile:
    """The file of these bytes, of which everything is published."""
    return PublishedFile(
        "file.bin",
        address,
        size_bytes=len(content),
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@dataclass
class Website:
    """What a loopback server holds, how it behaves request by request, and what it was asked.

    A behaviour: `ok`, `no_range`, `slow`, `stall`, `cut:BYTES`, `wrong_place`, `404`; `no_length`
    (as `no_range`, also `:BYTES`, after which it ends without a word); `page` and `page_told`, the
    page of a network that wants a login, without and with its length; `whole_again`, a 206 that
    begins at the first byte. After the last behaviour of the list the server is `ok`.
    """

    port: int
    content: bytes = CONTENT
    etag: str | None = '"v1"'
    behaviours: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)

    def address(self, name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    site: Website

    def do_GET(self) -> None:
        site = self.site
        site.ranges.append(self.headers["Range"])
        behaviour, _, number = (site.behaviours.pop(0) if site.behaviours else "ok").partition(":")
        if behaviour.isdecimal():
            self.send_error(int(behaviour))
        elif behaviour == "stall":
            time.sleep(1.0)
        elif behaviour.startswith("page"):
            self.send_page(told=behaviour == "page_told")
        else:
            self.send_file(behaviour, int(number) if number else None)

    def send_page(self, *, told: bool) -> None:
        self.send_response(200)
        if told:
            self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def send_file(self, behaviour: str, most_bytes: int | None) -> None:
        start = self.resume_from(behaviour)
        if start >= len(self.site.content) and start > 0:
            self.send_error(416)
            return
        self.send_headers(start, behaviour)
        body = self.site.content[0 if behaviour == "whole_again" else start :]
        for place in range(0, len(body), 1 << 18) if behaviour == "slow" else ():
            time.sleep(0.05)
            self.wfile.write(body[place : place + (1 << 18)])
        if behaviour != "slow":
            self.wfile.write(body[:most_bytes])

    def resume_from(self, behaviour: str) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, self.site.etag)
        return int(wanted[1]) if wanted and same and behaviour != "no_range" else 0

    def send_headers(self, start: int, behaviour: str) -> None:
        total = len(self.site.content)
        self.send_response(206 if start else 200)
        if start:
            place = start - 1 if behaviour == "wrong_place" else start
            length = "*" if behaviour == "no_length" else total
            self.send_header("Content-Range", f"bytes {place}-{total - 1}/{length}")
        if self.site.etag is not None:
            self.send_header("ETag", self.site.etag)
        if behaviour not in ("no_length", "whole_again"):
            self.send_header("Content-Length", str(total - start))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve_website() -> Iterator[Website]:
    """The website, as long as the block lasts."""
    handler = type("SiteHandler", (Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.site = site = Website(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
