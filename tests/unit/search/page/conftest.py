"""A study that is served: its files, the service of it, and a client that asks in this process."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline.config.params import load_params
from pipeline.search.page import service
from pipeline.search.page.server import create_app, listen, server_of
from pipeline.search.page.service import SearchService
from tests.made_study import make_served_study


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_served_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def searches(study: Path, monkeypatch: pytest.MonkeyPatch) -> SearchService:
    monkeypatch.setattr(service, "MAX_UPLOAD_PIXELS", 1_000_000)
    return SearchService(load_params())


@pytest.fixture
def client(searches: SearchService) -> Iterator[TestClient]:
    with TestClient(create_app(searches), base_url="http://127.0.0.1:8765") as opened:
        yield opened


@pytest.fixture
def address(searches: SearchService) -> Iterator[str]:
    """The page, served by a thread of this process."""
    with listen(0) as listener:
        served = server_of(create_app(searches))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]})
        thread.start()
        while not served.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        served.should_exit = True
        thread.join()
