"""The server for other programs: forms, vectors, every kind of index, and what describes it."""

import json
import shutil
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from threading import Timer
from typing import Any

import faiss
import httpx
import jsonschema
import numpy as np
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import save_file

from pipeline import open_encoder
from pipeline.config.params import load_params
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.embedding.shards import vectors_digest
from pipeline.models.query_encoder import square_view
from pipeline.models.weights import NetworkCard, build_embedder, save_network
from pipeline.paths import DatasetPaths
from pipeline.search import concurrency
from pipeline.search.databases import Database, Hit
from pipeline.search.page import bodies, service, turns
from pipeline.search.page.server import create_app
from pipeline.search.page.service import SearchService
from pipeline.search.search import named_file, search_picture
from pipeline.search.upkeep import build_index, remove_vectors
from tests.made_study import STUDENT

STUDENTS = f"/search?database=emblems&network={STUDENT}"


def form(*pictures: tuple[str, bytes]) -> dict[str, Any]:
    return {"files": [("pictures", one) for one in pictures]}


@pytest.fixture
def pictures(searches: SearchService) -> list[bytes]:
    return [searches.picture("emblems", row) for row in (4, 9, 20)]


def test_embeddings_are_those_of_the_library(client: TestClient, pictures: list[bytes]) -> None:
    sent = form(*((f"{i}.jpg", one) for i, one in enumerate(pictures)))
    for network, px in ((STUDENT, 16), ("teacher", 32)):
        got = client.post(f"/embed?network={network}", **sent).json()
        assert (got["network"], got["size_px"], got["dimension"]) == (network, px, 16)
        file = DatasetPaths("emblems").teacher
        encoder = open_encoder(network if network == STUDENT else file)
        np.testing.assert_allclose(got["vectors"], encoder.encode(pictures), atol=1e-6)
    assert client.post("/embed", content=pictures[0]).json()["network"] == STUDENT


def test_a_form_of_pictures_is_answered_in_its_order(
    client: TestClient, pictures: list[bytes]
) -> None:
    sent = form(("a.jpg", pictures[0]), ("über/b.jpg", pictures[1]), ("a.jpg", pictures[2]))
    got = client.post(f"{STUDENTS}&k=4", **sent).json()
    told = ["picture 1 (a.jpg)", "picture 2 (über/b.jpg)", "picture 3 (a.jpg)"]
    assert [one["query"] for one in got["answers"]] == told
    for one, picture in zip(got["answers"], pictures, strict=True):
        alone = client.post(f"{STUDENTS}&k=4", content=picture).json()["answers"][0]
        assert one["hits"] == alone["hits"]


def test_a_database_was_searched_before_a_query_is_timed(
    searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, search = [], Database.search

    def noted(database: Database, query: np.ndarray, k: int) -> list[Hit]:
        searched.append(database.name)
        return search(database, query, k)

    monkeypatch.setattr(Database, "search", noted)
    fresh = SearchService(load_params())
    [entry] = fresh.catalogue()
    assert searched == [entry.name] == ["emblems"]


def test_vectors_are_searched_as_pictures_are(client: TestClient, pictures: list[bytes]) -> None:
    vectors = np.array(client.post("/embed", content=pictures[1]).json()["vectors"])
    by_picture = client.post(STUDENTS, content=pictures[1]).json()["answers"][0]["hits"]
    for scale in (1, 7, 1e300, 1e-300):
        sent = {"vectors": (scale * vectors).tolist()}
        got = client.post("/search?database=emblems", json=sent).json()
        assert got["network"] is None
        assert [hit["row"] for hit in got["answers"][0]["hits"]] == [h["row"] for h in by_picture]
        for hit, other in zip(got["answers"][0]["hits"], by_picture, strict=True):
            assert hit["similarity"] == pytest.approx(other["similarity"], abs=1e-6)


def test_the_view_is_what_the_network_is_fed(client: TestClient, pictures: list[bytes]) -> None:
    got = client.post(f"/view?network={STUDENT}", content=pictures[0])
    assert got.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(BytesIO(got.content)))
    original = Image.open(BytesIO(pictures[0])).convert("RGB")
    np.testing.assert_array_equal(shown, square_view(original, 16))


