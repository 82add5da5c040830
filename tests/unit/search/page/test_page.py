"""The search page: what it answers, what it refuses, and how it looks to a real browser."""

import asyncio
import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from PIL import Image

from pipeline.datasets.packs import open_pack
from pipeline.paths import DatasetPaths
from pipeline.search import pictures
from pipeline.search.indexing import index_folder
from pipeline.search.page import api, server, turns
from pipeline.search.page.bodies import Pictures
from pipeline.search.page.schema import Answers
from pipeline.search.page.server import create_app
from pipeline.search.page.service import SearchService
from pipeline.search.search import NamedNetwork, open_network
from pipeline.search.structures import write_exact_index
from tests.made_study import CPU, STUDENT, write_test_images

GOOD = f"database=emblems&network={STUDENT}"


def encoded(width: int = 40, height: int = 30, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize(("network", "px"), [(STUDENT, 16), ("teacher", 32)])
def test_results_come_with_the_time_of_each_step(
    client: TestClient, searches: SearchService, network: str, px: int
) -> None:
    asked = f"/search?database=emblems&network={network}&k=3"
    found = client.post(asked, content=searches.picture("emblems", 4)).json()
    assert (found["network"], found["query_px"], found["champion_version"]) == (network, px, None)
    (answer,) = found["answers"]
    assert list(answer["times_ms"]) == ["decode", "view", "embed", "search"]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert answer["hits"][0]["id"] < 2**53  # what JavaScript can tell apart
    if network == "teacher":
        assert answer["hits"][0]["row"] == 4


def test_the_catalogue_names_databases_networks_and_examples(client: TestClient) -> None:
    study_pack = open_pack(DatasetPaths("emblems").pack)
    test = study_pack.rows("test")
    rows = [
        (row, int(test[row]), study_pack.class_of(int(test[row])))
        for row in (0, 3, 7, 11, 15, 18, 22, 26)
    ]
    assert client.get("/databases").json() == [
        {
            "name": "emblems",
            "images": 30,
            "networks": [STUDENT, "teacher"],
            "has_pictures": True,
            "examples": [
                {"row": row, "name": study_pack.names[place], "class_name": name}
                for row, place, name in rows
            ],
            "fault": None,
        }
    ]


def test_pictures_come_by_row_small_or_as_they_are(
    client: TestClient, searches: SearchService
) -> None:
    small = client.get("/picture?database=emblems&row=29")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(small.content)).size == (40, 40)
    full = client.get("/picture?database=emblems&row=29&full=true")
    assert full.content == searches.picture("emblems", 29)


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    for address in ("/", "/look.css", "/page.css", "/answers.js", "/page.js", "/icon.svg"):
        got = client.get(address)
        assert got.status_code == 200
        assert "default-src 'none'" in got.headers["content-security-policy"]
        assert got.headers["x-content-type-options"] == "nosniff"
        text = got.text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http://" not in text
        assert "https://" not in text


def test_a_network_trained_again_is_loaded_again(client: TestClient, study: Path) -> None:
    assert client.post(f"/search?{GOOD}", content=encoded()).status_code == 200
    (study / f"models/emblems/students/{STUDENT}.safetensors").write_bytes(b"broken")
    got = client.post(f"/search?{GOOD}", content=encoded())
    assert got.status_code == 409
    assert "is not a network" in got.json()["error"]


@dataclass(frozen=True)
class Refusal:
    """A request and the answer that it must get."""

    status: int
    says: str
    address: str = f"/search?{GOOD}"
    method: str = "POST"
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


