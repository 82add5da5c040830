"""An exported query encoder as an MLflow model, which `mlflow models serve` serves."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.tracking.store import silence_mlflow

SERVED_PACKAGE = "l2s_query_encoder"
SERVED_MODULES = (
    "pipeline.datasets.decode",
    "pipeline.models.query_encoder",
    "pipeline.tracking.served_encoder",
)
# MLflow loads the model by a function of this name.
_LOADER = f'''"""How MLflow loads the query encoder."""

from pathlib import Path

from {SERVED_PACKAGE}.query_encoder import QueryEncoder
from {SERVED_PACKAGE}.served_encoder import ServedEncoder


def _load_pyfunc(path: str) -> ServedEncoder:
    return ServedEncoder(QueryEncoder(Path(path)))
'''
# What the served code imports, and what MLflow's server needs beside it.
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow")


def write_served_package(folder: Path) -> Path:
    """Copy the code that serving needs into a package of its own in `folder`; returns the package.

    The imports of this repository, all among these modules, are turned to the package.
    """
    package = folder / SERVED_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""The query encoder of large-to-small."""\n')
    (package / "loader.py").write_text(_LOADER)
    for module in SERVED_MODULES:
        spec = find_spec(module)
        assert spec is not None, f"{module} is of this repository"
        assert spec.origin is not None, f"{module} is a file"
        text = Path(spec.origin).read_text(encoding="utf-8")
        for other in SERVED_MODULES:
            served = f"{SERVED_PACKAGE}.{other.rpartition('.')[2]}"
            text = text.replace(f"from {other} import", f"from {served} import")
        assert "from pipeline" not in text, f"{module} imports what is not served"
        (package / f"{module.rpartition('.')[2]}.py").write_text(text, encoding="utf-8")
    return package


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """No telemetry, and no warnings of MLflow's own type hints and its own use of pandas."""
    silence_mlflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_quiet_mlflow()
def save_served_model(folder: Path, onnx: Path, package: Path, dim: int) -> None:
    """Write the model: a table with the column `image` (bytes of a JPEG or PNG) to unit vectors.

    package: the code it is served with, by `write_served_package`.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dim))]),
    )
    mlflow.pyfunc.save_model(
        folder,
        loader_module=f"{package.name}.loader",
        data_path=str(onnx),
        code_paths=[str(package)],
        signature=signature,
        input_example=pd.DataFrame({"image": [_example_picture()]}),
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
    )


def _example_picture() -> bytes:
    """A grey PNG file, for the example of a request that MLflow keeps beside the model."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "grey").save(buffer, format="PNG")
    return buffer.getvalue()


@_quiet_mlflow()
def load_served_model(folder: Path) -> Callable[[Sequence[bytes]], np.ndarray]:
    """Load the model as a server would; the result embeds encoded pictures."""
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder))

    def embed(pictures: Sequence[bytes]) -> np.ndarray:
        return np.asarray(model.predict(pd.DataFrame({"image": list(pictures)})))

    return embed
