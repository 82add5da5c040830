"""The page's server on loopback, with MLflow's beside it if wanted; both end together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

HOST = "127.0.0.1"
PATIENCE_S = 10


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


def free_port() -> int:
    """A port of loopback that nobody listens on at the moment."""
    with listen(0) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def mlflow_server(store: str, port: int) -> Iterator[None]:
    """MLflow's page on loopback as a process group of its own, ended with the block."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--host", HOST, "--port", str(port), "--workers", "1"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    try:
        yield
    finally:
        for stop in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, stop)
                process.wait(PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until the process is interrupted or told to end; then return, or raise SystemExit."""
    # uvicorn ends cleanly on SIGTERM and raises it again: it must not kill what stands around us.
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=5, server_header=False)
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
