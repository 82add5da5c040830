"""The query encoder as MLflow's server calls it; a copy of this file is in every export."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException


class Encoder(Protocol):
    """What embeds encoded pictures: `pipeline.models.query_encoder.QueryEncoder`."""

    def encode(self, pictures: Sequence[bytes]) -> np.ndarray: ...


class ServedEncoder:
    """Answers a table whose column `image` holds the bytes of a picture a row."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Unit vectors, a row a picture. What is no picture is refused with HTTP 400."""
        try:
            return self.encoder.encode(list(model_input["image"]))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
