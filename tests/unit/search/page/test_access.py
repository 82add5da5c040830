"""Who may ask the server: tokens, names of hosts, and what is refused before it listens."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline.search.page.access import Access, grant_access
from pipeline.search.page.server import create_app, listen
from pipeline.search.page.service import SearchService

TOKEN = "-".join(("a", "token", "of", "24", "characters"))
BEARS = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = {
    "/": "GET",
    "/answers.js": "GET",
    "/page.js": "GET",
    "/databases": "GET",
    "/openapi.json": "GET",
    "/picture?database=emblems&row=0": "GET",
    "/embed": "POST",
    "/search": "POST",
    "/view": "POST",
    "/nothing": "GET",
}


@pytest.fixture
def guarded(searches: SearchService) -> Iterator[TestClient]:
    app = create_app(searches, Access("127.0.0.1", TOKEN))
    with TestClient(app, base_url="http://127.0.0.1:8765") as opened:
        yield opened


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "told",
    [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xfc"],
)
def test_without_the_token_every_route_says_401(
    guarded: TestClient, route: str, told: str | None
) -> None:
    headers = {} if told is None else {"Authorization": told.encode("latin-1")}
    got = guarded.request(ROUTES[route], route, headers=headers)
    assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer")
    assert got.headers["connection"] == "close"  # a body is not read
    assert TOKEN not in got.text


def test_with_the_token_programs_are_answered_and_there_is_no_page(
    guarded: TestClient, searches: SearchService
) -> None:
    content = searches.picture("emblems", 4)
    for route in ("/embed", "/search", "/view"):
        assert guarded.post(route, content=content, headers=BEARS).status_code == 200
    assert guarded.post("/search", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 422
    assert guarded.get("/databases", headers=BEARS).status_code == 200
    for page in ("/", "/page.js", "/look.css"):
        assert guarded.get(page, headers=BEARS).status_code == 404
    told = guarded.get("/openapi.json", headers=BEARS).json()
    assert told["paths"]["/search"]["post"]["security"] == [{"HTTPBearer": []}]


def test_names_of_the_host() -> None:
    assert Access("127.0.0.1").names() == ["127.0.0.1", "localhost"]
    assert "[::1]" in Access("::1").names()
    for host in ("127.0.0.1", "0.0.0.0", "192.0.2.7"):  # noqa: S104
        assert Access(host, TOKEN).names() == ["*"]


@pytest.mark.parametrize(
    ("host", "status"),
    {
        "localhost": 200,
        "LOCALHOST:8765": 200,
        "[::1]": 200,
        "[::1]:8765": 200,
        "::1": 400,
        "localhost:8765.example": 400,
        "attacker.example:8765": 400,
        "attacker@localhost": 400,
        "": 400,
    }.items(),
)
def test_without_a_token_only_loopback_names_are_answered(
    searches: SearchService, host: str, status: int
) -> None:
    with TestClient(create_app(searches, Access("::1"))) as client:
        got = client.get("/databases", headers={"host": host})
    assert got.status_code == status
    if status == 400:
        says = f"requests to {host!r} are not answered; known: 127.0.0.1, localhost, [::1]"
        assert got.json() == {"error": says}


def test_behind_a_proxy_with_a_name_of_its_own_the_token_counts(guarded: TestClient) -> None:
    proxied = {"host": "search.example.org"}
    assert guarded.get("/databases", headers=BEARS | proxied).status_code == 200
    assert guarded.get("/databases", headers=proxied).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])  # noqa: S104
def test_off_loopback_a_token_is_needed(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--host {host}: others can reach it"):
        grant_access(host, None)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert grant_access(host, file) == Access(host, TOKEN)


@pytest.mark.parametrize(
    "token", ["short", "fifteen-letters", "with a blank in it", "ünïcödé-ünïcödé-ü"]
)
def test_weak_tokens_are_refused(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(ValueError, match=r"--token-file .*16 characters or more"):
        grant_access("127.0.0.1", tmp_path / "token")
    monkeypatch.setenv("L2S_TOKEN", token)
    with pytest.raises(ValueError, match=r"L2S_TOKEN: .*16 characters or more") as refused:
        grant_access("127.0.0.1", None)
    assert token not in str(refused.value)


def test_a_token_file_that_is_empty_is_no_open_door(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        grant_access("127.0.0.1", tmp_path / "token")


@pytest.mark.parametrize("place", ["", "absent", "token/below"])
def test_a_token_file_that_cannot_be_read_is_told_with_its_option(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(ValueError, match=r"--token-file .*: cannot be read: "):
        grant_access("127.0.0.1", tmp_path / place)


def test_the_variable_holds_a_token_and_the_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grant_access("localhost", None).token is None
    monkeypatch.setenv("L2S_TOKEN", TOKEN)
    assert grant_access("127.0.0.1", None).token == TOKEN
    (tmp_path / "token").write_text(TOKEN[::-1])
    assert grant_access("127.0.0.1", tmp_path / "token").token == TOKEN[::-1]


def test_a_host_of_nowhere_is_told() -> None:
    with pytest.raises(ValueError, match=r"--host 300\.1\.2\.3: is no address"):
        grant_access("300.1.2.3", None)
    with pytest.raises(ValueError, match=r"192\.0\.2\.7, port 0: "):
        listen(0, Access("192.0.2.7", TOKEN))


def test_no_answer_waits_for_the_receipt_of_its_head() -> None:
    """Nagle's algorithm and delayed acknowledgements: 40 ms of each answer on a kept connection."""
    with (
        listen(0) as listener,
        socket.create_connection(listener.getsockname(), timeout=10),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
