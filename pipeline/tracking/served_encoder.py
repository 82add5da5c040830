"""The query encoder as MLflow's server calls it; a copy of this file is in every export."""

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException


class ServedEncoder:
    """Answers a table whose column `image` holds a picture a row: its bytes, or their base64.

    encode: embeds encoded pictures: that of `pipeline.models.query_encoder.QueryEncoder`.
    """

    def __init__(self, encode: Callable[[Sequence[bytes]], np.ndarray]) -> None:
        self.encode = encode

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Unit vectors, a row a picture. What is no picture is refused with HTTP 400."""
        try:
            pictures = enumerate(model_input["image"])
            return self.encode([_encoded(given, f"image {row}") for row, given in pictures])
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _encoded(given: object, name: str) -> bytes:
    """The bytes of a picture file; MLflow has undone base64 in tables, but not in `inputs`."""
    if not isinstance(given, bytes | bytearray | memoryview | str):
        raise ValueError(
            f"{name}: must be the bytes of a picture file or their base64, not "
            f"{type(given).__name__}: send "
            '{"dataframe_records": [{"image": BASE64}]} or {"inputs": [BASE64]}'
        )
    found = given.encode() if isinstance(given, str) else bytes(given)
    if not found.isascii():  # a file of a known format has other bytes than those of text
        return found
    try:
        return b64decode(b"".join(found.split()), validate=True)
    except ValueError:
        return found
