"""The recipes of params.yaml: networks, augmentations, schedules, trainings."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from pipeline.config.losses import DistillationLoss, Rate, TeacherLoss, Weight
from pipeline.config.sources import Model

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
# YAML has lists; what is frozen holds tuples.
Colour = Annotated[tuple[Share, Share, Share], Strict(False)]
Deviation = Annotated[tuple[Rate, Rate, Rate], Strict(False)]
Spread = Annotated[float, Field(gt=0, le=1)]
UnitDeviation = Annotated[tuple[Spread, Spread, Spread], Strict(False)]  # of pixels from 0 to 1


class Network(Model):
    backbone: str
    weights: str
    batch_norm: Literal["live", "frozen"]
    pooling: Literal["gem", "native"] = "gem"
    dim: Positive
    mean: Colour | None = None
    std: UnitDeviation | None = None


class Augmentation(Model):
    crop_scale: Annotated[tuple[Share, Share], Strict(False)]
    flip_probability: Share
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Annotated[float, Field(ge=0, le=0.5)]


class Optimisation(Model):
    epochs: Positive
    learning_rate: Rate
    weight_decay: Weight
    warmup_share: Annotated[float, Field(gt=0, lt=1)]
    initial_division: Annotated[float, Field(ge=1)]


class TrainedTeacher(Model):
    kind: Literal["trained"]
    loss: TeacherLoss
    classes_per_batch: Annotated[int, Field(ge=2)]
    images_per_class: Annotated[int, Field(ge=2)]
    accumulation_steps: Positive
    optimisation: Optimisation
    augmentation: Augmentation


class DistillationRecipe(Model):
    loss: DistillationLoss
    images_per_batch: Positive
    views: Positive
    view_pairs: Literal["coupled", "independent"]
    accumulation_steps: Positive
    images_per_epoch: Positive | None
    mixup_alpha: Annotated[float, Field(ge=0, le=4)]  # beyond, draws are rejected for ever
    mixup_partner: Literal["dataset", "batch"]
    projection: Literal["random", "fitted"]
    offset: Literal["learned", "fitted"] = "learned"
    optimisation: Optimisation
    augmentation: Augmentation


class FrozenTeacher(Model):
    """The library's network as it is; `whitening`: how many dimensions its PCA keeps."""

    kind: Literal["frozen"]
    whitening: Positive | None = None
    whitening_images: Positive = 5000


class OnnxTeacher(Model):
    """How an ONNX file wants its images: ((pixel - mean) / std) * white of pixels between 0 and 1,
    mean and std being of red, green and blue. `output`: which of several, by its name.
    """

    kind: Literal["onnx"]
    layout: Literal["channels_first", "channels_last"]
    channels: Literal["rgb", "bgr"]
    white: Literal[1, 255]
    mean: Colour
    std: Deviation
    output: str | None = None


class VectorsTeacher(Model):
    """Stored vectors alone; `view`: how their images were made square."""

    kind: Literal["vectors"]
    view: Literal["cropped", "squashed"]


TeacherRecipe = Annotated[
    TrainedTeacher | FrozenTeacher | OnnxTeacher | VectorsTeacher, Field(discriminator="kind")
]
