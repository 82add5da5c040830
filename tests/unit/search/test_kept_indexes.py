"""What readers say of an index that is damaged, lost, half made, or written while they look."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import write_vectors
from pipeline.files import replacing
from pipeline.search import concurrency, upkeep
from pipeline.search.faiss_index import FaissIndex
from pipeline.search.page.opened import _index_names, _newest_ns
from pipeline.search.upkeep import (
    add_vectors,
    build_index,
    index_folders,
    open_index,
    remove_vectors,
)
from pipeline.search.vector_index import Kind
from pipeline.search.verifying import verify_index

ROWS, DIM = 20, 8
IDS = [f"{number}.jpg" for number in range(ROWS)]
SERVER = "localhost:6333/birds"
LIBRARIES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


def unit_vectors(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "vectors", [VectorBatch(IDS, unit_vectors(), [""] * ROWS)])
    return tmp_path / "vectors"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "i"


def build(index: Path, source: Path, kind: Kind = "exact") -> None:
    pytest.importorskip(LIBRARIES.get(kind, "faiss"))
    assert build_index(index, source, kind).vectors == ROWS


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("exact", "parts.json"),
        ("hnsw", "parts.json"),
        ("lancedb", "vectors.lance"),
        ("lancedb", "vectors.lance/_versions"),
        ("qdrant", "qdrant"),
        ("qdrant", "qdrant/meta.json"),
        ("qdrant", "qdrant/collection"),
        ("qdrant", "qdrant/collection/vectors/storage.sqlite"),
    ],
)
def test_an_index_that_has_lost_its_vectors_is_not_an_empty_one(
    tmp_path: Path, source: Path, index: Path, kind: Kind, file: str
) -> None:
    build(index, source, kind)
    (index / file).rename(tmp_path / "elsewhere")
    for asked in (verify_index, partial(add_vectors, source=source)):
        with pytest.raises(ValueError, match=f"{index}: has lost its vectors: build it anew"):
            asked(index)
    assert not (index / file).exists()
    build(index, source, kind)
    assert verify_index(index).faults == []


def test_an_empty_file_of_points_is_not_an_empty_index(source: Path, index: Path) -> None:
    build(index, source, "qdrant")
    (index / "qdrant" / "collection" / "vectors" / "storage.sqlite").write_bytes(b"")
    with pytest.raises(ValueError, match="has lost its vectors"):
        verify_index(index)


def test_a_collection_that_a_server_has_lost_is_not_made_by_a_reader(
    source: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")

    @contextmanager
    def server(*given: object, **is_new: bool) -> Iterator[Any]:
        yield client

    monkeypatch.setattr(upkeep, "qdrant_client", server)
    build_index(index, source, "qdrant", server=SERVER)
    client.delete_collection("birds")
    for asked in (verify_index, partial(add_vectors, source=source)):
        with pytest.raises(ValueError, match=f"{SERVER}: has lost its vectors: build it anew"):
            asked(index)
    assert not client.collection_exists("birds")


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has something done once, just before a function is called the next time."""

    def arrange(owner: Any, name: str, act: Callable[[], object]) -> None:
        called, waiting = getattr(owner, name), [act]

        def wrapped(*given: Any) -> Any:
            if waiting:
                waiting.pop()()
            return called(*given)

        monkeypatch.setattr(owner, name, wrapped)

    return arrange


def test_a_reader_opens_what_a_writer_puts_in_force_meanwhile(
    source: Path, index: Path, meanwhile: Callable[..., None]
) -> None:
    build(index, source, "hnsw")
    remove_vectors(index, IDS[:1])
    meanwhile(FaissIndex, "_map_files", lambda: remove_vectors(index, IDS[1:2]))
    with open_index(index) as opened:
        assert len(opened) == ROWS - 2


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_a_reader_mixes_no_two_builds(
    tmp_path: Path, source: Path, index: Path, meanwhile: Callable[..., None], kind: Kind
) -> None:
    others, vectors = [f"other {one}" for one in IDS], unit_vectors(seed=1)
    write_vectors(tmp_path / "other", [VectorBatch(others, vectors, [""] * ROWS)], network="other")
    build(index, source)
    meanwhile(FaissIndex, "_map_files", lambda: build(index, tmp_path / "other", kind))
    with open_index(index) as opened:
        assert (opened.card.kind, opened.card.network) == (kind, "other")
        (held,) = opened.rows()
        assert held.ids == others
        np.testing.assert_allclose(held.vectors, vectors, atol=1e-6)
        assert opened.search(vectors[:1], 1).ids == [others[:1]]