PICTURE = encoded()
REFUSALS = {
    "empty upload": Refusal(422, "is empty"),
    "text": Refusal(422, "is not an image", content=b"hello"),
    "HTML": Refusal(422, "is not an image", content=b"<svg onload=alert(1)>"),
    "half a PNG": Refusal(422, "cannot be", content=PICTURE[: len(PICTURE) // 2]),
    "half a JPEG": Refusal(422, "cannot be", content=encoded(form="JPEG")[:400]),
    "decompression bomb": Refusal(422, "pixels", content=encoded(2000, 2000)),
    "a line of pixels": Refusal(422, "a side over", content=encoded(70_000, 1)),
    "too many bytes": Refusal(413, "more than", content=b"\0" * (turns.MAX_UPLOAD_BYTES + 1)),
    "unknown network": Refusal(
        404, "no network 'x'", "/search?database=emblems&network=x", content=PICTURE
    ),
    "network of another place": Refusal(
        404, "no network", "/search?database=emblems&network=../../teacher", content=PICTURE
    ),
    "unknown database": Refusal(
        404, "no database is called 'x'", "/search?database=x&network=teacher", content=PICTURE
    ),
    "no results wanted": Refusal(422, "k: ", f"/search?{GOOD}&k=0", content=PICTURE),
    "too many results": Refusal(422, "k: ", f"/search?{GOOD}&k=51", content=PICTURE),
    "no number": Refusal(422, "k: ", f"/search?{GOOD}&k=many", content=PICTURE),
    "row past the end": Refusal(404, "no picture 30", "/picture?database=emblems&row=30", "GET"),
    "negative row": Refusal(404, "no picture -1", "/picture?database=emblems&row=-1", "GET"),
    "a path for a row": Refusal(
        422, "row: ", "/picture?database=emblems&row=../../params.yaml", "GET"
    ),
    "a path for a database": Refusal(
        404, "no database", "/picture?database=../../etc&row=0", "GET"
    ),
    "a path below the page": Refusal(404, "Not Found", "/page.js/../../service.py", "GET"),
    "an encoded path": Refusal(404, "Not Found", "/%2e%2e/%2e%2e/params.yaml", "GET"),
    "wrong method": Refusal(405, "Method Not Allowed", method="GET"),
    "another host": Refusal(400, "not answered", "/", "GET", headers={"host": "attacker.example"}),
    "another host at our port": Refusal(
        400, "not answered", "/databases", "GET", headers={"host": "attacker.example:8765"}
    ),
    "another site": Refusal(
        403, "not answered", content=PICTURE, headers={"origin": "http://attacker.example"}
    ),
    "a file as origin": Refusal(403, "not answered", content=PICTURE, headers={"origin": "null"}),
    "another port": Refusal(
        403, "not answered", content=PICTURE, headers={"origin": "http://127.0.0.1:1"}
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_gets_a_4xx_and_words(client: TestClient, study: Path, name: str) -> None:
    refusal = REFUSALS[name]
    before = sorted(study.rglob("*"))
    got = client.request(
        refusal.method, refusal.address, content=refusal.content, headers=refusal.headers
    )
    assert got.status_code == refusal.status, got.text
    assert refusal.says in got.json()["error"]
    assert "Traceback" not in got.text
    assert str(study) not in got.text
    assert sorted(study.rglob("*")) == before


def test_the_table_of_refusals_is_whole() -> None:
    assert len(REFUSALS) == 26


def test_an_upload_without_a_length_is_cut_off(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_UPLOAD_BYTES", 1000)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(5):
            sent += 1
            yield b"\0" * 400

    assert client.post(f"/search?{GOOD}", content=parts()).status_code == 413
    assert sent > 2


def test_a_queue_that_is_full_is_told(
    searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SMALL_WAITING", -1)
    with TestClient(create_app(searches), base_url="http://localhost") as client:
        got = client.post(f"/search?{GOOD}", content=PICTURE)
    assert got.status_code == 503
    assert "try again" in got.json()["error"]
    assert got.headers["retry-after"] == str(turns.RETRY_AFTER_S)


def post(address: str, content: bytes) -> int:
    return httpx.post(f"{address}/search?{GOOD}", content=content, timeout=60).status_code


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_slow_uploads_keep_nobody_waiting_and_end(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve that never end, where five were enough; one more byte now and then does not help."""
    monkeypatch.setattr(turns, "UPLOAD_S", 3)
    head = f"POST /search?{GOOD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    held = [connect(address) for _ in range(12)]
    for connection in held:
        connection.sendall(head.encode() + b"\xff")
    assert [post(address, PICTURE) for _ in range(5)] == [200] * 5
    for connection in held:
        with suppress(OSError):
            connection.sendall(b"\xff")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        connection.close()


def test_connections_without_a_whole_head_end(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A byte now and then does not help, nor does what follows an answer."""
    monkeypatch.setattr(server, "HEAD_S", 2)
    address = request.getfixturevalue("address")
    refused = "POST /search?k=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
    heads = [b"", b"GET / HTTP/1.1\r\nHost: lo", refused.encode(), refused.encode() + bytes(99)]
    held = [connect(address) for _ in heads]
    for connection, head in zip(held, heads, strict=True):
        connection.sendall(head)
    for _ in range(6):
        time.sleep(0.5)
        for connection in held[1:]:
            with suppress(OSError):
                connection.sendall(b"a")
    for connection in held:
        connection.settimeout(0.5)
        with suppress(ConnectionResetError):
            while connection.recv(10_000):
                pass
        connection.close()
    assert post(address, PICTURE) == 200


def test_connections_together_have_a_bound(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    held = [connect(address) for _ in range(3)]
    with connect(address) as fourth:
        assert fourth.recv(100) == b""
    asked = b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for connection in held:
        connection.sendall(asked)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.close()


def test_who_comes_at_once_is_served_in_turn(address: str) -> None:
    with ThreadPoolExecutor(32) as clients:
        assert list(clients.map(lambda _: post(address, PICTURE), range(64))) == [200] * 64


def test_uploads_together_have_a_bound(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ARRIVING_BYTES", 100_000)
    head = f"POST /search?{GOOD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    first, second = connect(address), connect(address)
    for connection in (first, second):
        connection.sendall(head.encode() + b"\xff" * 55_000)
        time.sleep(0.2)
    assert second.recv(100).startswith(b"HTTP/1.1 503")
    assert post(address, PICTURE) == 200
    first.close()
    second.close()
    deadline_s = time.monotonic() + 10
    while post(address, b"\0" * 90_000) == 503:  # until the server knows that they have gone
        assert time.monotonic() < deadline_s


def test_uploads_that_are_not_in_a_queue_yet_count_as_arriving(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, count = threading.Event(), threading.Event(), api.pixel_count

    def count_later(encoded: bytes) -> int:
        begun.set()
        assert may_end.wait(30)
        return count(encoded)

    monkeypatch.setattr(api, "pixel_count", count_later)
    monkeypatch.setattr(turns, "ARRIVING_BYTES", 100_000)
    large = PICTURE.ljust(60_000, b"\0")
    with ThreadPoolExecutor(1) as client:
        first = client.submit(post, address, large)
        assert begun.wait(30)
        assert post(address, large) == 503
        may_end.set()
        assert first.result() == 200
    assert post(address, large) == 200


def test_a_large_picture_does_not_hold_up_the_small_ones(
    address: str, searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the small one is answered, the large one is at work."""
    monkeypatch.setattr(turns, "SMALL_PIXELS", 10_000)
    is_small_answered = threading.Event()
    search = searches.search

    def wait_if_large(sent: Pictures, *asked: Any) -> Answers:
        if sent[0][1] != PICTURE:
            assert is_small_answered.wait(30)
        return search(sent, *asked)

    monkeypatch.setattr(searches, "search", wait_if_large)
    with ThreadPoolExecutor(1) as client:
        large = client.submit(post, address, encoded(400, 300))
        assert post(address, PICTURE) == 200
        is_small_answered.set()
        assert large.result() == 200


def test_who_has_gone_is_not_searched_for(
    address: str, searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, searched = threading.Event(), threading.Event(), []
    search = searches.search

    def count(sent: Pictures, *asked: Any) -> Answers:
        searched.append(sent)
        begun.set()
        assert may_end.wait(30)
        return search(sent, *asked)

    monkeypatch.setattr(searches, "search", count)
    with ThreadPoolExecutor(1) as client:
        first = client.submit(post, address, PICTURE)
        assert begun.wait(30)
        for _ in range(5):
            with suppress(httpx.TimeoutException):
                httpx.post(f"{address}/search?{GOOD}", content=PICTURE, timeout=0.3)
        may_end.set()
        assert first.result() == 200
        assert post(address, PICTURE) == 200
    assert len(searched) == 2


def test_who_goes_during_an_upload_is_no_fault_of_the_program(searches: SearchService) -> None:
    """Of an exception that reaches uvicorn the terminal would have the traceback."""
    head = {"type": "http", "method": "POST", "path": "/search", "query_string": b""}
    parts = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"a", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    app = create_app(searches)
    asyncio.run(app({**head, "headers": [(b"host", b"localhost")]}, receive, send))
    assert sent[0]["status"] == 408
    assert b"the client has gone" in sent[1]["body"]


@pytest.fixture
def indexed(study: Path) -> Path:
    """The study with an index of four pictures, `mine`."""
    write_test_images(study, study / "pictures", 4)
    named = NamedNetwork("teacher", "emblems")
    index_folder(study / "pictures", "mine", named, open_network(named, CPU))
    return study / "indexes" / "mine"


def test_what_is_broken_disables_nothing_else(
    client: TestClient, indexed: Path, study: Path
) -> None:
    for name, content in (("cut", b"{"), ("empty", b""), ("other", b'{"generation": 1}')):
        (indexed.parent / name).mkdir()
        (indexed.parent / name / "index.json").write_bytes(content)
    shutil.copytree(indexed, indexed.parent / "torn")
    (indexed.parent / "torn" / "1" / "images.parquet").write_bytes(b"torn")
    listed = {entry["name"]: entry for entry in client.get("/databases").json()}
    broken = {name for name, entry in listed.items() if entry["fault"]}
    assert broken == {"index cut", "index empty", "index other", "index torn"}
    assert set(listed) - broken == {"emblems", "index mine"}
    assert client.post(f"/search?{GOOD}", content=PICTURE).status_code == 200
    asked = f"/search?database=index mine&network={STUDENT}"
    assert client.post(asked, content=PICTURE).status_code == 200
    got = client.post(f"/search?database=index cut&network={STUDENT}", content=PICTURE)
    assert got.status_code == 409
    assert "is not the card of an index" in got.json()["error"]
    (study / f"models/emblems/students/{STUDENT}.safetensors").write_bytes(b"broken")
    asked = "/search?database=index mine&network=teacher"
    assert client.post(asked, content=PICTURE).status_code == 200


def _table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        file = home / "1" / "images.parquet"
        pq.write_table(change(pq.read_table(file)), file)

    return write


BROKEN: dict[str, Callable[[Path], object]] = {
    "vectors of nothing": lambda home: (home / "1" / "vectors.npy").write_bytes(b""),
    "vectors of words": lambda home: (home / "1" / "vectors.npy").write_bytes(b"words"),
    "vectors in a row": lambda home: np.save(home / "1" / "vectors.npy", np.zeros(4)),
    "vectors of texts": lambda home: np.save(home / "1" / "vectors.npy", np.full((4, 16), "x")),
    "no index": lambda home: (home / "1" / "index.faiss").write_bytes(b"null"),
    "no name": _table(lambda table: table.drop_columns("name")),
    "names of numbers": _table(lambda table: table.set_column(1, "name", table["id"])),
    "a gap": _table(
        lambda table: table.set_column(1, "name", pa.array(["a", None, "c", "d"], pa.string()))
    ),
    "ids in disorder": _table(lambda table: table.take([1, 0, 2, 3])),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_no_broken_file_of_an_index_disables_anything_else(
    client: TestClient, indexed: Path, fault: str
) -> None:
    shutil.copytree(indexed, indexed.parent / "torn")
    BROKEN[fault](indexed.parent / "torn")
    listed = {entry["name"]: entry for entry in client.get("/databases").json()}
    assert {name for name, entry in listed.items() if entry["fault"]} == {"index torn"}
    got = client.post(f"/search?database=index torn&network={STUDENT}", content=PICTURE)
    assert got.status_code == 409, got.json()


def test_an_index_that_knows_other_images_than_its_table_gives_no_results(
    client: TestClient, indexed: Path
) -> None:
    def other(table: pa.Table) -> pa.Table:
        ids = pa.array(range(4), pa.int64())
        return table.set_column(0, "id", ids)

    _table(other)(indexed)
    got = client.post(f"/search?database=index mine&network={STUDENT}", content=PICTURE)
    assert got.status_code == 409
    assert "knows other images than its table" in got.json()["error"]


@pytest.mark.parametrize("content", [b"", b"words", b"\x93NUMPY"])
@pytest.mark.parametrize(
    "file",
    [
        "embeddings/emblems/database.npy",
        "embeddings/emblems/database.faiss",
        "data/emblems/pack.arrow",
    ],
)
def test_a_study_that_is_broken_disables_no_index(
    client: TestClient, indexed: Path, study: Path, file: str, content: bytes
) -> None:
    assert indexed.exists()
    (study / file).write_bytes(content)
    listed = {entry["name"]: entry for entry in client.get("/databases").json()}
    assert file in listed["emblems"]["fault"]
    assert listed["index mine"]["fault"] is None


def test_a_damaged_champion_disables_its_student_alone(client: TestClient, study: Path) -> None:
    (study / "champions/emblems").mkdir(parents=True)
    (study / "champions/emblems/16px.json").write_text("{")
    got = client.post(f"/search?{GOOD}", content=PICTURE)
    assert got.status_code == 409
    assert "16px.json: is damaged" in got.json()["error"]
    asked = "/search?database=emblems&network=teacher"
    assert client.post(asked, content=PICTURE).status_code == 200
    assert client.get("/databases").json()[0]["networks"] == ["teacher"]


CLAIMS = {
    "another folder": ({"folder": "/etc", "name": "passwd"}, "has changed since"),
    "the folder's neighbour": ({"name": "../params.yaml"}, "lies outside"),
    "a path from the root": ({"name": "/etc/passwd"}, "lies outside"),
    "another file": ({"name": "notes.txt"}, "has changed since"),
    "a text that was indexed": (
        {"name": "notes.txt", "sha256": hashlib.sha256(b"secret").hexdigest()},
        "is not an image",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("full", [False, True])
def test_an_index_shows_only_pictures_of_its_folder(
    client: TestClient, indexed: Path, study: Path, claim: str, full: bool
) -> None:
    changes, says = CLAIMS[claim]
    (study / "pictures" / "notes.txt").write_bytes(b"secret")
    file = indexed / "1" / "images.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[2] |= changes
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    asked = f"/picture?database=index mine&full={full}&row="
    assert client.get(f"{asked}1").status_code == 200
    got = client.get(f"{asked}2")
    assert got.status_code == 422
    assert says in got.json()["error"]
    assert len(CLAIMS) == 5


@pytest.fixture
def large(study: Path) -> Path:
    """A picture of 12 MB in an index, more than the buffers of a connection hold."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    folder = study / "pictures"
    folder.mkdir()
    Image.fromarray(noise).save(folder / "large.png", compress_level=0)
    named = NamedNetwork("teacher", "emblems")
    index_folder(folder, "large", named, open_network(named, CPU))
    return folder / "large.png"


def test_clients_that_take_no_answer_hold_little_and_not_for_long(
    large: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_bytes = large.stat().st_size
    monkeypatch.setattr(turns, "ANSWERING_BYTES", 2 * size_bytes)
    monkeypatch.setattr(turns, "ANSWER_S", 4)
    asked = "/picture?database=index%20large&row=0&full=true"
    held = [connect(address) for _ in range(2)]
    for connection in held:
        connection.sendall(f"GET {asked} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    refused = httpx.get(f"{address}{asked}", timeout=30)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == str(turns.RETRY_AFTER_S)
    assert post(address, PICTURE) == 200
    deadline_s = time.monotonic() + 30
    while (got := httpx.get(f"{address}{asked}", timeout=30)).status_code == 503:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    assert got.content == large.read_bytes()
    time.sleep(turns.ANSWER_S)  # the second client's time ends later than the first one's
    for connection in held:
        taken = 0
        while part := connection.recv(1 << 20):
            taken += len(part)
        assert taken < size_bytes
        connection.close()


def test_thumbnails_of_large_photographs_are_decoded_small_and_once(
    client: TestClient, indexed: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [f"/picture?database=index mine&row={row % 4}" for row in range(12)]
    made, decode = [], pictures.decode_image

    def count(content: bytes, name: str, **settings: Any) -> Image.Image:
        made.append(settings["least_px"])
        return decode(content, name, **settings)

    monkeypatch.setattr(pictures, "decode_image", count)
    assert {client.get(address).status_code for address in asked} == {200}
    assert made == [192] * 4


def test_faults_of_the_program_have_words(
    searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {MemoryError(): (503, "not enough memory"), ArithmeticError(): (500, "a fault of")}
    for fault, (status, says) in faults.items():

        def fail(*_: object, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr(searches, "search", fail)
        app = create_app(searches)
        with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
            got = client.post(f"/search?{GOOD}", content=PICTURE)
        assert got.status_code == status
        assert says in got.json()["error"]


@pytest.mark.parametrize(("number", "status"), [(torch.nan, 200), (torch.inf, 409)])
def test_results_carry_no_nan(client: TestClient, study: Path, number: float, status: int) -> None:
    """FAISS finds no vector of NaN; of infinity it finds one, whose similarity says nothing."""
    vectors = torch.from_numpy(np.load(study / "embeddings/emblems/database.npy"))
    vectors[3:5] = 0
    vectors[3, 0], vectors[4, 0] = number, -number  # one of them is the most similar
    write_exact_index(study / "embeddings/emblems/database.faiss", vectors.numpy())
    got = client.post(f"/search?{GOOD}&k=50", content=PICTURE)
    assert got.status_code == status
    if status == 200:
        assert len(got.json()["answers"][0]["hits"]) == 28
    else:
        assert "not finite" in got.json()["error"]


def test_who_goes_leaves_the_queue_at_once_and_no_turn_is_lost() -> None:
    async def scene() -> None:
        queue, begun, goes_on = turns.Turns(1), threading.Event(), threading.Event()

        def client(leaves: asyncio.Event) -> Request:
            async def receive() -> dict[str, str]:
                await leaves.wait()
                return {"type": "http.disconnect"}

            return Request({"type": "http"}, receive)

        def work() -> str:
            begun.set()
            goes_on.wait(10)
            return "done"

        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(queue.run(client(stays), work))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(queue.run(client(leaves), work))
        await asyncio.sleep(0)
        with pytest.raises(turns.Busy):
            await queue.run(client(stays), work)
        leaves.set()
        with pytest.raises(HTTPException, match="the client has gone"):
            await second
        third = asyncio.create_task(queue.run(client(stays), work))
        goes_on.set()
        assert [await first, await third] == ["done", "done"]

    asyncio.run(scene())
