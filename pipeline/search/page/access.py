"""Who may ask: on loopback whoever is on this machine, elsewhere whoever has the token."""

import os
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
VARIABLE = "L2S_TOKEN"
LEAST_CHARACTERS = 16
MOST_BYTES = 4096  # of the file of a token


@dataclass(frozen=True)
class Access:
    """host: the address or name that is listened on. token: what every request must bear; none
    where all of this machine may ask.
    """

    host: str = LOOPBACK
    token: str | None = None

    def names(self) -> list[str]:
        """The names that a request may call the server by.

        A browser sends requests to this machine under any name that resolves to it (DNS rebinding).
        It has no token to send: with one any name will do, such as that of a proxy.
        """
        if self.token is not None:
            return ["*"]
        own = f"[{self.host}]" if ":" in self.host else self.host
        return list(dict.fromkeys([LOOPBACK, "localhost", own]))

    def address(self) -> str:
        """Of the host. Raises ValueError for a name that has none."""
        try:
            return str(socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--host {self.host}: is no address of this machine") from error


def grant_access(host: str, token_file: Path | None) -> Access:
    """Access to a server at `host`, with the token of a file, or else of the variable L2S_TOKEN.

    Raises ValueError for a host off loopback without a token, a file that cannot be read, and a
    token that is too short.
    """
    token, source = os.environ.get(VARIABLE), VARIABLE
    if token_file is not None:
        source = f"--token-file {token_file}"
        try:
            with token_file.open("rb") as file:
                token = file.read(MOST_BYTES).decode("ascii", "replace").strip()
        except OSError as error:
            raise ValueError(f"{source}: cannot be read: {error.strerror}") from error
    access = Access(host, token or None)
    if access.token is None:
        if source != VARIABLE:
            raise ValueError(f"{source}: is empty")
        if not ip_address(access.address()).is_loopback:
            raise ValueError(
                f"--host {host}: others can reach it, so that a token is needed: --token-file FILE "
                f"(or {VARIABLE}), with {LEAST_CHARACTERS} characters or more, as of "
                "`openssl rand -hex 24`"
            )
    elif len(access.token) < LEAST_CHARACTERS or not _is_plain(access.token):
        raise ValueError(
            f"{source}: a token must have {LEAST_CHARACTERS} characters or more, all of them "
            "printable ASCII without blanks, as of `openssl rand -hex 24`"
        )
    return access


def _is_plain(token: str) -> bool:
    return all("!" <= letter <= "~" for letter in token)


class Bearers:
    """Answers requests that bear the token, and tells all others 401 before it reads on."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            scheme, _, told = Headers(scope=scope).get("authorization", "").partition(" ")
            is_known = secrets.compare_digest(told.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not is_known:
                app = _UNKNOWN
        await app(scope, receive, send)


_UNKNOWN = JSONResponse(
    {"error": "this server answers only requests with its token: Authorization: Bearer TOKEN"},
    401,
    {"WWW-Authenticate": "Bearer", "Connection": "close"},
)