GOOD = [0.5] * 16
FAULTS = {
    "no JSON": (b"{", 422, "the body"),
    "no vectors": (b'{"vectors": []}', 422, "vectors: "),
    "an empty vector": (b'{"vectors": [[]]}', 422, "vectors.0: "),
    "another key": (b'{"vectors": [[1]], "k": 1}', 422, "k: "),
    "NaN": (json.dumps({"vectors": [GOOD, [*GOOD[1:], np.nan]]}).encode(), 422, "vectors.1.15: "),
    "infinity": (json.dumps({"vectors": [[np.inf]]}).encode(), 422, "vectors.0.0: "),
    "zero": (json.dumps({"vectors": [GOOD, [0] * 16]}).encode(), 422, "vectors.1: is zero"),
    "short": (json.dumps({"vectors": [GOOD[1:]]}).encode(), 422, "vectors.0: has 15 numbers"),
    "texts": (b'{"vectors": [["one"]]}', 422, "vectors.0.0: "),
    "too many": (json.dumps({"vectors": [GOOD] * 65}).encode(), 422, "vectors: "),
    "too deep": (b'{"vectors": ' + b"[" * 100_000, 422, "the body"),
    "too large": (b" " * (bodies.MAX_JSON_BYTES + 1), 413, "more than"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_vectors_that_cannot_be_searched_are_named(client: TestClient, name: str) -> None:
    content, status, says = FAULTS[name]
    got = client.post("/search", content=content, headers={"content-type": bodies.JSON})
    assert (got.status_code, says in got.json()["error"]) == (status, True), got.text
    assert len(FAULTS) == 12


def test_vectors_have_no_network(client: TestClient) -> None:
    got = client.post(STUDENTS, json={"vectors": [GOOD]})
    assert got.status_code == 422
    assert "leave it out" in got.json()["error"]


@pytest.mark.parametrize("route", ["/embed", "/search"])
def test_one_damaged_picture_refuses_all_and_is_named(
    client: TestClient, pictures: list[bytes], route: str
) -> None:
    sent = form(("a.jpg", pictures[0]), ("b.jpg", pictures[1][:200]), ("c.jpg", pictures[2]))
    got = client.post(route, **sent)
    assert got.status_code == 422
    assert got.json()["error"].startswith("picture 2 (b.jpg): ")


FORM = "multipart/form-data; boundary=cut"
HEAD = b'--cut\r\nContent-Disposition: form-data; name="p"; filename="a.jpg"\r\n\r\n'
FORMS = {
    "no boundary": (b"", "multipart/form-data", 422, "names no boundary"),
    "another boundary": (b"--other--\r\n", FORM, 422, "does not begin with its boundary"),
    "nothing in it": (b"--cut--\r\n", FORM, 422, "holds no picture"),
    "cut off": (HEAD + b"picture", FORM, 422, "is cut off"),
    "no file": (
        b'--cut\r\nContent-Disposition: form-data; name="k"\r\n\r\n5\r\n--cut--',
        FORM,
        422,
        "part 1 of the form is no file",
    ),
    "an endless head": (
        HEAD[:-4] + b"a: b\r\n" * 9999 + b"\r\n\r\n\r\n--cut--",
        FORM,
        422,
        "part 1",
    ),
    "too many": ((HEAD + b"x\r\n") * 65 + b"--cut--", FORM, 413, "at most 64 pictures"),
    "an unknown character set": (
        HEAD.replace(b'filename="a.jpg"', b"filename*=undefined''a") + b"x\r\n--cut--",
        FORM,
        422,
        "the form's headers cannot be read",
    ),
    "a name that is no text": (
        HEAD.replace(b'filename="a.jpg"', b"filename*=unicode_escape''%5Cud800") + b"x\r\n--cut--",
        FORM,
        422,
        "picture 1 (?): ",
    ),
    "an empty picture": (HEAD + b"\r\n--cut--", FORM, 422, "picture 1 (a.jpg): is empty"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_hold_no_pictures_are_refused(client: TestClient, name: str) -> None:
    content, kind, status, says = FORMS[name]
    got = client.post("/search", content=content, headers={"content-type": kind})
    assert (got.status_code, says in got.json()["error"]) == (status, True), got.text
    assert len(FORMS) == 10


def test_of_many_faults_of_vectors_the_first_is_told() -> None:
    with pytest.raises(ValidationError) as caught:
        bodies.Vectors.model_validate_json(b'{"vectors": [["", "", ""], ["", ""]]}')
    assert caught.value.error_count() == 1


def test_a_form_gives_back_the_bytes_that_were_sent() -> None:
    """Boundaries of httpx, and contents that look like ends of parts."""
    source = np.random.default_rng(0)
    contents = [b"", b"\r\n", b"--", b"\r\n--", b"\n", *(source.bytes(n) for n in (1, 999, 70_000))]
    request = httpx.Request(
        "POST", "http://x", **form(*((f"{i}", c) for i, c in enumerate(contents)))
    )
    read = bodies.read_pictures(request.read(), request.headers["content-type"])
    assert [content for _, content in read] == contents


def test_pictures_of_a_request_have_a_bound_together(client: TestClient) -> None:
    """A million pixels here: the second one is too much."""
    buffer = BytesIO()
    Image.new("RGB", (900, 900)).save(buffer, "PNG")
    assert client.post("/embed", **form(("a", buffer.getvalue()))).status_code == 200
    got = client.post("/embed", **form(("a", buffer.getvalue()), ("b", buffer.getvalue())))
    assert got.status_code == 422
    assert got.json()["error"].startswith("picture 2 (b): ")
    assert "pixels" in got.json()["error"]


def test_many_pictures_wait_in_the_queue_of_large_ones() -> None:
    lanes = turns.Lanes()
    assert lanes.of(1000, 1000, 4) is lanes.small
    assert lanes.of(1000, 1000, 5) is lanes.large
    assert lanes.of(turns.SMALL_PIXELS + 1, 1000, 1) is lanes.large
    assert lanes.of(1000, turns.SMALL_BYTES + 1, 1) is lanes.large


def test_vectors_wait_with_pictures_of_their_size_and_too_large_ones_do_not(
    searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LARGE_WAITING", -1)
    few, many = (json.dumps({"vectors": [GOOD] * count}).encode() for count in (4, 5))
    sent = {
        few: 200,
        many: 503,
        few.ljust(turns.SMALL_BYTES + 1): 503,
        few.ljust(bodies.MAX_JSON_BYTES + 1): 413,
    }
    with TestClient(create_app(searches), base_url="http://localhost") as client:
        for content, status in sent.items():
            got = client.post("/search", content=content, headers={"content-type": bodies.JSON})
            assert got.status_code == status, got.text


def test_a_form_is_not_held_beside_its_pictures(
    client: TestClient,
    searches: SearchService,
    pictures: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, search, gone, gone_before = turns.Uploads.read, searches.search, [], []

    class Body(bytes):
        def __del__(self) -> None:
            gone.append(len(self))

    async def read_noted(uploads: turns.Uploads, request: Request) -> bytes:
        return Body(await read(uploads, request))

    def search_noted(*given: Any) -> Any:
        gone_before.extend(gone)
        return search(*given)

    monkeypatch.setattr(turns.Uploads, "read", read_noted)
    monkeypatch.setattr(searches, "search", search_noted)
    sent = form(*((f"{i}.jpg", one) for i, one in enumerate(pictures)))
    assert client.post("/search", **sent).status_code == 200
    assert len(gone_before) == 1


@pytest.fixture
def vectors(study: Path) -> Path:
    """The teacher's vectors of 300 images, 30 of which are those of the study."""
    source = np.random.default_rng(0)
    known = np.load(DatasetPaths("emblems").database).astype(np.float32)
    made = source.normal(size=(270, 16)).astype(np.float32)
    rows = np.concatenate([known, made / np.linalg.norm(made, axis=1, keepdims=True)])
    names = [f"class {i % 7}/{i}.jpg" for i in range(300)]
    network = vectors_digest(DatasetPaths("emblems").teacher, "float32", is_reduced=False)
    batch = VectorBatch(names, rows, [""] * 300)
    write_vectors(study / "vectors", iter([batch]), network=network, number="float32")
    return study / "vectors"


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq", "lancedb", "qdrant"])
def test_every_kind_of_index_answers(
    client: TestClient, vectors: Path, searches: SearchService, kind: Any
) -> None:
    build_index(Path("indexes", "mine"), vectors, kind)
    listed = {one["name"]: one for one in client.get("/databases").json()}["index mine"]
    assert (listed["images"], listed["fault"]) == (300, None)
    assert listed["networks"] == [STUDENT, "teacher"]
    assert (listed["has_pictures"], listed["examples"]) == (False, [])
    picture = searches.picture("emblems", 4)
    asked = "/search?database=index mine&network=teacher&k=3"
    (hit, *_) = client.post(asked, content=picture).json()["answers"][0]["hits"]
    assert (hit["name"], hit["class_name"]) == ("class 4/4.jpg", "class 4")
    assert hit["similarity"] == pytest.approx(1, abs=1e-4)
    student = client.post(f"/search?database=index mine&network={STUDENT}", content=picture)
    hits = student.json()["answers"][0]["hits"]
    assert [hit["row"] for hit in hits] == list(range(10))  # it has no rows: ranks, from 0 on
    assert client.get("/picture?database=index mine&row=0").status_code == 422
    remove_vectors(Path("indexes", "mine"), ["class 4/4.jpg"])  # while the server is open
    (hit, *_) = client.post(asked, content=picture).json()["answers"][0]["hits"]
    assert hit["name"] != "class 4/4.jpg"


def test_an_index_is_there_while_a_build_takes_its_place(client: TestClient, vectors: Path) -> None:
    home = Path("indexes", "mine")
    build_index(home, vectors, "exact")
    for ask in (
        lambda: client.get("/databases"),
        lambda: client.post("/search?database=index mine", json={"vectors": [GOOD]}),
    ):
        aside = home.rename(home.with_name(".mine.former"))
        returned = Timer(0.1, aside.rename, [home])
        returned.start()
        got = ask()
        returned.join()
        assert got.status_code == 200, got.text
        assert '"index mine"' in got.text
        assert '"fault":"' not in got.text


def test_an_index_whose_build_was_killed_as_it_took_its_place_is_told(
    client: TestClient, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "EXCHANGE_S", 0.05)
    home = Path("indexes", "mine")
    build_index(home, vectors, "exact")
    home.rename(home.with_name(".mine.former"))
    listed = {one["name"]: one["fault"] for one in client.get("/databases").json()}
    assert listed.pop("emblems") is None
    assert "was killed as it did" in listed.pop("index mine")
    assert not listed


def test_vectors_of_another_network_are_searched_by_vectors_alone(
    client: TestClient, study: Path, vectors: Path
) -> None:
    build_index(Path("indexes", "mine"), vectors, "exact")
    card = study / "indexes" / "mine" / "index.json"
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | {"network": "0" * 32}))
    listed = {one["name"]: one for one in client.get("/databases").json()}["index mine"]
    assert listed["networks"] == []
    got = client.post("/search?database=index mine", content=b"")
    assert got.status_code == 404
    assert "has no network" in got.json()["error"]
    sent = {"vectors": [GOOD]}
    assert client.post("/search?database=index mine", json=sent).status_code == 200


def test_a_network_of_no_study_searches_the_vectors_that_it_embedded(
    study: Path, vectors: Path, searches: SearchService
) -> None:
    shutil.copy(DatasetPaths("emblems").teacher, "own.safetensors")
    network = build_embedder("timm/test_resnet", 16, weights="random", seed=7)
    save_network(Path("other.safetensors"), network, NetworkCard("timm/test_resnet", 16, 32))
    build_index(Path("indexes", "mine"), vectors, "exact")
    picture = searches.picture("emblems", 4)
    for name, networks in {
        "own.safetensors": [STUDENT, "teacher", "own.safetensors"],
        "other.safetensors": [STUDENT, "teacher"],
    }.items():
        service = SearchService(load_params(), named_file(name, study))
        listed = {one.name: one.networks for one in service.catalogue()}
        assert listed["index mine"] == networks
        assert listed["emblems"] == [STUDENT, "teacher"]
    with TestClient(create_app(service), base_url="http://127.0.0.1:8765") as client:
        asked = "/search?database=index mine&network=own.safetensors&k=1"
        assert client.post(asked, content=picture).status_code == 404
    service = SearchService(load_params(), named_file("own.safetensors", study))
    with TestClient(create_app(service), base_url="http://127.0.0.1:8765") as client:
        answer = client.post(asked, content=picture).json()
        assert (answer["network"], answer["gmacs"]) == ("own.safetensors", None)
        assert answer["answers"][0]["hits"][0]["name"] == "class 4/4.jpg"
        Path("own.safetensors").unlink()
        assert client.post(asked, content=picture).status_code == 404


def test_the_description_is_true(client: TestClient, pictures: list[bytes]) -> None:
    """Every answer has the form that /openapi.json says, and every route is described."""
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) == {"/databases", "/picture", "/embed", "/view", "/search"}
    answers = {
        ("get", "/databases", 200): client.get("/databases"),
        ("post", "/embed", 200): client.post("/embed", content=pictures[0]),
        ("post", "/search", 200): client.post("/search", content=pictures[0]),
        ("post", "/search", 422): client.post("/search", content=b""),
        ("post", "/embed", 404): client.post("/embed?network=x", content=pictures[0]),
    }
    for (method, path, status), got in answers.items():
        assert got.status_code == status
        described = told["paths"][path][method]["responses"][str(status)]
        schema = described["content"]["application/json"]["schema"]
        jsonschema.validate(got.json(), schema | {"components": told["components"]})
    body = told["paths"]["/search"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/*", "multipart/form-data", "application/json"}
    sent = {"vectors": client.post("/embed", content=pictures[0]).json()["vectors"]}
    jsonschema.validate(sent, body["application/json"]["schema"])
    busy = told["paths"]["/search"]["post"]["responses"]["503"]
    assert "Retry-After" in busy["description"]


def test_a_full_queue_is_told_to_programs(
    searches: SearchService, monkeypatch: pytest.MonkeyPatch, pictures: list[bytes]
) -> None:
    monkeypatch.setattr(turns, "LARGE_WAITING", -1)
    with TestClient(create_app(searches), base_url="http://localhost") as client:
        sent = form(*((f"{i}.jpg", pictures[0]) for i in range(5)))
        for route in ("/embed", "/search"):
            got = client.post(route, **sent)
            assert got.status_code == 503
            assert got.headers["retry-after"] == str(turns.RETRY_AFTER_S)
        assert client.post("/search", content=pictures[0]).status_code == 200


def test_the_answer_is_that_of_the_command_line(
    client: TestClient, searches: SearchService, pictures: list[bytes]
) -> None:
    place = searches.opened.place("emblems")
    _, encoder = searches.opened.network(place, STUDENT)
    with searches.opened.database(place) as database:
        picture = Image.open(BytesIO(pictures[0])).convert("RGB")
        hits = [asdict(hit) for hit in search_picture(picture, encoder, database, 10).hits]
    assert client.post(STUDENTS, content=pictures[0]).json()["answers"][0]["hits"] == hits


def test_a_teacher_of_stored_vectors_is_offered_to_nobody(client: TestClient) -> None:
    card = {"kind": "vectors", "dim": 16, "images": 60, "size_px": 32, "view": "cropped"}
    rows = {"vectors": np.zeros((60, 16), np.float32)}
    save_file(rows, DatasetPaths("emblems").teacher, metadata={"card": json.dumps(card)})
    assert client.get("/databases").json()[0]["networks"] == [STUDENT]
    DatasetPaths("emblems").teacher.write_bytes(b"broken")
    assert client.get("/databases").json()[0]["networks"] == [STUDENT, "teacher"]
    got = client.post("/embed?network=teacher", content=b"")
    assert got.status_code == 409
    assert "is no teacher of this program" in got.json()["error"]


def test_a_query_wakes_no_threads_that_params_do_not_give(
    client: TestClient, searches: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def search(*given: Any) -> Any:
        seen.append(faiss.omp_get_max_threads())
        return search_picture(*given)

    monkeypatch.setattr(service, "search_picture", search)
    content = searches.picture("emblems", 4)
    assert [client.post("/search", content=content).status_code for _ in range(3)] == [200] * 3
    assert seen == [searches.opened.params.threads] * 3 == [1] * 3
