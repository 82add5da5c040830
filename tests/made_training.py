"""Networks, pictures and packs so small that a whole training takes a fraction of a second."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.reader import ImageRecord, Split
from pipeline.models.backbones import Backbone
from pipeline.models.embedder import Embedder
from pipeline.training.distillation import DistillationObjective
from pipeline.training.metric_learning import LabelledObjective, TripletObjective
from pipeline.training.named_losses import raml_terms
from pipeline.training.schedule import Schedule
from pipeline.views.coupled import ViewRecipe, cached_decoder
from pipeline.views.evaluation import image_tensor

CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
RAML = partial(raml_terms, lambda_ts=0.7, lambda_ss=0.7)
PLAIN = ViewRecipe(
    views=1, crop_scale=(1.0, 1.0), flip_probability=0.0, colour_ranges=(0.0, 0.0, 0.0, 0.0)
)
AUGMENTED = ViewRecipe(
    views=2,
    crop_scale=(0.3, 1.0),
    flip_probability=0.5,
    colour_ranges=(0.4, 0.4, 0.4, 0.1),
    mixup_alpha=0.2,
)
# Values of each loss, for batches of four images or more; `anchors` takes its centroids beside.
RELATIONS = {"lambda_ts": 0.5, "lambda_ss": 2.0}
LOSS_VALUES: dict[str, dict[str, float]] = {
    "absolute": {},
    "raml": RELATIONS,
    "raml_batch": RELATIONS,
    "csd": {"neighbours": 3, "student_temperature": 0.1, "teacher_temperature": 0.2},
    "rop": {"neighbours": 3, "temperature": 0.1, "rank_weight": 0.2},
    "d3still": {"neighbours": 3, "alpha": 1.0, "beta": 1.0, "gamma": 1.0},
    "rkd": {"distance_weight": 1.0, "angle_weight": 1.0},
    "anchors": {"temperature": 0.1, "absolute_weight": 1.0},
}


def tiny_embedder(*, seed: int = 0, dim: int = 8, batch_norm: bool = False) -> Embedder:
    """Two convolutions, with batch norm between them on demand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2, padding=1)]
        layers += [nn.BatchNorm2d(8)] if batch_norm else []
        layers += [nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
        return Embedder(Backbone(nn.Sequential(*layers), 16, HALF, HALF), dim)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def picture(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    """Smooth random colours: a coarse random grid, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def records(
    classes: int, images_per_class: int, *, train_classes: int | None = None, px: int = 24
) -> Iterator[ImageRecord]:
    """Images of a class share nothing but their label, unless a test gives them more."""
    for label in range(classes):
        split: Split = "train" if label < (train_classes or classes) else "test"
        for number in range(images_per_class):
            content = encoded(picture(1000 * label + number, px, px))
            yield ImageRecord(f"{label}/{number}.png", f"class {label}", split, content, px, px)


def made_pack(folder: Path, classes: int, images_per_class: int, **options: int) -> Pack:
    path = folder / "pack.arrow"
    write_pack(path, records(classes, images_per_class, **options))
    return open_pack(path)


def schedule(**changes: float | bool) -> Schedule:
    values = {
        "epochs": 3,
        "accumulation_steps": 1,
        "learning_rate": 1e-2,
        "weight_decay": 1e-6,
        "warmup_share": 0.3,
        "initial_division": 10.0,
        "batch_norm_frozen": False,
        "seed": 0,
    }
    return Schedule(**values | changes)


def triplet_objective(pack: Pack, **changes: object) -> TripletObjective:
    """Two classes x two images a batch at 16 px; the pool is embedded from the plain images."""
    rows = changes.get("rows", pack.rows("train"))

    def embed_pool(network: nn.Module) -> Tensor:
        images = torch.stack([image_tensor(pack.image(int(row))) for row in rows])
        with torch.no_grad():
            return network(images.float() / 255)

    recipe = {
        "classes_per_batch": 2,
        "images_per_class": 2,
        "margin": 0.7,
        "negatives_per_anchor": 2,
        "negative_pool": "dataset",
        "distance_floor": 0.5,
    }
    values: dict[str, object] = {
        "decode": cached_decoder(pack),
        "labels": pack.labels,
        "rows": rows,
        "size_px": 16,
        **recipe,
        "views": PLAIN,
        "embed_pool": embed_pool,
        "seed": 0,
        "device": CPU,
    }
    return TripletObjective(**values | changes)


def labelled_objective(
    pack: Pack, name: str, loss: nn.Module, **changes: object
) -> LabelledObjective:
    """Two classes x two images a batch at 16 px."""
    values: dict[str, object] = {
        "decode": cached_decoder(pack),
        "labels": pack.labels,
        "rows": pack.rows("train"),
        "size_px": 16,
        "classes_per_batch": 2,
        "images_per_class": 2,
        "name": name,
        "loss": loss,
        "views": PLAIN,
        "seed": 0,
        "device": CPU,
    }
    return LabelledObjective(**values | changes)


def distillation_objective(pack: Pack, teacher: nn.Module, **changes: object):
    """Four images a batch, from 24 px (teacher) to 16 px (student)."""
    recipe = {"images_per_batch": 4, "images_per_epoch": None, "loss": RAML}
    values: dict[str, object] = {
        "decode": cached_decoder(pack),
        "rows": pack.rows("train"),
        "teacher": teacher,
        "teacher_px": 24,
        "student_px": 16,
        **recipe,
        "views": AUGMENTED,
        "seed": 0,
        "device": CPU,
    }
    return DistillationObjective(**values | changes)


@dataclass
class Regression:
    """Mean squared error of a linear network on fixed rows: a loss whose gradients are known."""

    inputs: Tensor
    targets: Tensor
    batch_rows: list[list[int]]

    def batches(self, epoch: int) -> list[np.ndarray]:
        return [np.array(rows) for rows in self.batch_rows]

    def begin_epoch(self, epoch: int, network: nn.Module) -> None:
        """Nothing to prepare."""

    def load(self, epoch: int, number: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.inputs[rows], self.targets[rows]

    def terms(self, network: nn.Module, loaded: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        inputs, targets = loaded
        return {"squared": (network(inputs) - targets).square().mean()}


def equal_states(first: nn.Module, second: nn.Module) -> bool:
    """Bit-equality of all parameters and buffers, and that there are some."""
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    assert states[0]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])
