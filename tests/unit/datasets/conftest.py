"""What the tests of downloads share."""

from collections.abc import Iterator

import pytest

from pipeline.datasets import fetching, transfers
from tests.loopback_web import Website, serve_website


@pytest.fixture
def website(monkeypatch: pytest.MonkeyPatch) -> Iterator[Website]:
    """A website, of which files are fetched in haste: three attempts without a pause."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "ATTEMPTS", 3)
    monkeypatch.setattr(fetching, "BACKOFF_S", 0.0)
    monkeypatch.setattr(transfers, "TIMEOUT_S", 0.5)
    with serve_website() as site:
        yield site
