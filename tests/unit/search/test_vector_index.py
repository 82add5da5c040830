"""Every kind of index gives what an exact search gives, keeps in step, and tells its faults."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import read_vectors, write_vectors
from pipeline.export.folder import write_database
from pipeline.files import write_json, write_text
from pipeline.search import concurrency, faiss_index, upkeep
from pipeline.search.faiss_index import FaissIndex
from pipeline.search.index import IndexCard, find_index, index_names, require_card
from pipeline.search.step import regrouped
from pipeline.search.upkeep import (
    add_vectors,
    build_index,
    open_index,
    remove_vectors,
)
from pipeline.search.vector_index import CARD, Kind, contents, exact_neighbours, widened
from pipeline.search.verifying import verify_index
from tests.made_site import colour_database

KINDS = [
    "exact",
    "hnsw",
    "ivfpq",
    pytest.param("lancedb", marks=pytest.mark.skipif(not find_spec("lancedb"), reason="lancedb")),
    pytest.param(
        "qdrant", marks=pytest.mark.skipif(not find_spec("qdrant_client"), reason="qdrant")
    ),
]
MAPPED = ["exact", "hnsw", "ivfpq"]
ROWS, DIM = 600, 16


def unit_vectors(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


VECTORS = unit_vectors()
IDS = [f"birds/it's {number}.jpg" for number in range(ROWS)]
QUERIES = unit_vectors(20, seed=1)


def batches(ids: list[str], vectors: np.ndarray, content: str = "") -> Iterator[VectorBatch]:
    for start in range(0, len(ids), 250):
        some = slice(start, start + 250)
        yield VectorBatch(ids[some], vectors[some], [content] * len(ids[some]))


def exact(queries: np.ndarray, vectors: np.ndarray, ids: list[str], k: int) -> list[list[str]]:
    """By sorting all similarities."""
    return [[ids[row] for row in np.argsort(-(vectors @ query))[:k]] for query in queries]


def write_tombstones(folder: Path, gone: pa.Table) -> None:
    pq.write_table(gone, folder / "tombstones.parquet")
    card = read_vectors(folder).card.model_copy(update={"tombstones": len(gone)})
    write_text(folder / "card.json", card.model_dump_json())


def deleted(ids: list[str]) -> pa.Table:
    files = ["part-00000.parquet"] * len(ids)
    return pa.table({"id": ids, "content": [""] * len(ids), "file": files})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "vectors", batches(IDS, VECTORS), network="n1")
    return tmp_path / "vectors"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setattr(faiss_index, "SCANNED", 0)  # a graph of few vectors is searched, too
    return request.param


def test_a_search_finds_what_sorting_all_similarities_finds(
    tmp_path: Path, source: Path, kind: Kind
) -> None:
    assert build_index(tmp_path / "i", source, kind).vectors == ROWS
    with open_index(tmp_path / "i") as index:
        found = index.search(QUERIES, 5)
        through_all = index.search(QUERIES, 5, exhaustive=True)
    true = exact(QUERIES, VECTORS, IDS, 5)
    shared = [len({*one} & {*other}) for one, other in zip(found.ids, true, strict=True)]
    assert found.ids == true if kind != "ivfpq" else sum(shared) >= 0.9 * 5 * len(true)
    assert through_all.ids == true  # 128 of 600 proposed by codes hold the five nearest
    for query, ids, similarities in zip(QUERIES, found.ids, found.similarities, strict=True):
        own = [float(VECTORS[IDS.index(one)] @ query) for one in ids]
        np.testing.assert_allclose(similarities, own, atol=1e-6)


def test_what_is_deleted_is_found_no_more_and_what_is_replaced_in_its_new_place(
    tmp_path: Path, source: Path, kind: Kind
) -> None:
    build_index(tmp_path / "i", source, kind)
    moved = unit_vectors(2, seed=5)
    with open_index(tmp_path / "i") as index:
        assert index.delete([*IDS[:40], "unknown"]) == 40
        assert index.delete(IDS[:1]) == 0
        assert index.upsert(batches([IDS[50], "new"], moved, content="c")) == 2
    with open_index(tmp_path / "i") as index:
        assert len(index) == ROWS - 40 + 1
        ids, vectors = [*IDS[40:], "new"], np.concatenate([VECTORS[40:], moved[1:]])
        vectors[10] = moved[0]
        assert index.search(QUERIES, 5, exhaustive=True).ids == exact(QUERIES, vectors, ids, 5)
        assert not {*IDS[:40]} & {one for found in index.search(QUERIES, 50).ids for one in found}
        assert index.search(moved, 1).ids == [[IDS[50]], ["new"]]
        (held,) = index.rows(["new", IDS[0], IDS[50]])
        assert dict(zip(held.ids, held.content, strict=True)) == {"new": "c", IDS[50]: "c"}
        for one, vector in zip(held.ids, held.vectors, strict=True):
            np.testing.assert_allclose(vector, moved[["new", IDS[50]].index(one) - 1], atol=1e-6)
        every = [one for block in index.rows() for one in block.ids]
        assert sorted(every) == sorted(ids)


def test_more_than_there_are(tmp_path: Path, source: Path, kind: Kind) -> None:
    build_index(tmp_path / "i", source, kind)
    with open_index(tmp_path / "i") as index:
        assert sorted(index.search(QUERIES[:1], 1000, exhaustive=True).ids[0]) == sorted(IDS)
        index.delete(IDS)
        assert index.search(QUERIES[:2], 3).ids == [[], []]


def test_adding_puts_in_what_is_new_and_what_has_changed(
    tmp_path: Path, source: Path, kind: Kind
) -> None:
    build_index(tmp_path / "i", source, kind)
    more = unit_vectors(ROWS + 10)
    more[:10], more[10:ROWS] = unit_vectors(10, seed=3), VECTORS[10:]
    ids = [*IDS, *(f"n{number}" for number in range(10))]
    write_vectors(source, batches(ids, more), network="n1")
    files = ["part-00000.parquet"] * 2 + ["earlier.parquet"]
    gone = pa.table({"id": [IDS[20], "gone", IDS[30]], "content": [""] * 3, "file": files})
    write_tombstones(source, gone)
    (fault,) = verify_index(tmp_path / "i").faults
    assert fault.endswith(
        f"10 of {ROWS + 9} vectors are not there, 10 have changed, 1 are deleted there: "
        f"`l2s index add {tmp_path / 'i'} {source}`"
    )
    change = add_vectors(tmp_path / "i", source)
    assert (change.added, change.replaced, change.removed, change.unchanged) == (10, 10, 1, 589)
    again = add_vectors(tmp_path / "i", source)
    assert (again.added, again.replaced, again.removed, again.unchanged) == (0, 0, 0, 609)
    assert verify_index(tmp_path / "i").faults == []
    with open_index(tmp_path / "i") as index:
        vectors, kept = np.delete(more, 20, axis=0), [*ids[:20], *ids[21:]]
        assert index.search(QUERIES, 5, exhaustive=True).ids == exact(QUERIES, vectors, kept, 5)


def test_what_no_folder_has_any_more_is_told(tmp_path: Path, source: Path) -> None:
    """A folder that was made anew has no tombstones: only its ids say what is gone."""
    build_index(tmp_path / "i", source, "exact")
    write_vectors(tmp_path / "more", batches(["m1", "m2"], QUERIES[:2]), network="n1")
    add_vectors(tmp_path / "i", tmp_path / "more")
    write_vectors(source, batches(IDS[3:], VECTORS[3:]), network="n1")
    add_vectors(tmp_path / "i", source)
    (fault,) = verify_index(tmp_path / "i").faults
    assert fault.startswith("3 of its vectors are in none of the folders that it was built from: ")
    remove_vectors(tmp_path / "i", IDS[:3])
    assert verify_index(tmp_path / "i").faults == []
    (tmp_path / "more").rename(tmp_path / "elsewhere")  # nobody can say any more
    remove_vectors(tmp_path / "i", ["m1"])
    assert verify_index(tmp_path / "i").faults == []


def test_another_folder_with_the_same_ids_is_refused(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    write_vectors(tmp_path / "other", batches(["new", *IDS[:9]], QUERIES[:10]), network="n1")
    with pytest.raises(ValueError, match=f"9 of its ids have other vectors in .*, of {source}: "):
        add_vectors(tmp_path / "i", tmp_path / "other")
    assert verify_index(tmp_path / "i").faults == []
    source.rename(tmp_path / "moved")  # then it may be the same folder, elsewhere
    assert add_vectors(tmp_path / "i", tmp_path / "other").replaced == 9


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("exact", {"server": "localhost:1/c"}, "--server localhost:1/c: is Qdrant's, and the kind"),
        ("lancedb", {"number": "float16"}, "--number float16: lancedb keeps float32"),
    ],
)
def test_options_of_another_kind_are_refused(
    tmp_path: Path, source: Path, kind: Kind, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        build_index(tmp_path / "i", source, kind, **given)
    assert not (tmp_path / "i").exists()


def test_vectors_of_another_network_or_dimension_are_refused(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    write_vectors(tmp_path / "other", batches(IDS, VECTORS), network="n2")
    with pytest.raises(ValueError, match=r"of 16 numbers by the network n2, those of .* n1"):
        add_vectors(tmp_path / "i", tmp_path / "other")
    write_vectors(tmp_path / "short", batches(IDS, VECTORS[:, :8]), network="n1")
    with pytest.raises(ValueError, match=r"of 8 numbers by .*, those of .* of 16 numbers"):
        add_vectors(tmp_path / "i", tmp_path / "short")


@pytest.mark.parametrize("number", ["float16", "float32"])
def test_vectors_take_the_room_of_their_numbers(
    tmp_path: Path, source: Path, number: upkeep.Number
) -> None:
    build_index(tmp_path / "i", source, "exact", number=number)
    size_bytes = (tmp_path / "i" / "part-0.vectors").stat().st_size
    assert size_bytes == ROWS * DIM * np.dtype(number).itemsize
    with open_index(tmp_path / "i") as index:
        (block,) = index.rows()
    np.testing.assert_allclose(block.vectors, VECTORS, atol=1e-3 if number == "float16" else 1e-6)


@pytest.mark.parametrize("kind", MAPPED)
def test_damage_is_found(tmp_path: Path, source: Path, kind: Kind) -> None:
    build_index(tmp_path / "i", source, kind)
    assert verify_index(tmp_path / "i").faults == []
    file = tmp_path / "i" / "part-0.vectors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + bytes(4))
    assert "part-0.vectors: is not the file that was written" in verify_index(tmp_path / "i").faults
    file.write_bytes(whole[:-4])
    with pytest.raises(ValueError, match="does not hold 600 vectors of 16 numbers"):
        verify_index(tmp_path / "i")


def test_a_format_to_come_is_refused(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    card = tmp_path / "i" / CARD
    card.write_text(card.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match=r"format: Input should be 1: an index of another version"):
        verify_index(tmp_path / "i")


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    write_vectors(tmp_path / "few", batches(IDS[:100], VECTORS[:100]))
    with pytest.raises(ValueError, match="ivfpq learns from 256 images or more, and there are 100"):
        build_index(tmp_path / "i", tmp_path / "few", "ivfpq")
    assert verify_index(tmp_path / "i").vectors == ROWS
    with pytest.raises(ValueError, match=r"is there, and is no index: it has no index\.json: name"):
        build_index(source, source, "exact")
    assert verify_index(tmp_path / "i").faults == []


def test_vectors_that_are_all_deleted_leave_an_index_empty(
    tmp_path: Path, source: Path, kind: Kind
) -> None:
    build_index(tmp_path / "i", source, kind)
    write_tombstones(source, deleted(IDS))
    (fault,) = verify_index(tmp_path / "i").faults
    assert f"0 of 0 vectors are not there, 0 have changed, {ROWS} are deleted there" in fault
    assert add_vectors(tmp_path / "i", source).removed == ROWS
    assert verify_index(tmp_path / "i").faults == []
    with pytest.raises(ValueError, match="holds no vector"):
        build_index(tmp_path / "other", source, kind)
    assert not (tmp_path / "other").exists()


def test_a_writer_that_waited_takes_the_vectors_as_they_are_then(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(tmp_path / "i", source, "exact")

    @contextmanager
    def after_another(folder: Path) -> Iterator[Path]:
        with concurrency.writing(folder) as home:
            write_tombstones(source, deleted(IDS[:3]))
            yield home

    monkeypatch.setattr(upkeep, "writing", after_another)
    assert add_vectors(tmp_path / "i", source).removed == 3


FOREIGN = {
    "another card": {CARD: '{"format": "of another program"}'},
    "a file beside it": {CARD: '{"format": 1}', "precious.txt": "text"},
    "no card": {"parts.json": "{}"},
    "nothing": {},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_of_anything_else_is_not_replaced(
    tmp_path: Path, source: Path, files: dict[str, str]
) -> None:
    (tmp_path / "i").mkdir()
    for name, text in files.items():
        (tmp_path / "i" / name).write_text(text)
    with pytest.raises(ValueError, match="is there, and is no index: it"):
        build_index(tmp_path / "i", source, "exact")
    assert {file.name: file.read_text() for file in (tmp_path / "i").iterdir()} == files


def test_a_damaged_index_is_built_anew(tmp_path: Path, source: Path, kind: Kind) -> None:
    build_index(tmp_path / "i", source, kind)
    (tmp_path / "i" / CARD).write_text("{")
    assert build_index(tmp_path / "i", source, kind).vectors == ROWS
    assert verify_index(tmp_path / "i").faults == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="of Linux")
def test_an_open_index_holds_no_file_open(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    with open_index(tmp_path / "i") as index:
        index.upsert(batches(["new"], QUERIES[:1]))
    with open_index(tmp_path / "i") as index:
        assert len(index) == ROWS + 1
        held = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.exists()]
        assert [one for one in held if one.startswith(str(tmp_path))] == []


@pytest.mark.parametrize("kind", MAPPED)
def test_a_reader_keeps_what_it_opened(tmp_path: Path, source: Path, kind: Kind) -> None:
    build_index(tmp_path / "i", source, kind)
    with open_index(tmp_path / "i") as reader:
        with open_index(tmp_path / "i") as writer:
            writer.delete(IDS[1:])
            writer.upsert(batches(["new"], QUERIES[:1]))
        assert len(reader) == ROWS
        assert reader.search(VECTORS[1:2], 1).ids == [[IDS[1]]]
    with open_index(tmp_path / "i") as reader:
        assert reader.search(VECTORS[:1], 5, exhaustive=True).ids == [[IDS[0], "new"]]


@pytest.mark.parametrize("number", ["float16", "float32"])
@pytest.mark.parametrize("dim", [13, 32])
@pytest.mark.parametrize("asked", [1, 40])
def test_exact_neighbours_block_by_block(asked: int, dim: int, number: str, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).standard_normal((500 + asked, dim)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    np.save(tmp_path / "v.npy", unit[:500].astype(number))
    vectors, queries = np.load(tmp_path / "v.npy", mmap_mode="r"), unit[500:]  # mapped as an index
    rows = np.arange(500) * 3
    blocks = [(rows[s : s + 7], vectors[s : s + 7]) for s in range(0, 500, 7)]
    scores, found = exact_neighbours(queries, [*blocks, (rows[:0], vectors[:0])], 9)
    true = queries @ vectors.astype(np.float32).T
    order = np.argsort(-true)[:, :9]
    np.testing.assert_array_equal(found, rows[order])
    np.testing.assert_allclose(scores, np.take_along_axis(true, order, 1), atol=1e-6)
    _, few = exact_neighbours(queries, [(rows[:2], vectors[:2])], 4)
    np.testing.assert_array_equal(np.sort(few), [[-1, -1, 0, 3]] * asked)


def test_all_finite_halves_are_widened_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.tile(halves[np.isfinite(halves)], 9).reshape(-1, 9)  # more than are taken at once
    wide = widened(finite)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32), finite.astype(np.float32).view(np.uint32))


def test_contents_tell_what_changed() -> None:
    one, other = (VectorBatch(["a"], unit_vectors(1, seed), [""]) for seed in (0, 1))
    assert contents(one) == contents(one) != contents(other)
    assert contents(VectorBatch(["a"], one.vectors, ["hash"])) == ["hash"]


def test_regrouped_rows_are_the_same() -> None:
    parts = list(regrouped(batches(IDS, VECTORS), 400))
    assert [len(part.ids) for part in parts] == [500, 100]
    assert [one for part in parts for one in part.ids] == IDS
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), VECTORS)


def l2s(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands_need_no_study(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = l2s("index", "build", "vectors", "--to", "indexes/a", "--kind", "hnsw")
    assert "indexes/a: 600 vectors of 16 numbers, hnsw" in said
    assert "indexes/a  hnsw  600 x 16" in l2s("index", "list")
    assert "0 added, 0 replaced, 0 removed, 600 unchanged" in l2s(
        "index", "add", "indexes/a", "vectors"
    )
    said = l2s("index", "verify", "indexes/a")
    assert "hnsw, format 1, 600 vectors, 200 of 200 searched ones found" in said
    monkeypatch.setattr(faiss_index.FaissIndex, "damage", lambda self: ["part: damaged"])
    assert "error: part: damaged" in l2s("index", "verify", "indexes/a", code=1)
    assert "is no index" in l2s("index", "verify", "indexes", code=2)


def test_removal_says_where_copies_remain(
    tmp_path: Path, source: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    (pictures / IDS[0]).parent.mkdir(parents=True)
    (pictures / IDS[0]).write_bytes(b"jpg")
    origin = {"origin": json.dumps({"source": str(pictures)})}
    pq.write_table(
        pa.table({"a": [0]}).replace_schema_metadata(origin), source / "manifest.parquet"
    )
    build_index(Path("i"), source, kind)
    build_index(Path("indexes/other"), source, "exact")
    said = l2s("index", "remove", "i", IDS[0], IDS[1], "unknown")
    assert "i: 2 of 3 removed; searches find them no more" in said
    assert f"remains  vectors {source}: 2 (" in said
    assert f"remains  pictures {pictures}: 1 (the files themselves)" in said
    assert f"remains  index {tmp_path / 'indexes' / 'other'}: 2 (" in said
    assert ("remains  i: " in said) == (kind != "qdrant")
    with open_index(Path("i")) as index:
        assert len(index) == ROWS - 2
    assert "holds none of unknown" in l2s("index", "remove", "i", "unknown", code=2)


@pytest.mark.parametrize("kind", ["exact", *KINDS[3:]])
@pytest.mark.parametrize("content", ["", "hash"])
def test_removal_finds_the_same_picture_under_other_ids(
    tmp_path: Path, kind: Kind, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        *batches(["a", "b", "c"], VECTORS[[0, 0, 0]], content),
        *batches(["d"], VECTORS[1:2]),
    ]
    write_vectors(tmp_path / "vectors", rows)
    build_index(Path("i"), tmp_path / "vectors", kind)
    said = l2s("index", "remove", "i", "a")
    assert "remains  index i: 2 (the same picture under other ids: b, c)\n" in said
    assert f"vectors {tmp_path}/vectors: 2 (the same picture under other ids: b, c)\n" in said
    assert "the same picture" not in l2s("index", "remove", "i", "d")


def test_removal_looks_into_exports(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_index(Path("i"), source, "exact")
    for name in ("table", "page", "neither", "other"):
        Path("exports", name, "web").mkdir(parents=True)
    colours = colour_database()
    for name, one in (("table", IDS[0]), ("other", IDS[1])):
        database = replace(colours, names=[one, *colours.names[1:]])
        write_database(Path("exports", name, "database"), database)
    write_json(Path("exports/page/web/index.json"), {"names": [IDS[0]]})
    said = l2s("index", "remove", "i", IDS[0])
    assert said.count("remains  export ") == 2
    assert "remains  export exports/page: 1 (export it anew)\n" in said
    assert "remains  export exports/table: 1 (export it anew)\n" in said


def test_a_broken_index_hides_no_other(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "broken", "c"):
        build_index(Path("indexes", name), source, "exact")
    Path("indexes/broken/part-0.vectors").write_bytes(b"")
    said = l2s("index", "list", code=1)
    assert "indexes/a  exact  600 x 16\n" in said
    assert "error: indexes/broken: is damaged: build it anew" in said
    assert "indexes/c  exact  600 x 16\n" in said
    assert "no index lies in nowhere" in l2s("index", "list", "nowhere")
    said = l2s("index", "remove", "indexes/a", IDS[0])
    assert f"remains  index {tmp_path}/indexes/broken: nobody knows: " in said
    assert f"remains  index {tmp_path}/indexes/c: 1 (" in said


def test_ids_to_remove_may_come_as_a_list(tmp_path: Path, source: Path) -> None:
    build_index(tmp_path / "i", source, "exact")
    command = ["index", "remove", str(tmp_path / "i"), "-"]
    done = CliRunner().invoke(cli.app, command, input=f"{IDS[3]}\n\n{IDS[4]}\n")
    assert "2 of 2 removed" in done.output
    done = CliRunner().invoke(cli.app, command, input="\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "ID = -: the list is empty" in done.output


def test_an_index_of_vectors_in_the_folder_of_indexes_is_no_index_of_pictures(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_index(Path("indexes/a"), source, "exact")
    assert index_names() == []
    with pytest.raises(ValueError, match="is an index of vectors"):
        require_card("a")
    assert find_index("a", Path("a")) == Path("indexes/a")
    assert find_index("indexes/a", Path("indexes/a")) == Path("indexes/a")
    assert find_index("b", Path("b")) == "b"


def test_an_index_of_pictures_is_listed_and_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = IndexCard(generation=1, dataset="d", teacher_sha256="", kind="exact", images=3)
    write_json(Path("indexes/mine/index.json"), asdict(card))
    assert "indexes/mine  pictures of d, exact  3" in l2s("index", "list")
    assert index_names() == ["mine"]
    for place in ("mine", "indexes/mine", "indexes/mine/", str(Path("indexes/mine").resolve())):
        assert find_index(place, Path(place)) == "mine"
    write_json(Path("elsewhere/one/index.json"), asdict(card))  # not where indexes are kept
    assert find_index("elsewhere/one", Path("elsewhere/one")) == "elsewhere/one"
    for command in (["verify"], ["add"], ["remove"]):
        given = [*command, "indexes/mine", *([] if command == ["verify"] else [source])]
        assert "is an index of pictures, not of vectors" in l2s("index", *given, code=2)


def test_a_collection_of_a_server_that_holds_points_is_not_built_upon(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    asked = []

    @contextmanager
    def server(folder: Path, place: str, *, is_new: bool) -> Iterator[object]:
        asked.append(place)
        yield client

    monkeypatch.setattr(upkeep, "qdrant_client", server)
    place = "localhost:6333/birds"
    assert build_index(tmp_path / "i", source, "qdrant", server=place).vectors == ROWS
    assert client.count("birds").count == ROWS
    with pytest.raises(ValueError, match=r"localhost:6333/birds: has 600 points already"):
        build_index(tmp_path / "other", source, "qdrant", server=place)
    assert asked == [place] * 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "server",
    [
        *("example.com:6333/a", "localhost:6333", "localhost:6333/"),
        *("localhost:x@example.com/a", "localhost:1@example.com/a", "127.0.0.1:80#/a"),
    ],
)
def test_a_server_elsewhere_is_refused(tmp_path: Path, source: Path, server: str) -> None:
    with pytest.raises(ValueError, match=f"{server}: must be localhost:PORT/COLLECTION"):
        build_index(tmp_path / "i", source, "qdrant", server=server)


@pytest.fixture(scope="module")
def classes() -> np.ndarray:
    """150 classes of 20, class by class: one list of an inverted file holds several whole."""
    centres = np.repeat(unit_vectors(150, seed=2), 20, axis=0)
    spread = centres + 0.03 * np.random.default_rng(3).normal(size=centres.shape)
    return (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", MAPPED)
def test_as_many_are_found_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: np.ndarray, kind: Kind
) -> None:
    """Where the lists that hold the ten nearest hold no more, or what they hold is removed."""
    monkeypatch.setattr(faiss_index, "SCANNED", 0)
    ids = [f"{row}.jpg" for row in range(len(classes))]
    write_vectors(tmp_path / "all", batches(ids, classes))
    build_index(tmp_path / "i", tmp_path / "all", kind)
    with open_index(tmp_path / "i") as index:
        for k in (10, 50, 400):
            found = index.search(classes[:100], k).ids
            assert {len(one) for one in found} == {k}
            true = exact(classes[:100], classes, ids, k)
            shared = [len({*one} & {*other}) for one, other in zip(found, true, strict=True)]
            assert sum(shared) >= 0.9 * 100 * k
    for gone, left in ((2000, 1000), (2960, 40)):
        remove_vectors(tmp_path / "i", ids[:gone])
        with open_index(tmp_path / "i") as index:
            assert {len(one) for one in index.search(classes[:100], 10).ids} == {10}
            assert {len(one) for one in index.search(classes[:100], 60).ids} == {min(60, left)}


def test_more_lists_are_looked_into_as_an_index_grows(tmp_path: Path, classes: np.ndarray) -> None:
    """Its lists stay those of the first build, and what is added lies between them."""
    write_vectors(tmp_path / "first", batches([f"{row}" for row in range(3000)], classes))
    build_index(tmp_path / "i", tmp_path / "first", "ivfpq")
    more = unit_vectors(9000, seed=4)
    with open_index(tmp_path / "i") as index:
        assert isinstance(index, FaissIndex)
        assert index.structure is not None
        before = index.structure.nprobe
        for start in range(0, 9000, 3000):
            some = slice(start, start + 3000)
            index.upsert(batches([f"more {row}" for row in range(9000)[some]], more[some]))
        assert before < index.structure.nprobe
        every = np.concatenate([classes, more])
        ids = [f"{row}" for row in range(3000)] + [f"more {row}" for row in range(9000)]
        queries = every[::80]
        true = exact(queries, every, ids, 10)
        found = index.search(queries, 10).ids
        shared = [len({*one} & {*other}) for one, other in zip(found, true, strict=True)]
    assert sum(shared) >= 0.92 * 10 * len(queries)
