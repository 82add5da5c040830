"""The losses that params.yaml can name, each with its own values."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.sources import Model

Neighbours = Annotated[int, Field(ge=2)]
Sought = Literal["batch", "bank"]  # where neighbours are; a bank: all training images
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TripletsLoss(Model):
    kind: Literal["triplets"]
    margin: Rate
    negatives_per_anchor: Annotated[int, Field(gt=0)]
    negative_pool: Literal["dataset", "batch"]
    distance_floor: Annotated[float, Field(gt=0, lt=2)]


class NormalisedSoftmaxLoss(Model):
    kind: Literal["normalised_softmax"]
    temperature: Rate
    proxy_rate: Rate


class ProxyAnchorLoss(Model):
    kind: Literal["proxy_anchor"]
    margin: Weight
    alpha: Rate
    proxy_rate: Rate


class MultiSimilarityLoss(Model):
    kind: Literal["multi_similarity"]
    alpha: Rate
    beta: Rate
    base: Annotated[float, Field(ge=-1, le=1)]


LabelLoss = NormalisedSoftmaxLoss | ProxyAnchorLoss | MultiSimilarityLoss
TeacherLoss = Annotated[TripletsLoss | LabelLoss, Field(discriminator="kind")]


class AbsoluteLoss(Model):
    kind: Literal["absolute"]


class RamlLoss(Model):
    kind: Literal["raml", "raml_batch"]
    lambda_ts: Weight
    lambda_ss: Weight


class CsdLoss(Model):
    kind: Literal["csd"]
    neighbours: Neighbours
    student_temperature: Rate
    teacher_temperature: Rate
    gallery: Sought = "batch"


class RopLoss(Model):
    kind: Literal["rop"]
    neighbours: Neighbours
    temperature: Rate
    rank_weight: Weight
    gallery: Sought = "batch"


class D3stillLoss(Model):
    kind: Literal["d3still"]
    neighbours: Annotated[int, Field(ge=3)]
    alpha: Weight
    beta: Weight
    gamma: Weight
    gallery: Sought = "batch"


class RkdLoss(Model):
    kind: Literal["rkd"]
    distance_weight: Weight
    angle_weight: Weight


class AnchorsLoss(Model):
    kind: Literal["anchors"]
    centroids: Annotated[int, Field(ge=2)]
    temperature: Rate
    absolute_weight: Weight


DistillationLoss = Annotated[
    AbsoluteLoss | RamlLoss | CsdLoss | RopLoss | D3stillLoss | RkdLoss | AnchorsLoss,
    Field(discriminator="kind"),
]


def least_images(loss: DistillationLoss) -> int:
    """How many images a batch needs for what the loss compares; 1 where it compares no images."""
    match loss:
        case CsdLoss() | RopLoss() | D3stillLoss() if loss.gallery == "batch":
            return loss.neighbours + 1
        case RamlLoss(kind="raml_batch"):
            return 2
        case RkdLoss():
            return 3  # two of them alone have one distance, which is its own mean
    return 1
