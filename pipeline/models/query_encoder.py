"""An exported query encoder: encoded pictures to unit vectors, by ONNX Runtime and Pillow alone.

Every export carries a copy of this file and of `normalisation.py`, which is all the code that
serving needs: neither torch nor this repository.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.normalisation import normalise_image

INPUT, OUTPUT = "image", "embedding"
MAX_PIXELS = 50_000_000
BATCH_IMAGES = 64


def square_view(image: Image.Image, size_px: int) -> np.ndarray:
    """`pipeline.data.views.evaluation_view` as uint8 [height, width, channel], without torch."""
    short_px = round(size_px * 8 / 7)
    scale = short_px / min(image.size)
    width, height = (max(short_px, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return np.array(resized.crop((left, top, left + size_px, top + size_px)))


class QueryEncoder:
    """The network of an ONNX file, and the view of a picture that it is fed.

    threads: of the computation; 0 lets ONNX Runtime choose.
    """

    def __init__(self, file: Path, *, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.size_px = int(self._session.get_inputs()[0].shape[1])
        self.dim = int(self._session.get_outputs()[0].shape[1])

    def view(self, encoded: bytes, name: str) -> np.ndarray:
        """The evaluation view of an encoded picture, uint8 [height, width, 3].

        Raises ValueError for what is no picture, is damaged, or has more than 50 million pixels.
        """
        if not isinstance(encoded, bytes):
            raise ValueError(
                f"{name}: must be the bytes of a picture, not {type(encoded).__name__}"
            )
        normal, _, _ = normalise_image(encoded, name, max_pixels=MAX_PIXELS)
        return square_view(Image.open(BytesIO(normal)).convert("RGB"), self.size_px)

    def encode(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Unit vectors of encoded pictures, float32 [picture, dim]. Raises ValueError as `view`."""
        parts = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(pictures), BATCH_IMAGES):
            batch = pictures[start : start + BATCH_IMAGES]
            views = [self.view(picture, f"image {start + i}") for i, picture in enumerate(batch)]
            parts.append(self._session.run([OUTPUT], {INPUT: np.stack(views)})[0])
        return np.concatenate(parts)
