"""The query encoder as MLflow's server calls it; a copy of this file is in every export."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException


class ServedEncoder:
    """Answers a table whose column `image` holds the bytes of a picture a row.

    encode: embeds encoded pictures: that of `pipeline.models.query_encoder.QueryEncoder`.
    """

    def __init__(self, encode: Callable[[Sequence[bytes]], np.ndarray]) -> None:
        self.encode = encode

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Unit vectors, a row a picture. What is no picture is refused with HTTP 400."""
        try:
            return self.encode(list(model_input["image"]))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
