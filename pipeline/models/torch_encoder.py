"""A trained network as an encoder of pictures under PyTorch."""

import copy
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.models.embedder import Embedder, unit_range
from pipeline.models.kept_onnx import keep_onnx, kept_onnx
from pipeline.models.onnx import write_onnx, write_traced_onnx
from pipeline.models.onnx_refusals import onnx_refusals
from pipeline.models.query_encoder import QueryEncoder
from pipeline.models.weights import load_network

LARGEST_DIFFERENCE = 1e-5  # of a vector, by its length: a bound of that of any similarity
CHECKED_VIEWS = 3


@dataclass(frozen=True)
class TorchEncoder:
    """An open network. `size_px` is the side of the evaluation view that it is fed."""

    network: Embedder
    size_px: int
    device: torch.device

    @torch.inference_mode()
    def embed(self, views: UInt8[np.ndarray, "view size size 3"]) -> Float[np.ndarray, "view dim"]:
        """Unit vectors of evaluation views, float32."""
        images = torch.from_numpy(views).permute(0, 3, 1, 2)
        vectors: np.ndarray = self.network(unit_range(images, self.device)).float().cpu().numpy()
        return vectors


def open_torch_encoder(file: Path, device: torch.device) -> TorchEncoder:
    """Load a saved network. Raises ValueError as `load_network`."""
    network, card = load_network(file, device)
    return TorchEncoder(network, card.size_px, device)


def prepare_onnx(file: Path, network: Embedder, size_px: int) -> None:
    """Keep the ONNX of a network, saved in `file`, for `open_encoder`, unless it is there already.

    Nothing is kept on a full disk, in a workspace that is read-only, and without the extra
    `export`: PyTorch embeds as well.
    """
    with suppress(OSError, ImportError):
        if kept_onnx(file) is None:
            keep_onnx(file, equal_onnx(network, size_px))


def equal_onnx(network: Embedder, size_px: int) -> bytes:
    """The network as ONNX that embeds as it does, or nothing where no exporter makes it so."""
    shape = (CHECKED_VIEWS, size_px, size_px, 3)
    views = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network = copy.deepcopy(network).cpu()
    expected = TorchEncoder(network, size_px, torch.device("cpu")).embed(views)
    with TemporaryDirectory() as folder:
        file = Path(folder, "encoder.onnx")
        for write in (write_traced_onnx, write_onnx):
            with suppress(ValueError, *onnx_refusals()):
                write(file, network, size_px)
                vectors = QueryEncoder(file, threads=1).embed(views)
                if np.linalg.norm(vectors - expected, axis=1).max() <= LARGEST_DIFFERENCE:
                    return file.read_bytes()
    return b""
