"""A teacher that embeds images: one interface, whatever it is made of."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.files import known_md5
from pipeline.models.embedder import Embedder, unit_range
from pipeline.models.weights import NetworkCard, load_network
from pipeline.teachers import teacher_card
from pipeline.teachers.onnx_teacher import OnnxCard, OnnxNetwork, open_onnx_teacher
from pipeline.teachers.stored_vectors import KIND, StoredVectors, open_stored_vectors


@dataclass(frozen=True)
class Teacher:
    """An open teacher: images between 0 and 1 to unit vectors, and views of pictures as well.

    `digest` is the MD5 of its file, `card` what it is: backbone, dimension and size.
    """

    network: Embedder | OnnxNetwork
    card: NetworkCard | OnnxCard
    device: torch.device
    digest: str

    @property
    def size_px(self) -> int:
        return self.card.size_px

    @property
    def dim(self) -> int:
        return self.card.dim

    def takes(self, size_px: int) -> bool:
        """Whether it embeds images of `size_px` as well as of its own size."""
        return isinstance(self.network, Embedder) or self.network.takes(size_px)

    def __call__(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch dim"]:
        return self.network(images)

    @torch.inference_mode()
    def embed(self, views: UInt8[np.ndarray, "view size size 3"]) -> Float[np.ndarray, "view dim"]:
        """Unit vectors of evaluation views, float32."""
        images = unit_range(torch.from_numpy(views).permute(0, 3, 1, 2), self.device)
        vectors: np.ndarray = self.network(images).float().cpu().numpy()
        return vectors


def open_teacher(path: Path, device: torch.device) -> Teacher:
    """Open what the stage train_teacher wrote.

    Raises ValueError for a file that is no teacher, or one that embeds nothing: stored vectors.
    """
    digest = known_md5(path)
    match teacher_card(path)["kind"]:
        case "network":
            return Teacher(*load_network(path, device), device, digest)
        case "onnx":
            return Teacher(*open_onnx_teacher(path), device, digest)
        case kind:
            raise ValueError(f"{path}: is a teacher of kind {kind!r}, which embeds no image")


def open_teacher_or_vectors(path: Path, device: torch.device) -> Teacher | StoredVectors:
    """As `open_teacher`, or the vectors, where nothing else is known of the teacher."""
    if teacher_card(path)["kind"] == KIND:
        return open_stored_vectors(path)
    return open_teacher(path, device)
