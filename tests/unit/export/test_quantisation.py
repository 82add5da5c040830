"""An encoder in 8 bits: near the one in 32, of the same form, the same each time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline.export.quantisation import quantise_onnx
from pipeline.models.onnx import write_onnx
from pipeline.models.query_encoder import QueryEncoder
from pipeline.models.weights import build_embedder

SIZE_PX = 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    network = build_embedder("timm/test_resnet", 24, weights="random", seed=0)
    write_onnx(path, network.eval().requires_grad_(False), SIZE_PX)
    return path


def noisy_views(count: int, seed: int) -> np.ndarray:
    """Views of all brightnesses."""
    source = np.random.default_rng(seed)
    levels = source.uniform(40, 215, (count, 1, 1, 3))
    noise = source.normal(0, 40, (count, SIZE_PX, SIZE_PX, 3))
    return (levels + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def quantised(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantised") / "encoder_int8.onnx"
    quantise_onnx(encoder, target, noisy_views(8, seed=0))
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    return target


def test_it_embeds_nearly_alike(encoder: Path, quantised: Path) -> None:
    views = noisy_views(7, seed=1)
    exact, near = (QueryEncoder(file, threads=1) for file in (encoder, quantised))
    assert (near.size_px, near.dim) == (exact.size_px, exact.dim) == (SIZE_PX, 24)
    for batch in (1, 7):
        one, two = exact.embed(views[:batch]), near.embed(views[:batch])
        np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, atol=1e-6)
        assert (one * two).sum(1).min() > 0.99
        assert np.abs(one - two).max() > 1e-6  # it is another program


def test_the_weights_of_convolutions_have_a_byte_a_number(encoder: Path, quantised: Path) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(quantised).graph.initializer}
    plain = {tensor.name for tensor in onnx.load(encoder).graph.initializer}
    weights = {name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8}
    convolutions = [node for node in onnx.load(encoder).graph.node if node.op_type == "Conv"]
    assert len([name for name in weights if name.endswith("weight_quantized")]) == len(convolutions)
    assert not any("projection" in name for name in weights)
    assert any("projection" in name for name in plain & set(kinds))
    assert quantised.stat().st_size < 0.5 * encoder.stat().st_size


def test_equal_views_give_equal_files(encoder: Path, quantised: Path, tmp_path: Path) -> None:
    quantise_onnx(encoder, tmp_path / "again.onnx", noisy_views(8, seed=0))
    assert (tmp_path / "again.onnx").read_bytes() == quantised.read_bytes()
    here = str(Path(__file__).resolve().parents[3]).encode()
    assert here not in quantised.read_bytes()


def test_a_network_without_convolutions_is_refused(tmp_path: Path) -> None:
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    write_onnx(tmp_path / "encoder.onnx", Means(), SIZE_PX)
    with pytest.raises(ValueError, match="holds no convolution"):
        quantise_onnx(tmp_path / "encoder.onnx", tmp_path / "int8.onnx", noisy_views(2, seed=0))
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx"]
