"""A query encoder as ONNX."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.files import replacing
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
    encoder = RawImageEncoder(network).cpu().eval()
    # Two images: a batch of one would be taken for a constant.
    image = torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)
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
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"this network cannot be written as ONNX: {reason}") from error
    assert program is not None, "dynamo=True gives a program"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)
