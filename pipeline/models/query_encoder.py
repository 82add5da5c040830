"""An exported query encoder: encoded pictures to unit vectors, by ONNX Runtime and Pillow alone.

Every export carries a copy of this file and of `decode.py`, which is all the code that
serving needs: neither torch nor this repository.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.decode import decode_image

INPUT, OUTPUT = "image", "embedding"
EXPORTED = "encoder.onnx"  # in the folder of an export
MAX_PIXELS = 50_000_000
BATCH_IMAGES = 64
# A reduced decode leaves a shorter side at least so many times that of the view, so that most of
# the filtering is still Lanczos.
DECODE_MARGIN = 2
# Longer pictures, by their sides, are not scaled whole: one of 65500 x 1 pixels would take s^2
# times its own memory. Up to this ratio the result is that of METHOD section 5, bit by bit.
WHOLE_ASPECT = 4


def short_side_px(size_px: int) -> int:
    """The shorter side that a picture is scaled to before the central square is cut: 8/7 s."""
    return round(size_px * 8 / 7)


def least_decoded_px(size_px: int, margin: int = DECODE_MARGIN) -> int:
    """The shorter side, in pixels, that a reduced decode for a view of `size_px` must leave."""
    return margin * short_side_px(size_px)


def square_view(image: Image.Image, size_px: int) -> np.ndarray:
    """The evaluation view of an RGB picture as uint8 [height, width, channel], without torch.

    Of a picture more than `WHOLE_ASPECT` times as long as wide only the pixels that the view shows
    are computed: those of the whole to two grey levels, but where its filter overshoots black or
    white, since Pillow chooses by the sizes which axis comes first.
    """
    short_px = short_side_px(size_px)
    scale = short_px / min(image.size)
    width, height = (max(short_px, round(side * scale)) for side in image.size)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    crop = (left, top, left + size_px, top + size_px)
    if max(width, height) <= WHOLE_ASPECT * short_px:
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.array(resized.crop(crop))
    across, down = image.width / width, image.height / height
    box = (crop[0] * across, crop[1] * down, crop[2] * across, crop[3] * down)
    return np.array(image.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box))


class QueryEncoder:
    """The network of an ONNX file, or of its content, and the view of a picture that it is fed.

    threads: of the computation; 0 lets ONNX Runtime choose.
    """

    def __init__(self, onnx: Path | bytes, *, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            onnx, options, providers=["CPUExecutionProvider"]
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
        return square_view(decode_image(encoded, name, max_pixels=MAX_PIXELS), self.size_px)

    def embed(self, views: np.ndarray) -> np.ndarray:
        """Unit vectors, float32 [picture, dim], of views, uint8 [picture, height, width, 3]."""
        vectors: np.ndarray = self._session.run([OUTPUT], {INPUT: views})[0]
        return vectors

    def encode(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Unit vectors of encoded pictures, float32 [picture, dim]. Raises ValueError as `view`."""
        parts = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(pictures), BATCH_IMAGES):
            batch = pictures[start : start + BATCH_IMAGES]
            views = [self.view(picture, f"image {start + i}") for i, picture in enumerate(batch)]
            parts.append(self.embed(np.stack(views)))
        return np.concatenate(parts)
