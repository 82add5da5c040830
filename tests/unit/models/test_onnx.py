"""Networks as ONNX, by both exporters."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pipeline.models.onnx import RawImageEncoder, write_onnx, write_traced_onnx
from pipeline.models.weights import build_embedder

Writer = Callable[[Path, nn.Module, int], None]
both = pytest.mark.parametrize("write", [write_onnx, write_traced_onnx])


@both
@pytest.mark.parametrize(
    ("backbone", "size_px"), [("timm/test_resnet", 32), ("torchvision/mobilenet_v2", 64)]
)
def test_the_graph_embeds_raw_pixels_as_torch_does(
    tmp_path: Path, backbone: str, size_px: int, write: Writer
) -> None:
    network = build_embedder(backbone, 24, weights="random", seed=0, mean=(0.5, 0.4, 0.3))
    with torch.no_grad():
        network.p.fill_(2.2)
    network.eval().requires_grad_(False)
    write(tmp_path / "encoder.onnx", network, size_px)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (given,), (got,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == (
        "image",
        "tensor(uint8)",
        [size_px] * 2 + [3],
    )
    assert (got.name, got.type, got.shape[1:]) == ("embedding", "tensor(float)", [24])
    for batch in (1, 2, 7):
        image = torch.randint(0, 256, (batch, size_px, size_px, 3), dtype=torch.uint8)
        vectors = session.run(None, {"image": image.numpy()})[0]
        assert vectors.shape == (batch, 24)
        np.testing.assert_allclose(vectors, RawImageEncoder(network)(image), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    here = str(Path(__file__).resolve().parents[3]).encode()
    assert here not in (tmp_path / "encoder.onnx").read_bytes()  # no paths of this machine


class Branching(nn.Module):
    """Decides by values: torch.export cannot follow."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else images * 2


class Transposing(nn.Module):
    """Takes an operator that the older exporter lacks."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "features"), [(write_onnx, Branching()), (write_traced_onnx, Transposing())]
)
def test_a_network_that_onnx_cannot_hold_is_refused_in_words(
    tmp_path: Path, write: Writer, features: nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    network = build_embedder("timm/test_resnet", 3, weights="random", seed=0)
    network.features = features
    network.projection = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="cannot be written as ONNX"):
        write(tmp_path / "encoder.onnx", network, 32)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""  # where the results of a command go


@both
def test_the_network_stays_as_it_was(tmp_path: Path, write: Writer) -> None:
    network = build_embedder("timm/test_resnet", 3, weights="random", seed=0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write(tmp_path / "encoder.onnx", network, 32)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
