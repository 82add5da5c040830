"""The FAISS index: exact, and whole on disk."""

from pathlib import Path

import numpy as np
import torch

from pipeline.retrieval.index import read_index, write_exact_index


def test_searches_as_brute_force_does(tmp_path: Path) -> None:
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(7, 8, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "deep" / "database.faiss"
    write_exact_index(path, vectors)
    index = read_index(path)
    assert (index.ntotal, index.d) == (50, 8)
    scores, rows = index.search(queries.numpy(), 50)
    similarity = (queries @ vectors.T).numpy()
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-similarity, axis=1), rtol=1e-5, atol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in ("a", "b"):
        write_exact_index(tmp_path / name, vectors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
