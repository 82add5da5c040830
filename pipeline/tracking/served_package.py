"""An exported query encoder as an MLflow model, which `mlflow models serve` serves."""

import re
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.tracking.store import set_up_mlflow

SERVED_PACKAGE = "l2s_query_encoder"
SERVED_FILES = (
    "datasets/colour.py",
    "datasets/decode.py",
    "datasets/picture_files.py",
    "models/query_encoder.py",
    "tracking/served_encoder.py",
)
# MLflow loads the model by a function of this name.
_LOADER = f'''"""How MLflow loads the query encoder."""

from pathlib import Path

from {SERVED_PACKAGE}.query_encoder import QueryEncoder
from {SERVED_PACKAGE}.served_encoder import ServedEncoder


def _load_pyfunc(path: str) -> ServedEncoder:
    return ServedEncoder(QueryEncoder(Path(path)).encode)
'''
# What the served code imports, and what MLflow's server needs beside it.
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow")


def write_served_package(folder: Path) -> Path:
    """Copy the code that serving needs into a package of its own in `folder`; returns the package.

    The imports of this repository, all among these files, are turned to the package.
    """
    package = folder / SERVED_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""The query encoder of large-to-small."""\n')
    (package / "loader.py").write_text(_LOADER)
    for name in SERVED_FILES:
        path = Path(__file__).parents[1] / name
        ours, served = r"from pipeline\.\w+\.(\w+) import", rf"from {SERVED_PACKAGE}.\1 import"
        text = re.sub(ours, served, path.read_text(encoding="utf-8"))
        (package / path.name).write_text(text, encoding="utf-8")
    return package


def save_served_model(
    folder: Path, onnx: Path, dim: int
) -> Callable[[Sequence[bytes]], np.ndarray]:
    """Write the model: a table with the column `image` (bytes of a JPEG or PNG) to unit vectors.

    Gives it back as `load_served_model` does. MLflow keeps the code it is served with, and a grey
    picture as the example of a request, beside it. Its warnings of its own type hints and of its
    own use of pandas are not shown.
    """
    picture = BytesIO()
    Image.new("RGB", (8, 8), "grey").save(picture, format="PNG")
    set_up_mlflow()
    with TemporaryDirectory() as code, warnings.catch_warnings(action="ignore"):
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema, TensorSpec

        package = write_served_package(Path(code))
        mlflow.pyfunc.save_model(
            folder,
            loader_module=f"{package.name}.loader",
            data_path=str(onnx),
            code_paths=[str(package)],
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.binary, "image")]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dim))]),
            ),
            input_example=pd.DataFrame({"image": [picture.getvalue()]}),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )
    return load_served_model(folder)


def load_served_model(folder: Path) -> Callable[[Sequence[bytes]], np.ndarray]:
    """Load the model as a server would; the result embeds encoded pictures."""
    set_up_mlflow()
    with warnings.catch_warnings(action="ignore"):  # as above
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(str(folder))

    def embed(pictures: Sequence[bytes]) -> np.ndarray:
        return np.asarray(model.predict(pd.DataFrame({"image": list(pictures)})))

    return embed
