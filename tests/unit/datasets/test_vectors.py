"""The form of vectors on disk, and every fault that vectors can come with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import vectors as form
from pipeline.datasets.vector_batches import (
    Findings,
    VectorBatch,
    VectorsError,
    checked,
    parquet_batches,
    vectors_of,
)
from pipeline.datasets.vectors import read_vectors, write_vectors

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(10, 4))
IDS = [f"image-{number}" for number in range(10)]


def batch(ids: list[str], vectors: np.ndarray) -> VectorBatch:
    return VectorBatch(ids, vectors, ["" for _ in ids])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("number", ["float32", "float16"])
def test_what_is_written_is_read_again_unit_length(tmp_path: Path, number: str) -> None:
    parts = [
        VectorBatch(IDS[:4], ROWS[:4], ["a", "b", "c", "d"]),
        VectorBatch(IDS[4:], ROWS[4:], [""] * 6),
    ]
    findings = write_vectors(tmp_path / "v", parts, network="n1", number=number)  # type: ignore[arg-type]
    assert (findings.rows, findings.dim, findings.numbers) == (10, 4, {"float64"})
    opened = read_vectors(tmp_path / "v")
    assert (opened.card.dim, opened.card.network) == (4, "n1")
    stored = pq.read_schema(Path(opened.folder, opened.files[0])).field("vector").type
    assert stored == pa.list_(pa.float16() if number == "float16" else pa.float32(), 4)
    found = list(opened.batches())
    assert [one for part in found for one in part.ids] == IDS
    assert [one for part in found for one in part.content][:5] == ["a", "b", "c", "d", ""]
    read = np.concatenate([part.vectors for part in found])
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, unit(ROWS), atol=1e-3 if number == "float16" else 1e-6)


def test_many_rows_lie_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "ROWS_PER_FILE", 4)
    write_vectors(tmp_path / "v", (batch([IDS[n]], ROWS[n : n + 1]) for n in range(10)))
    opened = read_vectors(tmp_path / "v")
    assert [pq.read_metadata(Path(opened.folder, file)).num_rows for file in opened.files] == [
        4,
        4,
        2,
    ]
    assert [one for part in opened.batches() for one in part.ids] == IDS


def write_tombstones(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    names = ("id", "content", "file")
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    pq.write_table(table, folder / "tombstones.parquet")
    card = read_vectors(folder).card.model_copy(update={"tombstones": len(rows)})
    (folder / "card.json").write_text(card.model_dump_json())


def test_a_row_of_the_tombstones_is_not_given_and_that_of_another_file_is(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "v"
    write_vectors(folder, [batch(IDS, ROWS)])
    write_vectors(tmp_path / "later", [batch(IDS[:1], ROWS[1:2])])
    (tmp_path / "later" / "part-00000.parquet").rename(folder / "part-00001.parquet")
    gone = [(IDS[0], "", "part-00000.parquet"), (IDS[7], "", "part-00000.parquet")]
    write_tombstones(folder, gone)
    first, second = read_vectors(folder).batches()
    assert first.ids == [one for one in IDS if one not in (IDS[0], IDS[7])]
    np.testing.assert_allclose(first.vectors[0], unit(ROWS)[1], atol=1e-6)
    assert second.ids == IDS[:1]
    np.testing.assert_allclose(second.vectors[0], unit(ROWS)[1], atol=1e-6)


def test_a_card_with_tombstones_needs_their_list(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", [batch(IDS, ROWS)])
    write_tombstones(tmp_path / "v", [(IDS[0], "", "part-00000.parquet")])
    (tmp_path / "v" / "tombstones.parquet").unlink()
    with pytest.raises(VectorsError, match=r"tombstones\.parquet: cannot be read as tombstones"):
        list(read_vectors(tmp_path / "v").batches())


def test_an_earlier_card_has_an_empty_list_of_tombstones(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", [batch(IDS, ROWS)])
    (tmp_path / "v" / "card.json").write_text('{"format": 1, "dim": 4, "tombstones": []}')
    assert read_vectors(tmp_path / "v").card.tombstones == 0


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (ROWS.astype(np.float16), "float16"),
        (np.round(unit(ROWS) * 127).astype(np.int8), "int8"),
        (ROWS * 7, "float64"),
    ],
)
def test_other_numbers_and_norms_are_normalised_and_told(vectors: np.ndarray, told: str) -> None:
    findings = Findings()
    (found,) = checked([batch(IDS, vectors)], "here", findings)
    np.testing.assert_allclose(found.vectors, unit(ROWS), atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    first, second = findings.lines()
    assert first == f"10 vectors of 4 numbers, {told}"
    assert "not of unit length (norms from " in second


def test_unit_vectors_are_told_in_one_line() -> None:
    findings = Findings()
    list(checked([batch(IDS, unit(ROWS).astype(np.float16))], "here", findings))
    assert findings.lines() == ["10 vectors of 4 numbers, float16"]


def changed(row: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row] = value
    return rows


FAULTS: list[tuple[str, list[VectorBatch], str]] = [
    ("none", [], "holds no vector"),
    ("number", [batch(IDS[:9], ROWS)], r"9 ids and 10 x 4 numbers do not fit"),
    ("axes", [batch(IDS, ROWS[0])], "10 ids and 4 numbers do not fit"),
    ("length", [batch(IDS[:5], ROWS[:5]), batch(IDS[5:], ROWS[5:, :3])], "have 4 and 3 numbers"),
    ("nan", [batch(IDS, changed(3, np.nan))], "not finite: image-3: remove"),
    (
        "too large",
        [batch(IDS, changed(3, 1.0).astype(float) * 1e39)],
        "hold numbers that are not fin",
    ),
    ("infinite", [batch(IDS, changed(3, np.inf))], "not finite: image-3: remove"),
    ("zero", [batch(IDS, changed(2, 0))], "nothing but zeros: image-2: remove"),
    ("twice", [batch(IDS[:5], ROWS[:5]), batch(IDS[4:], ROWS[4:])], "come twice: image-4: which"),
    ("no id", [batch(["", *IDS[1:]], ROWS)], "a row has no id"),
    ("unsigned", [batch(IDS, np.ones((10, 4), np.uint8))], "its numbers are uint8"),
]


@pytest.mark.parametrize(("batches", "words"), [row[1:] for row in FAULTS], ids=lambda _: "")
def test_faults_in_words(batches: list[VectorBatch], words: str) -> None:
    with pytest.raises(VectorsError, match=words) as caught:
        list(checked(batches, "here", Findings()))
    assert str(caught.value).startswith("here: ")


def test_a_fault_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", [batch(IDS, ROWS)])
    with pytest.raises(VectorsError, match="not finite"):
        write_vectors(tmp_path / "v", [batch(IDS, changed(1, np.nan))])
    assert [part.ids for part in read_vectors(tmp_path / "v").batches()] == [IDS]
    assert [entry.name for entry in tmp_path.iterdir()] == ["v"]


def test_vectors_by_ids_come_in_the_order_asked_for() -> None:
    found = vectors_of(
        ["image-7", "image-1"], [batch(IDS[:5], ROWS[:5]), batch(IDS[5:], ROWS[5:])], ""
    )
    np.testing.assert_array_equal(found, ROWS[[7, 1]])


def test_the_form_of_accents_does_not_matter() -> None:
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    for asked, stored in ((composed, apart), (apart, composed)):
        found = vectors_of([asked], [batch([stored, "x"], ROWS[:2])], "")
        np.testing.assert_array_equal(found, ROWS[:1])


def test_an_id_in_two_forms_of_its_accents_is_refused() -> None:
    stored = batch(["caf\u00e9.jpg", "x", "cafe\u0301.jpg"], ROWS[:3])
    with pytest.raises(VectorsError, match="here: ids come twice, in two forms of their accents"):
        vectors_of(["caf\u00e9.jpg"], [stored], "here")


def test_ids_that_do_not_match_are_named_beside_stored_ones() -> None:
    words = r"2 of 3 images have no vector: a.jpg, b.jpg; others are there: image-0, image-1, "
    with pytest.raises(VectorsError, match=words):
        vectors_of(["a.jpg", "image-4", "b.jpg"], [batch(IDS, ROWS)], "here")


LISTS = [row.tolist() for row in ROWS]
TABLES: list[tuple[Callable[[], pa.Table], str]] = [
    (lambda: pa.table({"name": IDS, "vector": LISTS}), r"has no column 'id'; it has name, vector"),
    (lambda: pa.table({"id": IDS}), r"has no column 'vector'; it has id: name others as"),
    (lambda: pa.table({"id": IDS, "vector": IDS}), "holds string, no lists of numbers"),
    (lambda: pa.table({"id": IDS, "vector": [["a"]] * 10}), "lists of string, no numbers"),
    (lambda: pa.table({"id": ROWS[:, 0], "vector": LISTS}), "'id' holds double, no ids"),
    (lambda: pa.table({"id": IDS, "vector": [None, *LISTS[1:]]}), "is empty in 1 rows"),
    (lambda: pa.table({"id": IDS, "vector": [[1.0], *LISTS[1:]]}), "vectors of 1 and 4 numbers"),
    (
        lambda: pa.table([pa.array(IDS), pa.array(IDS), pa.array(LISTS)], ["id", "id", "vector"]),
        "has two columns 'id'",
    ),
    (
        lambda: pa.table({"id": pa.array([b"\xff"] * 10).view(pa.string()), "vector": LISTS}),
        "cannot be read as Parquet: 'utf-8' codec",
    ),
    (
        lambda: pa.table({"id": IDS, "vector": [[1.0, None, 1.0, 1.0], *LISTS[1:]]}),
        "holds 1 empty numbers",
    ),
]


@pytest.mark.parametrize(("table", "words"), TABLES, ids=lambda _: "")
def test_tables_that_hold_no_vectors(
    tmp_path: Path, table: Callable[[], pa.Table], words: str
) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    with pytest.raises(VectorsError, match=words):
        list(parquet_batches(tmp_path / "t.parquet", "id", "vector"))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 4)]
)
def test_any_kind_of_list_and_numbers_as_ids(tmp_path: Path, kind: pa.DataType) -> None:
    lists = pa.array(ROWS.astype(np.float16).tolist(), pa.list_(pa.float16())).cast(kind)
    pq.write_table(pa.table({"id": list(range(10)), "vector": lists}), tmp_path / "t.parquet")
    (found,) = parquet_batches(tmp_path / "t.parquet", "id", "vector")
    assert found.ids == [str(number) for number in range(10)]
    np.testing.assert_allclose(found.vectors, ROWS, atol=2e-3)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(VectorsError, match=r"t\.parquet: cannot be read as Parquet"):
        list(parquet_batches(tmp_path / "t.parquet", "id", "vector"))


def test_cards_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match=r"is no folder of vectors"):
        read_vectors(tmp_path)
    (tmp_path / "card.json").write_text('{"format": 1, "dim": 0}')
    with pytest.raises(VectorsError, match=r"card\.json: dim: "):
        read_vectors(tmp_path)
    (tmp_path / "card.json").write_text('{"format": 1, "dim": 3}')
    with pytest.raises(VectorsError, match=r"holds no \.parquet file"):
        read_vectors(tmp_path)
    write_vectors(tmp_path / "v", [batch(IDS, ROWS)])
    (tmp_path / "v" / "card.json").write_text('{"format": 1, "dim": 3}')
    with pytest.raises(VectorsError, match=r"have 4 numbers, card\.json says 3"):
        list(read_vectors(tmp_path / "v").batches())
