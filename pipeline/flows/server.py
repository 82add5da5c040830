"""Prefect's side of a study: its settings, and a server of our own where none is configured."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.processes import end_group, end_leftovers, prepare_process, record_group
from pipeline.quick_start import quick_command
from pipeline.tracking.pages import answers

START_PATIENCE_S = 120
HOME = Path(".prefect")
Process = subprocess.Popen[bytes]


class ServerError(OSError):
    """No Prefect server answers."""


def set_up_prefect() -> None:
    """Quiet, offline and inside the project. To be called before the first import of prefect."""
    prepare_process()
    settings = {
        "PREFECT_HOME": str(HOME.resolve()),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_PATIENCE_S),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


class Server:
    """The Prefect server that a command reports to: a configured one, or one of our own."""

    def __init__(self, url: str, name: str = "", process: Process | None = None) -> None:
        self.url = url
        self._process = process
        self._log = HOME / f"{name}.log"
        self._deadline_s = time.monotonic() + START_PATIENCE_S

    def is_up(self) -> bool:
        """Whether it answers. Raises ServerError when it has died or its time is up."""
        if self._process is None or answers(self.url):
            return True
        if self._process.poll() is not None or time.monotonic() > self._deadline_s:
            raise ServerError(f"Prefect's server did not start: see {self._log}")
        return False

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it answers, or for `until`; whether it does. Raises ServerError as `is_up`."""
        while not (is_up := self.is_up()) and not until():
            time.sleep(0.2)
        return is_up


@contextmanager
def prefect_server(port: int | None = None) -> Iterator[Server]:
    """The server of PREFECT_API_URL, or for the length of the block one of our own, which starts.

    It listens on this machine only. port: where it also serves pages and schedules; without one it
    does neither, at any free port. Prefect would start one by itself, but in our process group: a
    Ctrl-C would end it before it has heard how the study ended.
    Raises ServerError where the configured server does not answer, or the port is taken.
    """
    set_up_prefect()
    if given := os.environ.get("PREFECT_API_URL"):
        if not answers(given, patience_s=10):
            raise ServerError(f"PREFECT_API_URL = {given!r}: no Prefect server answers there")
        yield Server(given)
        return
    url = f"http://127.0.0.1:{port or _free_port()}/api"
    end_leftovers(own=False)  # such as the server of a command that was killed
    if port is not None and answers(url):
        raise ServerError(
            f"a Prefect server answers at {url} already: set PREFECT_API_URL to use it, "
            "or choose another --port"
        )
    name = "prefect-server" if port is None else "schedule-server"
    environment = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    if port is not None:
        environment = {"PREFECT_UI_API_URL": url, "PREFECT_API_URL": url}
    process = _start_server(name, url, environment)
    record = record_group(name, process.pid)
    try:
        yield Server(url, name, process)
    finally:
        end_group(process.pid)
        process.wait()
        record.unlink(missing_ok=True)


def _start_server(name: str, url: str, environment: Mapping[str, str]) -> Process:
    HOME.mkdir(exist_ok=True)
    command = [*quick_command("uvicorn"), "prefect.server.api.server:create_app"]
    command += ["--factory", "--lifespan", "on", "--log-level", "error"]
    command += ["--host", "127.0.0.1", "--port", str(urlsplit(url).port)]
    with (HOME / f"{name}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
