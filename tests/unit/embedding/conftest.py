"""Ten pictures that a random network embeds, each test's own."""

import shutil
from pathlib import Path

import pytest

from pipeline.embedding.shards import Job
from tests.made_embedding import make_job, write_network, write_pictures


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture
def job(tmp_path: Path, network: Path) -> Job:
    shutil.copy(network, tmp_path)
    write_pictures(tmp_path / "images", range(10))
    return make_job(tmp_path)
