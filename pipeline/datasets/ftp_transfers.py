"""A file from an FTP server, from any byte on (RFC 959 and 3659: passive, binary, SIZE, REST)."""

import ftplib
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import SplitResult, unquote, urlsplit

from pipeline.datasets.parts import PartOrigin, Reply, TransferError

# One character a byte: the bytes of an address are sent as they are, and any reply can be read.
_ENCODING = "latin-1"


@contextmanager
def open_ftp(
    address: str, offset: int, *, size_bytes: int | None, part_total: int | None, timeout_s: float
) -> Iterator[Reply]:
    """The reply of an FTP server, from `offset` on if it can, else from the first byte.

    offset: bytes that are there. They are gone on from if the server's file has the length
    `size_bytes`, or, where that is None, `part_total`: what the same address said when they were
    sent. A server that tells no length is trusted only if `size_bytes` is known. The name of the
    user is that of the address, or anonymous. timeout_s: the longest silence of the server.

    Raises TransferError, to be tried again unless the server refused for good (5xx).
    """
    place = urlsplit(address)
    folder, _, name = unquote(place.path, _ENCODING).lstrip("/").rpartition("/")
    try:
        with closing(ftplib.FTP(encoding=_ENCODING)) as ftp:  # noqa: S321  # the address's choice
            _enter(ftp, place, folder, timeout_s)
            total = _size_bytes(ftp, name)
            expected = part_total if size_bytes is None else size_bytes
            resumable = size_bytes is not None if total is None else total == expected
            connection, start, announced = _retrieve(ftp, name, offset if resumable else 0)
            if total is None and not start:
                total = announced
            with connection:

                def read(most_bytes: int) -> bytes:
                    chunk = connection.recv(most_bytes)
                    if not chunk and total is None:
                        ftp.voidresp()  # nothing else tells an end from a cut
                    return chunk

                yield Reply(PartOrigin(address, None, total), start, read)
    except ftplib.error_perm as error:
        raise TransferError(_reason(error), again=False) from error
    except (ftplib.Error, EOFError) as error:
        raise TransferError(_reason(error), again=True) from error


def _enter(ftp: ftplib.FTP, place: SplitResult, folder: str, timeout_s: float) -> None:
    ftp.connect(place.hostname or "", place.port or ftplib.FTP_PORT, timeout_s)
    user, password = (unquote(word or "", _ENCODING) for word in (place.username, place.password))
    ftp.login(user, password)
    if folder:
        ftp.cwd(folder)
    ftp.voidcmd("TYPE I")


def _size_bytes(ftp: ftplib.FTP, name: str) -> int | None:
    try:
        return ftp.size(name)
    except (ftplib.error_perm, ValueError):
        return None


def _retrieve(ftp: ftplib.FTP, name: str, offset: int) -> tuple[socket.socket, int, int | None]:
    """The connection that the bytes come from, the place of their first, and their number."""
    if offset:
        try:
            connection, announced = ftp.ntransfercmd(f"RETR {name}", rest=offset)
            return connection, offset, announced
        except ftplib.error_perm:
            pass  # it may know no REST
    connection, announced = ftp.ntransfercmd(f"RETR {name}")
    return connection, 0, announced


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"FTP {words}" if words else "FTP: the server closed the connection"
