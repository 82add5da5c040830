"""Whether a study can be made of the user's own images, told before any of them is decoded."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.params import ConfigurationError, Dataset, Params
from pipeline.config.sources import CsvSource, FolderSource
from pipeline.datasets.own_images import list_own_images
from pipeline.datasets.packs import validating_classes
from pipeline.datasets.reader import DatasetError, DatasetReader, enumerate_names
from pipeline.datasets.splits import known_classes
from pipeline.paths import DatasetPaths

_RULE = (
    "a class trains or is for testing by a hash of its name, half and half at first, and stays so; "
    "a column `split` in a table decides instead"
)


def check_own_images(params: Params, path: Path = Path("params.yaml")) -> list[str]:
    """Look through the folders and tables of params.yaml; lines that the user should know.

    Raises ConfigurationError with everything that a stage would refuse later.
    """
    faults, lines = [], []
    for name, dataset in params.datasets.items():
        source = dataset.source
        if not isinstance(source, FolderSource | CsvSource):
            continue
        given = Path(params.inputs[name])
        table = source.table if isinstance(source, CsvSource) else None
        try:
            known = known_classes(DatasetPaths(name), contents=False)
            reader = list_own_images(given, table, known)
        except (DatasetError, OSError) as error:
            faults.append(f"inputs.{name} = {str(given)!r}: {error}")
            continue
        faults += class_faults(name, dataset, reader)
        lines += lone_images(name, reader)
    if faults:
        raise ConfigurationError(path, faults)
    return lines


def class_faults(name: str, dataset: Dataset, reader: DatasetReader) -> list[str]:
    """Which classes are too few, or too small, for training, validation and evaluation."""
    sizes = _sizes(reader)
    train, test = sizes["train"], sizes["test"]
    place, share = f"inputs.{name}", dataset.validation_share
    held_out, is_enough = validating_classes(list(train), reader.positions, share)
    fitting = [size for class_name, size in train.items() if class_name not in held_out]
    faults = []
    if not is_enough:
        faults.append(
            f"datasets.{name}.validation_share = {share:g}: {len(held_out)} of {len(train)} "
            "training classes would validate, and both sides need two: "
            + _share_remedy([reader.positions[class_name] for class_name in train])
        )
    elif sum(size > 1 for size in fitting) < 2:
        faults.append(
            f"{place}: {len(fitting)} classes are left to train on, of which "
            f"{sum(size > 1 for size in fitting)} have two images or more: two such classes are "
            f"the least; {_RULE}"
        )
    if not any(size > 1 for size in test.values()):
        faults.append(
            f"{place}: none of the {len(test)} test classes has a second image, so that no query "
            f"could find anything; {_RULE}"
        )
    return faults


def lone_images(name: str, reader: DatasetReader) -> list[str]:
    """A line for the classes of one image, which take no part in some things."""
    sizes = _sizes(reader)
    lines = []
    for split, what in (
        ("train", "its image has no positive, and no batch of the teacher holds it"),
        ("test", "its image can be found, and is no query"),
    ):
        lone = [class_name for class_name, size in sizes[split].items() if size == 1]
        if lone:
            lines.append(
                f"{name}: {len(lone)} {split} classes have one image ({enumerate_names(lone)}): "
                f"{what}"
            )
    return lines


def _sizes(reader: DatasetReader) -> Mapping[str, Any]:
    """Images of each class by split, in the order of the reader."""
    return {
        split: Counter(image.class_name for image in reader.images if image.split == split)
        for split in ("train", "test")
    }


def _share_remedy(positions: list[float]) -> str:
    """A share between those that hold out two and three classes, where two more are left."""
    zero = "0 turns validation off"
    if len(positions) < 4:
        return zero
    third, second = sorted(positions)[-3:-1]
    return f"{1 - (second + third) / 2:.3g} would hold out two; {zero}"