def test_a_reader_waits_while_a_build_takes_its_place(source: Path, index: Path) -> None:
    build(index, source)
    aside = index.with_name(".i.former")
    index.rename(aside)
    returned = Timer(0.1, aside.rename, [index])
    returned.start()
    with open_index(index) as opened:
        assert len(opened) == ROWS
    returned.join()


def test_an_index_whose_build_was_killed_as_it_took_its_place_is_told(
    source: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(index, source)
    index.rename(index.with_name(".i.former"))
    monkeypatch.setattr(concurrency, "EXCHANGE_S", 0.05)
    with pytest.raises(ValueError, match=f"{index}: the build that was to replace it was killed"):
        verify_index(index)


def test_what_a_writer_deletes_while_digests_are_compared_is_no_damage(
    source: Path, index: Path, meanwhile: Callable[..., None]
) -> None:
    build(index, source)
    remove_vectors(index, IDS[:1])
    meanwhile(FaissIndex, "damage", lambda: remove_vectors(index, IDS[1:2]))
    assert not [fault for fault in verify_index(index).faults if "written" in fault]


def test_what_is_deleted_meanwhile_was_not_written_last(source: Path, index: Path) -> None:
    build(index, source)
    newest_ns = max(one.stat().st_mtime_ns for one in (index, *index.iterdir()))
    changed_ns = index.stat()
    (index / ".gone.part").symlink_to("nowhere")
    os.utime(index, ns=(changed_ns.st_atime_ns, changed_ns.st_mtime_ns))
    assert _newest_ns(index) == newest_ns


@pytest.mark.parametrize(
    ("kind", "file", "words"),
    [
        ("exact", "parts.json", r"is damaged: build it anew \(parts.json: Invalid JSON[^\n]*$"),
        ("exact", "removed-1-1.npy", "is damaged: build it anew"),
        (
            "lancedb",
            "vectors.lance/_versions/*",
            r"LanceDB says: LanceError\(IO\): [^/]*: if damaged, build",
        ),
        (
            "lancedb",
            "vectors.lance/data/*",
            r"LanceDB says: LanceError\(IO\): [^/]*: if damaged, build",
        ),
        ("qdrant", "qdrant/meta.json", r"is damaged: build it anew \(Qdrant says: Expecting value"),
        (
            "qdrant",
            "qdrant/collection/vectors/storage.sqlite",
            r"is damaged: .*Qdrant says: file is not a",
        ),
    ],
)
def test_damage_is_told_in_words(
    source: Path, index: Path, kind: Kind, file: str, words: str
) -> None:
    build(index, source, kind)
    if kind == "exact":
        remove_vectors(index, IDS[:1])
    damaged = list(index.glob(file))
    for one in damaged:
        one.write_bytes(bytes(one.stat().st_size if file.endswith("sqlite") else 0))
    assert damaged
    with pytest.raises(ValueError, match=f"^{index}: {words}") as error:
        verify_index(index)
    assert ".cargo" not in str(error.value)


def test_a_damaged_table_hides_no_other_index(tmp_path: Path, source: Path) -> None:
    for name, kind in {"a": "lancedb", "b": "exact"}.items():
        build(tmp_path / name, source, kind)
    for one in (tmp_path / "a" / "vectors.lance" / "_versions").iterdir():
        one.write_bytes(b"{")
    done = CliRunner().invoke(cli.app, ["index", "list", str(tmp_path)])
    assert f"error: {tmp_path}/a: LanceDB says: " in done.output
    assert f"{tmp_path}/b  exact  {ROWS} x {DIM}" in done.output
    assert done.exit_code == 1


def test_the_current_folder_may_be_the_index(
    tmp_path: Path, source: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(index, source)
    build(tmp_path / "beside", source)
    monkeypatch.chdir(index)
    done = CliRunner().invoke(cli.app, ["index", "remove", ".", IDS[0]])
    assert f"remains  index {tmp_path}/beside: 1 (" in done.output
    assert add_vectors(Path(), "../vectors").added == 1
    assert verify_index(Path()).faults == []
    with pytest.raises(ValueError, match="is the current folder, which a build would replace"):
        build_index(Path(), source, "exact")


def test_a_build_replaces_what_a_link_names(tmp_path: Path, source: Path, index: Path) -> None:
    build(index, source)
    (tmp_path / "link").symlink_to("i")
    build(tmp_path / "link", source, "hnsw")
    assert (tmp_path / "link").is_symlink()
    assert verify_index(index).card.kind == "hnsw"


def test_what_is_half_built_or_no_index_is_not_listed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = tmp_path / ".hidden" / "indexes"
    for name in ("whole", ".mine.part", "cut"):
        build(indexes / name, source)
    card = indexes / "cut" / "index.json"
    card.write_bytes(card.read_bytes()[:40])
    for place, value in {"web": {"names": [], "classes": []}, "list": [{"kind": 1}]}.items():
        (indexes / place).mkdir()
        (indexes / place / "index.json").write_text(json.dumps(value))
    done = CliRunner().invoke(cli.app, ["index", "list", str(indexes)])
    first, second = sorted(done.output.splitlines())
    assert first == f"{indexes}/whole  exact  {ROWS} x {DIM}"
    assert second.startswith(f"error: {indexes}/cut")
    assert index_folders(indexes) == [indexes / "cut", indexes / "whole"]
    monkeypatch.chdir(indexes.parent)
    assert "whole" in _index_names()
    assert ".mine.part" not in _index_names()


def test_the_next_writer_clears_away_what_killed_ones_left(
    tmp_path: Path, source: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(index, source, "hnsw")
    remove_vectors(index, IDS[:1])
    whole = sorted(index.iterdir())
    killed = replacing(index / "part-1.vectors")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)  # another process than this
        killed.__enter__().write_bytes(b"half")
    for name in ("part-1.vectors", "part-1.arrow", "structure-2.faiss", "removed-1-9.npy"):
        (index / name).write_bytes(b"never in force")
    build(tmp_path / ".i.part", source)
    (index / "notes.txt").write_text("the user's")
    assert add_vectors(index, source).added == 1
    remove_vectors(index, IDS[:1])
    (index / "notes.txt").unlink()
    expected = {"part-1.vectors", "part-1.arrow", "structure-2.faiss", "removed-2-2.npy"}
    gone = {"structure-1.faiss", "removed-1-1.npy"}
    assert {one.name for one in index.iterdir()} == {one.name for one in whole} - gone | expected
    assert not (tmp_path / ".i.part").exists()
    assert verify_index(index).vectors == ROWS - 1
    assert killed


def test_a_writer_clears_nothing_away_in_a_folder_that_is_no_index(
    tmp_path: Path, source: Path
) -> None:
    (tmp_path / "mine").mkdir()
    kept = [tmp_path / "mine" / ".x.1.part", tmp_path / "mine" / "part-0.vectors"]
    for one in kept:
        one.write_bytes(b"")
    with pytest.raises(ValueError, match="is no index"):
        add_vectors(tmp_path / "mine", source)
    assert all(one.exists() for one in kept)


def test_the_next_writer_puts_back_what_a_killed_build_renamed_aside(
    source: Path, index: Path
) -> None:
    build(index, source)
    index.rename(index.with_name(".i.former"))
    assert remove_vectors(index, IDS[:1]) == 1
    assert not index.with_name(".i.former").exists()
    assert len(verify_index(index).faults) == 1  # of step with its vectors


def test_a_file_is_no_index(source: Path, index: Path) -> None:
    index.write_bytes(b"")
    for asked in (verify_index, partial(add_vectors, source=source)):
        with pytest.raises(ValueError, match=f"{index} is no index"):
            asked(index)


@pytest.mark.parametrize("rows", [[ROWS], [-1], [3, 2]])
def test_removed_rows_that_there_are_not_do_not_fit(
    source: Path, index: Path, rows: list[int]
) -> None:
    build(index, source)
    remove_vectors(index, IDS[: len(rows)])
    np.save(index / f"removed-1-{len(rows)}.npy", np.array(rows))
    with pytest.raises(ValueError, match="its files do not fit together: build it anew"):
        verify_index(index)
