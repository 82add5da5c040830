"""What params.yaml says of the place that a data set's images come from."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict


class Model(BaseModel):
    """A part of params.yaml: frozen, with known keys only, and strict about their types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# Pictures with a longer side are shrunk to it when they are packed; None: the stage's default.
LargestSide = Annotated[int, Field(ge=16)] | None
Address = Annotated[str, Field(pattern=r"^(s3|gs|memory)://[^/@?#]*/?$")]
Line = Annotated[str, Field(pattern=r"^[^\n<>|]{1,200}$")]  # of text, as cards show it
# Whether a test image that nearly shows the same as an image of another class, or without classes
# as a training image, stays in the test.
Duplicates = Literal["keep", "leave_out"]


class Licences(Model):
    """What is said of the licences of images and teacher's weights; None: as their sources say."""

    data: Line | None = None
    weights: Line | None = None


class EmblemsSource(Model):
    kind: Literal["emblems"]
    families: Annotated[int, Field(ge=2)]
    members: Annotated[int, Field(gt=0)]
    images_per_class: Annotated[int, Field(gt=0)]
    image_px: Annotated[int, Field(ge=16)]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    seed: Annotated[int, Field(ge=0)]


class PublishedSource(Model):
    kind: str
    layout: str
    archives: Literal["downloaded", "given"]
    accept_subset: bool
    skip_unreadable: bool
    largest_side_px: LargestSide = None
    near_duplicates: Duplicates = "keep"


class CubSource(PublishedSource):
    kind: Literal["cub200"]
    layout: Literal["cub"]


class CarsSource(PublishedSource):
    kind: Literal["cars196"]
    layout: Literal["cars_whole", "cars_halves", "cars_parquet"]


class SopSource(PublishedSource):
    kind: Literal["sop"]
    layout: Literal["sop", "sop_parquet"]


class OwnSource(Model):
    """The user's own images."""

    kind: str
    skip_unreadable: bool
    largest_side_px: LargestSide = None
    near_duplicates: Duplicates = "leave_out"


class FolderSource(OwnSource):
    kind: Literal["folder"]


class CsvSource(OwnSource):
    kind: Literal["csv"]
    table: Annotated[str, Field(min_length=1)]


class ImagesSource(OwnSource):
    """Images without classes, in a folder and its sub-folders."""

    kind: Literal["images"]


class TableSource(OwnSource):
    """Images by a table in the folder: `allow` names SCHEME://BUCKET of addresses to open."""

    kind: Literal["table"]
    table: Annotated[str, Field(min_length=1)]
    allow: Annotated[tuple[Address, ...], Strict(False)] = ()


class TarsSource(OwnSource):
    """Images in the tar shards of a folder."""

    kind: Literal["tars"]


Source = Annotated[
    EmblemsSource
    | CubSource
    | CarsSource
    | SopSource
    | FolderSource
    | CsvSource
    | ImagesSource
    | TableSource
    | TarsSource,
    Field(discriminator="kind"),
]


def input_fault(name: str, source: Model, *, given: bool) -> str | None:
    """What is wrong with there being, or not being, an entry of `inputs` for data set `name`."""
    entry, archives = f"inputs.{name}:", f"datasets.{name}.source.archives"
    match source:
        case EmblemsSource() if given:
            return f"{entry} emblems are rendered; they read no file"
        case OwnSource() if not given:
            return (
                f"{entry} is missing: must be the folder of the images "
                f"(`l2s select {name} --path FOLDER` writes it)"
            )
        case PublishedSource(archives="downloaded") if given:
            return f"{entry} is not read with {archives} = 'downloaded': must be given to be read"
        case PublishedSource(archives="given") if not given:
            return (
                f"{entry} is missing with {archives} = 'given': must be the archive or its folder"
            )
    return None


def emblems_faults(name: str, source: Source, share: float) -> list[str]:
    """Emblems are counted before any is rendered: too few classes to train on or to validate."""
    if not isinstance(source, EmblemsSource):
        return []
    classes = (source.families * source.members + 1) // 2  # every second one trains
    validating = round(share * classes)
    if share == 0 or 2 <= validating <= classes - 2:
        return []
    return [
        f"datasets.{name}.validation_share = {share:g}: {validating} of {classes} training "
        "classes would validate, and both sides need two (0 turns validation off)"
    ]
