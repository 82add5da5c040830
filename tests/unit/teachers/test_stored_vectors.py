"""Stored vectors as a teacher's file: the pack's images first, and nothing lost."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.datasets.vector_batches import VectorBatch, VectorsError
from pipeline.datasets.vector_stores import VectorStore
from pipeline.teachers.stored_vectors import (
    open_stored_vectors,
    write_database,
    write_stored_vectors,
)

IDS = [f"{number}.jpg" for number in range(12)]
ROWS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)


def batches() -> Iterator[VectorBatch]:
    for start in (0, 5, 10):
        some = slice(start, start + 5)
        yield VectorBatch(IDS[some], ROWS[some], [""] * len(IDS[some]))


STORE = VectorStore("here", batches, "n1")
NAMES = ["7.jpg", "1.jpg", "11.jpg", "4.jpg"]
OTHERS = [0, 2, 3, 5, 6, 8, 9, 10]


def test_the_packs_images_come_first_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    findings = write_stored_vectors(path, NAMES, STORE, size_px=224, view="squashed")
    assert (findings.rows, findings.dim) == (12, 5)
    teacher = open_stored_vectors(path)
    np.testing.assert_allclose(teacher.rows, UNIT[[7, 1, 11, 4, *OTHERS]], atol=1e-6)
    assert (teacher.dim, teacher.size_px, teacher.card.images) == (5, 224, 4)
    assert (teacher.card.view, teacher.digest) == ("squashed", "n1")
    np.testing.assert_array_equal(load_file(path)["vectors"], teacher.rows)  # as others read it


def test_the_database_is_all_vectors_those_of_the_test_first(tmp_path: Path) -> None:
    path, test = tmp_path / "database.npy", ["1.jpg", "4.jpg"]
    written = write_database(path, test, STORE, 5, with_others=True)
    np.testing.assert_allclose(written, UNIT[[1, 4, 0, 2, 3, *range(5, 12)]], atol=1e-6)
    np.testing.assert_array_equal(np.load(path), written)
    alone = write_database(path, test, STORE, 5, with_others=False)
    np.testing.assert_allclose(alone, UNIT[[1, 4]], atol=1e-6)


def test_an_image_whose_name_has_another_form_of_accents_comes_once(tmp_path: Path) -> None:
    store = VectorStore(
        "here", lambda: iter([VectorBatch(["cafe\u0301", "x"], ROWS[:2], ["", ""])])
    )
    write_stored_vectors(tmp_path / "t", ["caf\u00e9"], store, size_px=8, view="cropped")
    np.testing.assert_allclose(open_stored_vectors(tmp_path / "t").rows, UNIT[:2], atol=1e-6)


def test_vectors_of_another_length_than_the_teachers_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match="here: vectors of 5 numbers, and the teacher's have 4"):
        write_database(tmp_path / "database.npy", ["1.jpg"], STORE, 4, with_others=True)
    assert not list(tmp_path.iterdir())


def test_images_without_a_vector_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match=r"here: 1 of 2 images have no vector: x\.jpg; others"):
        write_stored_vectors(
            tmp_path / "t.safetensors", ["x.jpg", "1.jpg"], STORE, size_px=8, view="cropped"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("first", "second"), [(3, 2), (2, 3)])
def test_a_store_that_changes_meanwhile_is_refused(tmp_path: Path, first: int, second: int) -> None:
    calls = iter([list(batches())[:first], list(batches())[:second]] * 2)
    store, names = VectorStore("here", lambda: iter(next(calls))), ["7.jpg", "1.jpg"]
    with pytest.raises(VectorsError, match="has changed while it was read"):
        write_stored_vectors(tmp_path / "t.safetensors", names, store, size_px=8, view="cropped")
    with pytest.raises(VectorsError, match="has changed while it was read"):
        write_database(tmp_path / "database.npy", names, store, 5, with_others=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"12345678901", b"\x02" + bytes(7) + b"{}"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.safetensors: holds no stored vectors"):
        open_stored_vectors(tmp_path / "t.safetensors")
