"""What the tests of downloads share."""

from collections.abc import Iterator

import pytest

from tests.loopback_web import Website, serve_website


@pytest.fixture
def website(monkeypatch: pytest.MonkeyPatch) -> Iterator[Website]:
    monkeypatch.setenv("no_proxy", "*")
    with serve_website() as site:
        yield site
