"""The FAISS indexes: exact or nearly so, whole on disk, mapped rather than read."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from pipeline.search.structures import (
    IndexKind,
    proposed_rows,
    read_index,
    write_exact_index,
    write_image_index,
)


def test_searches_as_brute_force_does(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    path = tmp_path / "deep" / "database.faiss"
    write_exact_index(path, vectors)
    index = read_index(path)
    assert (index.ntotal, index.d) == (50, 8)
    scores, rows = index.search(queries, 50)
    similarity = queries @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-similarity, axis=1), rtol=1e-5, atol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    for name in ("a", "b"):
        write_exact_index(tmp_path / name, vectors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def unit_vectors(rows: int, dim: int = 32) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq"])
def test_entries_answer_to_their_ids(tmp_path: Path, kind: IndexKind) -> None:
    vectors, ids = unit_vectors(600), 7 * np.arange(600) + 2**62
    write_image_index(tmp_path / "index.faiss", vectors, ids, kind, threads=1)
    index = read_index(tmp_path / "index.faiss")
    assert type(index) is faiss.IndexIDMap  # IndexIDMap2 keeps a table of all ids in memory
    _, found = index.search(vectors[:50], 5)
    assert (found == ids[:50, None]).any(1).mean() >= 0.9


def test_an_index_written_with_a_table_of_ids_can_still_be_read(tmp_path: Path) -> None:
    vectors, ids = unit_vectors(20), 3 * np.arange(20)
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(32))
    index.add_with_ids(vectors, ids)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    assert read_index(tmp_path / "index.faiss").search(vectors, 1)[1][:, 0].tolist() == ids.tolist()


@pytest.mark.parametrize(("rows", "lists"), [(300, 7), (4000, 102)])
def test_the_lists_of_an_inverted_file_grow_with_it(tmp_path: Path, rows: int, lists: int) -> None:
    assert inverted_file(tmp_path, unit_vectors(rows, 4)).nlist == lists


@pytest.mark.parametrize(("classes", "least"), [(20, 2), (1000, 32)])
def test_as_many_lists_are_looked_into_as_find_the_ten_nearest(
    tmp_path: Path, classes: int, least: int
) -> None:
    """Fewer where a list holds whole classes than where neighbours lie in all of them."""
    centres = unit_vectors(classes)[np.arange(5000) % classes]
    vectors = centres + 0.15 * np.random.default_rng(3).normal(size=centres.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    inverted = inverted_file(tmp_path, vectors)
    chosen = inverted.nprobe
    nearest = np.argsort(-vectors[:2000] @ vectors.T, axis=1)[:, 1:11]

    def found(lists: int) -> float:
        inverted.nprobe = lists
        _, proposed = inverted.search(vectors[:2000], 160)
        return np.mean([np.isin(*pair).mean() for pair in zip(nearest, proposed, strict=True)])

    assert found(chosen) >= 0.94  # 0.95 of the rows that decided
    assert found(chosen // 2) < 0.96
    assert least <= chosen < 8 * least


def test_no_more_lists_are_looked_into_than_help(tmp_path: Path) -> None:
    """Codes cannot tell near copies apart: all lists propose no better than a few."""
    copies = np.repeat(unit_vectors(20), 400, axis=0)
    copies += 0.02 * np.random.default_rng(3).normal(size=copies.shape).astype(np.float32)
    vectors = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    inverted = inverted_file(tmp_path, vectors)
    assert inverted.nprobe <= inverted.nlist // 4


def test_of_equal_vectors_any_are_found(tmp_path: Path) -> None:
    """A placeholder that stands for a fifth of the images is near itself whichever is proposed."""
    vectors = unit_vectors(4000)
    vectors[::5] = vectors[0]
    other = unit_vectors(4000)
    chosen = [inverted_file(tmp_path, one).nprobe for one in (vectors, other)]
    assert chosen[0] <= chosen[1]


def test_hnsw_has_as_many_candidates_as_rows_at_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit_vectors(600)
    write_image_index(tmp_path / "i", vectors, np.arange(600), "hnsw", threads=1)
    index, depths = read_index(tmp_path / "i"), []
    made = faiss.SearchParametersHNSW

    def noted(**given: Any) -> Any:
        depths.append(given["efSearch"])
        return made(**given)

    monkeypatch.setattr(faiss, "SearchParametersHNSW", noted)
    removed = np.arange(0, 600, 2)
    for k in (1, 10, 20, 100, 600):
        proposed_rows(index, vectors[:3], k)
        proposed_rows(index, vectors[:3], min(k, 300), removed=removed)
    assert depths == [128, 256, 160, 320, 320, 600, 600, 600, 600, 600]


def inverted_file(folder: Path, vectors: np.ndarray) -> Any:
    write_image_index(folder / "index.faiss", vectors, np.arange(len(vectors)), "ivfpq", threads=1)
    index: Any = faiss.read_index(str(folder / "index.faiss"))
    index.own_fields = False  # the inner one outlives it
    return faiss.downcast_index(index.index)


@pytest.mark.parametrize("dim", [37, 74])
def test_dimensions_that_no_code_divides_are_refused(tmp_path: Path, dim: int) -> None:
    """A byte for 37 numbers would say next to nothing of them."""
    vectors, ids = unit_vectors(300, dim), np.arange(300)
    with pytest.raises(ValueError, match=f"{dim} numbers have none of four to 8: take hnsw"):
        write_image_index(tmp_path / "i", vectors, ids, "ivfpq", threads=1)
