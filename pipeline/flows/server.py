"""Prefect's side of a study: its settings, and a server of our own where none is configured."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from pipeline.processes import end_group, record_group

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

START_PATIENCE_S = 120
HOME = Path(".prefect")


class ServerError(OSError):
    """No Prefect server answers."""


def set_up_prefect() -> None:
    """Quiet, offline and inside the project. To be called before the first import of prefect."""
    settings = {
        "PREFECT_HOME": str(HOME.resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_PATIENCE_S),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


class OwnServer:
    """A Prefect server for the length of a study, in a session of its own.

    It serves no pages and no schedules. Prefect would start one by itself, but in our process
    group: a Ctrl-C would end it before it has heard how the study ended.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = HOME / "server.log"
        HOME.mkdir(exist_ok=True)
        package = find_spec("prefect")
        assert package is not None
        assert package.origin is not None
        command = ["uvicorn", "--app-dir", str(Path(package.origin).parent), "--factory"]
        command += ["prefect.server.api.server:create_app", "--lifespan", "on"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"},
                start_new_session=True,
            )
        self.record = record_group("prefect-server", self.process.pid)
        self.deadline_s = time.monotonic() + START_PATIENCE_S

    def is_up(self) -> bool:
        """Whether it answers. Raises ServerError when it has died or its time is up."""
        if answers(self.url):
            return True
        if self.process.poll() is not None or time.monotonic() > self.deadline_s:
            raise ServerError(f"Prefect's server did not start: see {self.log}")
        return False

    def stop(self) -> None:
        end_group(self.process.pid)
        self.process.wait()
        self.record.unlink(missing_ok=True)


def answers(url: str, patience_s: float = 0.5) -> bool:
    """Whether a Prefect API answers at the address."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=patience_s) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False


def send_what_waits() -> None:
    """Give Prefect's threads time to send states and log lines before their server goes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def close_lost_run(record: Mapping[str, Any]) -> None:
    """Report the run of a study that was killed as crashed: it cannot do so itself.

    `record` is what that study left on disk. Called where its Prefect answers.
    """
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    run_id = UUID(record["flow_run_id"])
    lost: State[Any] = Crashed(message=f"its process {record['pid']} was killed")
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # of another Prefect database
            return
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        for task_run in client.read_task_runs(flow_run_filter=of_run):
            if task_run.state and not task_run.state.is_final():
                client.set_task_run_state(task_run.id, lost, force=True)
        if run.state and not run.state.is_final():
            client.set_flow_run_state(run_id, lost, force=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
