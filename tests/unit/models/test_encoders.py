"""Encoders: PyTorch the first time, the kept ONNX from then on, and the same results."""

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.models import kept_onnx, torch_encoder
from pipeline.models.embedder import Embedder
from pipeline.models.encoders import Encoder, open_encoder
from pipeline.models.query_encoder import QueryEncoder
from pipeline.models.torch_encoder import LARGEST_DIFFERENCE, TorchEncoder, open_torch_encoder
from pipeline.models.weights import NetworkCard, build_embedder, save_network

SIZE_PX = 32
CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved network, and the current folder."""
    monkeypatch.chdir(tmp_path)
    return saved(Path("network.safetensors"), seed=0)


def saved(path: Path, seed: int) -> Path:
    network = build_embedder("timm/test_resnet", 16, weights="random", seed=seed)
    save_network(path, network, NetworkCard("timm/test_resnet", 16, SIZE_PX))
    return path


def views(count: int = 5) -> np.ndarray:
    shape = (count, SIZE_PX, SIZE_PX, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_without_onnx_runtime_pytorch_embeds_also_where_an_onnx_is_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an installation without the extra `export`."""

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1"

    open_encoder(file, 1)
    kept = list(kept_onnx.HOME.iterdir())
    assert len(kept) == 1
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(kept_onnx, "version", version)
    assert isinstance(open_encoder(file, 1), TorchEncoder)
    assert list(kept_onnx.HOME.iterdir()) == kept


def test_the_second_opening_needs_no_torch_and_embeds_alike(file: Path) -> None:
    open_torch_encoder(file, CPU)
    assert not kept_onnx.HOME.exists()
    encoders = [open_encoder(file, threads=1) for _ in range(2)]
    assert [type(one) for one in encoders] == [TorchEncoder, QueryEncoder]
    assert all(isinstance(one, Encoder) and one.size_px == SIZE_PX for one in encoders)
    first, second = (one.embed(views()) for one in encoders)
    assert first.shape == second.shape == (5, 16)
    assert np.linalg.norm(first - second, axis=1).max() <= LARGEST_DIFFERENCE


def test_another_network_under_the_name_is_not_answered_for(file: Path) -> None:
    open_encoder(file, threads=1)
    saved(file, seed=1)
    encoder = open_encoder(file, threads=1)
    assert isinstance(encoder, TorchEncoder)
    found = open_encoder(file, threads=1).embed(views())
    np.testing.assert_allclose(found, encoder.embed(views()), atol=1e-5)


def test_a_kept_file_that_was_changed_is_not_used(file: Path) -> None:
    open_encoder(file, threads=1)
    (kept,) = kept_onnx.HOME.iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert isinstance(open_encoder(file, threads=1), TorchEncoder)
    assert isinstance(open_encoder(file, threads=1), QueryEncoder)  # made anew


@pytest.mark.parametrize("device", ["meta", "quantum"])
def test_another_device_is_that_of_torch(
    file: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    open_encoder(file, threads=1)
    monkeypatch.setenv("L2S_DEVICE", device)
    if device == "quantum":
        with pytest.raises(ValueError, match="L2S_DEVICE = 'quantum'"):
            open_encoder(file, threads=1)
    else:
        assert isinstance(open_encoder(file, threads=1), TorchEncoder)


def test_an_onnx_that_embeds_otherwise_is_not_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build_embedder("timm/test_resnet", 16, weights="random", seed=1).eval()
    write = torch_encoder.write_traced_onnx

    def write_other(path: Path, network: nn.Module, size_px: int) -> None:
        write(path, other, size_px)

    monkeypatch.setattr(torch_encoder, "write_traced_onnx", write_other)
    encoder = open_encoder(file, threads=1)
    found = open_encoder(file, threads=1)
    assert isinstance(found, QueryEncoder)  # by the other exporter
    np.testing.assert_allclose(found.embed(views()), encoder.embed(views()), atol=1e-5)


def test_a_network_that_has_no_onnx_is_tried_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(path: Path, network: Embedder, size_px: int) -> None:
        tried.append(path)
        raise ValueError("this network cannot be written as ONNX")

    for name in ("write_traced_onnx", "write_onnx"):
        monkeypatch.setattr(torch_encoder, name, refuse)
    for _ in range(2):
        assert isinstance(open_encoder(file, threads=1), TorchEncoder)
    assert len(tried) == 2  # each exporter


def test_an_onnx_that_cannot_be_run_is_not_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import helper

    def write_unknown(path: Path, network: Embedder, size_px: int) -> None:
        shape = [None, size_px, size_px, 3]
        given = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, shape)
        got = helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [None, 16])
        node = helper.make_node("Unheard", ["image"], ["embedding"])
        onnx.save(helper.make_model(helper.make_graph([node], "x", [given], [got])), path)

    for name in ("write_traced_onnx", "write_onnx"):
        monkeypatch.setattr(torch_encoder, name, write_unknown)
    for _ in range(2):
        assert isinstance(open_encoder(file, threads=1), TorchEncoder)


def test_nothing_can_be_kept_and_torch_embeds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(network: Path, onnx: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch_encoder, "keep_onnx", full_disk)
    for _ in range(2):
        assert isinstance(open_encoder(file, threads=1), TorchEncoder)


def test_the_oldest_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_onnx, "MOST_KEPT", 2)
    for content in (b"a", b"b", b"c"):
        kept_onnx.keep_onnx(file, content)
        file.write_bytes(content)  # another network
    assert sorted(kept.read_bytes() for kept in kept_onnx.HOME.iterdir()) == [b"b", b"c"]


def test_what_is_no_network_is_told(file: Path) -> None:
    file.write_bytes(b"no network")
    with pytest.raises(ValueError, match="is not a network of this program"):
        open_encoder(file, threads=1)
