"""One labelled, encoded image on its way from a source into a pack."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True)
class ImageRecord:
    """An image as a source yields it.

    `name` is its path inside the data set, unique and stable: the image's identity everywhere.
    `encoded` is a JPEG or PNG file that decodes to 8-bit RGB of `width` x `height` pixels.
    """

    name: str
    class_name: str
    split: Split
    encoded: bytes
    width: int
    height: int
