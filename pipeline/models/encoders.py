"""The encoder of a query: a network under ONNX Runtime where that is ready, else PyTorch."""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.models.kept_onnx import kept_onnx
from pipeline.models.query_encoder import QueryEncoder


@runtime_checkable
class Encoder(Protocol):
    """Views of pictures to unit vectors. `size_px`: the side of the view that it takes."""

    @property
    def size_px(self) -> int: ...

    def embed(
        self, views: UInt8[np.ndarray, "view size size 3"]
    ) -> Float[np.ndarray, "view dim"]: ...


def open_encoder(network: Path, threads: int) -> Encoder:
    """The encoder of a saved network: its kept ONNX on the CPU, or PyTorch where there is none.

    PyTorch then leaves one for the next time. It is taken also where L2S_DEVICE names another
    device. By the engine a similarity differs by 1e-5 at most. Raises ValueError for a file that
    is no network, and a device that is not there.
    """
    if os.environ.get("L2S_DEVICE") in (None, "", "cpu") and (onnx := kept_onnx(network)):
        return QueryEncoder(onnx, threads=threads)
    from pipeline.devices import resolve_device
    from pipeline.models.torch_encoder import open_torch_encoder, prepare_onnx

    encoder = open_torch_encoder(network, resolve_device(threads))
    prepare_onnx(network, encoder.network, encoder.size_px)
    return encoder
