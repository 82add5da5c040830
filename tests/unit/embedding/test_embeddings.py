"""Embeddings of the images of a pack: in their order, and in any batches."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.packs import Pack
from pipeline.embedding import embeddings
from pipeline.embedding.ahead import made_ahead
from pipeline.embedding.embeddings import (
    EvaluationViews,
    embed_pictures,
    embed_views,
)
from pipeline.views.evaluation import evaluation_view
from tests.made_training import CPU, made_pack, tiny_embedder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_pack(tmp_path_factory.mktemp("pack"), 3, 4)


def test_equals_one_image_after_the_other(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BATCH_IMAGES", 2)
    network = tiny_embedder(batch_norm=True).eval()
    rows = np.array([7, 0, 11, 3, 4])
    ours = embed_views(network, EvaluationViews(pack, rows, 16), CPU)
    assert ours.shape == (5, 8)
    assert ours.dtype == torch.float32
    for place, row in enumerate(rows.tolist()):
        image = evaluation_view(pack.image(row), 16)[None].double() / 255
        with torch.no_grad():
            expected = tiny_embedder(batch_norm=True).double().eval()(image)[0]
        torch.testing.assert_close(ours[place].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(5))


def test_batches_do_not_matter(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_embedder(batch_norm=True).eval()
    views = EvaluationViews(pack, np.arange(12), 16)
    first = embed_views(network, views, CPU)
    for batch_size in (1, 5, 12):
        monkeypatch.setattr(embeddings, "BATCH_IMAGES", batch_size)
        other = embed_views(network, views, CPU)
        torch.testing.assert_close(first, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("limit", "decoded"), [(10**9, 6), (0, 12)])
def test_views_are_kept_where_they_fit_and_are_equal_either_way(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, limit: int, decoded: int
) -> None:
    calls: list[int] = []

    def counted(image, size_px: int):
        calls.append(size_px)
        return evaluation_view(image, size_px)

    monkeypatch.setattr(embeddings, "evaluation_view", counted)
    monkeypatch.setattr(embeddings, "KEPT_VIEWS_BYTES", limit)
    views = EvaluationViews(pack, np.arange(6), 16)
    assert len(views) == 6
    first, second = (torch.stack([views[place] for place in range(6)]) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (6, 3, 16, 16)
    assert calls == [16] * decoded


def test_embeddings_take_part_in_a_later_loss(pack: Pack) -> None:
    """They are constants of a graph: saved for a backward pass, without a gradient of their own."""
    fixed = embed_views(tiny_embedder().eval(), EvaluationViews(pack, np.arange(3), 16), CPU)
    assert not fixed.requires_grad
    assert not fixed.is_inference()
    learned = torch.ones(3, 8, requires_grad=True)
    (learned * fixed).sum().backward()
    assert learned.grad is not None
    assert torch.equal(learned.grad, fixed)


def test_it_tells_of_its_progress_only_with_a_name(
    pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    views = EvaluationViews(pack, np.arange(5), 16)
    embed_views(tiny_embedder().eval(), views, CPU)
    assert capsys.readouterr().err == ""
    embed_views(tiny_embedder().eval(), views, CPU, name="embedding")
    assert "embedding: 5/5 image" in capsys.readouterr().err


def test_reading_leaves_the_pack_and_the_network_alone(pack: Pack, tmp_path: Path) -> None:
    network = tiny_embedder(batch_norm=True).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    embed_views(network, EvaluationViews(pack, np.arange(12), 16), CPU)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_what_is_made_ahead_is_in_order_and_bounded(threads: int) -> None:
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        time.sleep(0.003 * (item % 3))
        return item * item

    for taken, made in enumerate(made_ahead(range(20), make, threads=threads, ahead=4)):
        assert made == taken * taken
        assert len(begun) <= taken + 1 + (4 if threads else 0)
    assert sorted(begun) == list(range(20))
    stopped = made_ahead(range(100), make, threads=threads, ahead=4)
    next(stopped)
    stopped.close()
    assert len(begun) <= 20 + 6  # what is not wanted any more is not made


def test_an_error_comes_in_its_turn() -> None:
    made = made_ahead([1, 0, 2], lambda item: 1 / item, threads=2, ahead=2)
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_any_number_of_threads_gives_the_same_bits(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_embedder(batch_norm=True).eval()
    rows = np.arange(12)[::-1].copy()
    waiting, most = 0, 0
    lock = threading.Lock()

    def counted(image, size_px: int):
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return evaluation_view(image, size_px)

    def taken(images: torch.Tensor, device: torch.device) -> torch.Tensor:
        nonlocal waiting
        with lock:
            waiting -= len(images)
        return unit_range(images, device)

    unit_range = embeddings.unit_range
    monkeypatch.setattr(embeddings, "evaluation_view", counted)
    monkeypatch.setattr(embeddings, "unit_range", taken)
    monkeypatch.setattr(embeddings, "BATCH_IMAGES", 2)
    monkeypatch.setattr(embeddings, "VIEWS_AHEAD", 4)
    found = []
    for threads in (0, 1, 3):
        monkeypatch.setenv("L2S_LOADING_THREADS", str(threads))
        for limit in (0, 10**9):
            monkeypatch.setattr(embeddings, "KEPT_VIEWS_BYTES", limit)
            found.append(embed_views(network, EvaluationViews(pack, rows, 16), CPU))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert 2 < most <= 2 + 4


def test_pictures_are_embedded_as_the_rows_of_a_pack(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_embedder(batch_norm=True).eval()
    names = [pack.names[row] for row in (5, 0, 7)]
    rows = {name: row for row, name in enumerate(pack.names)}

    def read(name: str) -> bytes:
        if name == "gone":
            raise UnreadableImage(name, "there is no such file")
        return b"text" if name == "text" else pack.encoded(rows[name])

    expected = embed_views(network, EvaluationViews(pack, np.array([5, 0, 7]), 16), CPU)
    for threads in ("0", "2"):
        monkeypatch.setenv("L2S_LOADING_THREADS", threads)
        asked = [names[0], "gone", *names[1:], "text"]
        found = embed_pictures(network, asked, read, 16, CPU)
        assert found.names == names
        np.testing.assert_array_equal(found.vectors, expected.numpy())
        assert [failure.name for failure in found.failures] == ["gone", "text"]
    nothing = embed_pictures(network, ["gone"], read, 16, CPU)
    assert (nothing.names, len(nothing.vectors), len(nothing.failures)) == ([], 0, 1)


def test_large_pictures_are_decoded_one_at_a_time(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any number of threads: each takes most of the memory that there may be."""
    at_work: list[str] = []
    most = 0
    decode = embeddings.decode_image

    def count(content: bytes, name: str) -> Image.Image:
        nonlocal most
        at_work.append(name)
        most = max(most, len(at_work))
        time.sleep(0.02)
        at_work.remove(name)
        return decode(content, name)

    monkeypatch.setattr(embeddings, "decode_image", count)
    monkeypatch.setenv("L2S_LOADING_THREADS", "4")
    rows = {name: row for row, name in enumerate(pack.names)}
    counts = []
    for limit in (0, 10**9):
        monkeypatch.setattr(embeddings, "LARGE_PIXELS", limit)
        most = 0
        embed_pictures(tiny_embedder(), pack.names, lambda name: pack.encoded(rows[name]), 16, CPU)
        counts.append(most)
    assert counts[0] == 1
    assert counts[1] > 1
