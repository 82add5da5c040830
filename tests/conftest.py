"""What every test may rely on: one thread, checked shapes, and the files shared by all machines."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

# Before any import of the modules: calls whose tensors break the annotated shapes raise
# TypeCheckError. `training.loop` is left out: beartype cannot check its plain Protocol.
CHECKED = (
    "pipeline.views.coupled",
    "pipeline.datasets.packs",
    "pipeline.training.samplers",
    "pipeline.views.evaluation",
    "pipeline.models",
    "pipeline.embedding",
    "pipeline.evaluation.agreement",
    "pipeline.evaluation.cost",
    "pipeline.evaluation.ranking",
    "pipeline.evaluation.ranks",
    "pipeline.search.index",
    "pipeline.training.distillation",
    "pipeline.training.losses",
    "pipeline.training.metric_learning",
    "pipeline.training.triplet",
)
# The second argument is an expression; with the tower an int is a float, as for every type checker.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook(CHECKED, CHECKER)

import torch  # noqa: E402  (the hook comes first)

SETTINGS = ("L2S_DEBUG", "L2S_DEVICE", "L2S_ARCHIVES", "L2S_TORCHRUN", "MLFLOW_TRACKING_URI")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Other people compute on this machine too, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_stray_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell change no test."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert "L2S_DEBUG" not in os.environ


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """The library as its users have it: what it refuses, it refuses in its own words."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference figures and sample data, which only some machines have."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not on this machine")
    return SHARED
