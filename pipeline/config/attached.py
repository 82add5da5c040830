"""What the preset `images` becomes for images, vectors and a teacher that are there already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PRESET = "images"
VECTORS = Path("vectors", PRESET)  # the stored vectors, read into the one form
_TABLES = (".parquet", ".arrow", ".feather", ".csv")
# Values of an ONNX teacher that -S or the preflight mend: those of most networks of PyTorch.
_ONNX = {
    "kind": "onnx",
    "layout": "channels_first",
    "channels": "rgb",
    "white": 1,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@dataclass(frozen=True)
class Attachment:
    """What is attached. `images`: a folder of images or of tar shards, or a table.

    teacher: timm/NAME or torchvision/NAME, a file *.onnx, or none, where the stored vectors are all
    that is known. weights: what the network starts from, the teacher's or that of other students.
    has_vectors: whether vectors are stored, which are the database then.
    """

    images: Path
    teacher: str
    query_px: tuple[int, ...]
    teacher_px: int
    weights: Literal["package", "pretrained"]
    has_vectors: bool


def is_network(teacher: str) -> bool:
    """Whether the teacher is a network of a library, by its name."""
    return teacher.startswith(("timm/", "torchvision/"))


def attached_values(given: Attachment) -> dict[str, Any]:
    """Values of the preset by the dotted paths of their keys.

    Raises ValueError for images that are no folder and no table, and for a teacher of no kind.
    """
    own = f"datasets.{PRESET}"
    folder, source = _source(given.images)
    values: dict[str, Any] = {
        f"inputs.{PRESET}": str(folder),
        f"{own}.teacher_px": given.teacher_px,
        f"{own}.network.weights": given.weights,
    }
    if source:
        values[f"{own}.source"] = source
    if given.has_vectors:
        values[f"vectors.{PRESET}"] = str(VECTORS)
    if is_network(given.teacher):
        values[f"{own}.network.backbone"] = given.teacher
        values[f"{own}.network.pooling"] = "native"
    else:
        values |= _file_teacher(given, own)
    values["students"] = {f"{PRESET}-{px}": _student(given, px) for px in given.query_px}
    return values


def _student(given: Attachment, query_px: int) -> dict[str, Any]:
    start = {"network": {"weights": "teacher"}} if is_network(given.teacher) else {}
    return {"dataset": PRESET, "query_px": query_px, **start}


def _source(images: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that DVC watches, and the source, empty where it is the preset's."""
    options = {"skip_unreadable": False, "near_duplicates": "leave_out"}
    if images.is_file() and images.suffix in _TABLES:
        return images.parent, {"kind": "table", "table": images.name, "allow": [], **options}
    if not images.is_dir():
        raise ValueError(
            f"--images {images}: must be a folder of images or of tar shards, or a table: "
            f"{', '.join(_TABLES)}"
        )
    return images, {"kind": "tars", **options} if any(images.glob("*.tar")) else {}


def _file_teacher(given: Attachment, own: str) -> dict[str, Any]:
    """The values of a teacher that is a file, or nothing but vectors."""
    if given.teacher.endswith(".onnx") or (
        given.teacher != "none" and Path(given.teacher).is_dir()
    ):
        return {f"weights.{PRESET}": given.teacher, f"{own}.teacher": _ONNX}
    if given.teacher != "none":
        raise ValueError(
            f"--teacher {given.teacher}: must be timm/NAME, torchvision/NAME, FILE.onnx, its "
            "folder, or none"
        )
    distillation = f"{own}.distillation"
    look = f"{distillation}.augmentation"
    return {
        f"{own}.teacher": {"kind": "vectors", "view": "cropped"},
        f"{distillation}.loss": {
            "kind": "anchors",
            "centroids": 256,
            "temperature": 0.1,
            "absolute_weight": 1.0,
        },
        # All views of an image have one vector: one view of four times as many images teaches more,
        # and bears a higher rate than the preset's. The head begins fitted.
        f"{distillation}.views": 1,
        f"{distillation}.images_per_batch": 16,
        f"{distillation}.optimisation.epochs": 24,
        f"{distillation}.optimisation.learning_rate": 3.0e-4,
        f"{distillation}.mixup_alpha": 0.0,
        # No vector is stored of an image in other colours, or of a small part of one.
        f"{look}.crop_scale": [0.8, 1.0],
        **{f"{look}.{one}": 0.0 for one in ("brightness", "contrast", "saturation", "hue")},
    }
