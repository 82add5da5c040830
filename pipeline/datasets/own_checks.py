"""Whether a study can be made of the user's own images, told before any of them is decoded."""

from collections import Counter
from pathlib import Path

from pipeline.config.params import ConfigurationError, Dataset, Params
from pipeline.config.sources import OwnSource
from pipeline.datasets.own_images import list_own_images
from pipeline.datasets.packs import LEAST_IMAGES, validating_units, validation_fault
from pipeline.datasets.reader import DatasetError, DatasetReader
from pipeline.datasets.splits import assign_reader, known_classes
from pipeline.paths import DatasetPaths

_RULE = (
    "a class, or without classes an image, trains or is for testing by a hash of its name, half "
    "and half at first, and stays so; "
    "a column `split` in a table decides instead"
)


def check_own_images(params: Params) -> None:
    """Look through the folders and tables of params.yaml.

    Raises ConfigurationError with everything that a stage would refuse later.
    """
    faults = []
    for name, dataset in params.datasets.items():
        if not isinstance(dataset.source, OwnSource):
            continue
        given = params.inputs[name]
        try:
            reader = list_own_images(Path(given), dataset.source)
            reader = assign_reader(given, reader, known_classes(DatasetPaths(name)), {})
        except (DatasetError, OSError) as error:
            faults.append(f"inputs.{name} = {given!r}: {error}")
            continue
        faults += class_faults(name, dataset, reader)
    if faults:
        raise ConfigurationError(Path("params.yaml"), faults)


def class_faults(name: str, dataset: Dataset, reader: DatasetReader) -> list[str]:
    """Which classes are too few, or too small, for training, validation and evaluation.

    Without classes: whether the images of a split are too few.
    """
    train, test = (
        Counter(image.unit for image in reader.images if image.split == split)
        for split in ("train", "test")
    )
    share, is_labelled = dataset.validation_share, bool(reader.images[0].class_name)
    least = 2 if is_labelled else LEAST_IMAGES
    held_out, is_enough = validating_units(list(train), reader.positions, share, least)
    fitting = [size for class_name, size in train.items() if class_name not in held_out]
    pairs = sum(size > 1 for size in fitting)
    faults = []
    if not is_enough:
        faults.append(
            f"datasets.{name}.validation_share = {share:g}: "
            f"{validation_fault(len(held_out), len(train), is_labelled=is_labelled)}"
        )
    if not is_labelled and dataset.teacher.kind == "trained":
        faults.append(
            f"datasets.{name}.teacher.kind = 'trained': must be frozen, onnx or vectors, since the "
            "images have no classes to train with"
        )
    if not is_labelled:
        if len(test) < LEAST_IMAGES:
            faults.append(
                f"inputs.{name}: {len(test)} images are for testing: {LEAST_IMAGES} are the least, "
                f"so that each can find its ten nearest; {_RULE}"
            )
        return faults
    if is_enough and pairs < 2:
        faults.append(
            f"inputs.{name}: {len(fitting)} classes are left to train on, of which {pairs} have "
            f"two images or more: two such classes are the least; {_RULE}"
        )
    if not any(size > 1 for size in test.values()):
        faults.append(
            f"inputs.{name}: none of the {len(test)} test classes has a second image, so that no "
            f"query could find anything; {_RULE}"
        )
    return faults
