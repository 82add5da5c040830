"""An FTP server on loopback, whose transfers go wrong as it is told."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class FtpSite:
    """The file cs/file.bin of a server, how each transfer goes, and what the server was asked.

    A behaviour: `ok`, `cut:BYTES`, `aborted:BYTES` (and the server says so), `stall` (silence
    instead of bytes), `ignores_rest` (REST is accepted and forgotten). After the last behaviour
    of the list a transfer is `ok`. `replies` are the answers to commands, other than the usual;
    `hang_up` ends the connection. `opening` comes before the bytes.
    """

    port: int
    content: bytes
    behaviours: list[str] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    opening: str = "150 here it comes"
    commands: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def address(self, path: str = "cs/file.bin") -> str:
        return f"ftp://127.0.0.1:{self.port}/{path}"

    def asked(self, verb: str) -> list[str]:
        """The arguments of a command, one for each time that it came."""
        return [line.partition(" ")[2] for line in self.commands if line.split()[0] == verb]


class FtpHandler(socketserver.StreamRequestHandler):
    site: FtpSite

    def handle(self) -> None:
        self.listener: socket.socket | None = None
        self.rest = 0
        try:
            self.say("220 hello")
            while line := self.rfile.readline().decode().strip():
                self.site.commands.append(line)
                verb, _, argument = line.partition(" ")
                reply = self.site.replies.get(verb) or self.answer(verb, argument)
                if reply == "hang_up":
                    break
                self.say(reply)
        except ConnectionError:
            pass  # the client has gone
        finally:
            if self.listener is not None:
                self.listener.close()

    def answer(self, verb: str, argument: str) -> str:
        if verb == "SIZE":
            return f"213 {len(self.site.content)}"
        if verb == "REST":
            self.rest = int(argument)
            return "350 go on"
        if verb == "PASV":
            return self.listen()
        if verb == "RETR":
            return self.send_file()
        usual = {"USER": "331 who", "PASS": "230 in", "TYPE": "200 ok", "CWD": "250 ok"}
        return usual.get(verb, "502 unknown")

    def listen(self) -> str:
        if self.listener is not None:
            self.listener.close()
        self.listener = socket.create_server(("127.0.0.1", 0))
        high, low = divmod(self.listener.getsockname()[1], 256)
        return f"227 (127,0,0,1,{high},{low})"

    def send_file(self) -> str:
        assert self.listener is not None
        site = self.site
        behaviour, _, number = (site.behaviours.pop(0) if site.behaviours else "ok").partition(":")
        start = 0 if behaviour == "ignores_rest" else self.rest
        self.rest = 0
        self.say(site.opening)
        connection, _ = self.listener.accept()
        with connection:
            if behaviour == "stall":
                site.released.wait(5.0)
            else:
                connection.sendall(site.content[start:][: int(number) if number else None])
        return "426 aborted" if behaviour == "aborted" else "226 done"

    def say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())


@contextmanager
def serve_ftp(content: bytes) -> Iterator[FtpSite]:
    """The FTP server, as long as the block lasts."""
    handler = type("SiteHandler", (FtpHandler,), {})
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    handler.site = site = FtpSite(server.server_address[1], content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
