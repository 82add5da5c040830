"""A network as ONNX, by either of PyTorch's exporters."""

import copy
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.files import replacing
from pipeline.models.backbones import LIBRARY_FAULTS
from pipeline.models.query_encoder import INPUT, OUTPUT


class RawImageEncoder(nn.Module):
    """Raw RGB pixels to unit vectors: an embedder with the division by 255 in front."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch dim"]:
        return self.network(image.permute(0, 3, 1, 2).float() / 255)


def write_onnx(path: Path, network: nn.Module, size_px: int) -> None:
    """Write the graph from `image`, uint8 [batch, size, size, 3], to `embedding`, [batch, dim].

    network: from images between 0 and 1 to unit vectors, such as an Embedder. The batch is free.
    Raises ValueError for a network that cannot be written as ONNX.
    """
    encoder, image = _traceable(network, size_px)
    try:
        program = torch.onnx.export(
            encoder,
            (image,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _refusal(error) from error
    assert program is not None, "dynamo=True gives a program"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)


def write_traced_onnx(path: Path, network: nn.Module, size_px: int) -> None:
    """As `write_onnx`, by PyTorch's older exporter: in 0.1 to 2 s instead of 4 to 10.

    It lacks some operators, such as the antialiased resizing of position embeddings, and is
    deprecated: for encoders that are checked and may be missing.
    """
    encoder, image = _traceable(network, size_px)
    with replacing(path) as temporary, _silence():
        try:
            torch.onnx.export(
                encoder,
                (image,),
                str(temporary),
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except LIBRARY_FAULTS as error:
            raise _refusal(error) from error


def _traceable(network: nn.Module, size_px: int) -> tuple[RawImageEncoder, Tensor]:
    """A copy to export, and two images: a batch of one would be taken for a constant."""
    encoder = RawImageEncoder(copy.deepcopy(network)).cpu().eval()
    return encoder, torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)


def _refusal(error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0]
    return ValueError(f"this network cannot be written as ONNX: {reason}")


@contextmanager
def _silence() -> Iterator[None]:
    """Without warnings, and without the graph that the exporter prints, from C++, when it fails."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
