"""Before a teacher is attached: it is opened for the preflight, and what is coming is estimated."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import Params
from pipeline.config.recipes import OnnxTeacher, VectorsTeacher
from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.datasets.reader import DatasetReader
from pipeline.datasets.vector_batches import Findings
from pipeline.embedding.preflight import IMAGES, Subject
from pipeline.embedding.preprocessing import Preprocessing
from pipeline.models.backbones import Colour, check_backbone
from pipeline.models.checks import size_fault
from pipeline.models.late_compiler import imported
from pipeline.models.torchvision_heads import NATIVE_PX
from pipeline.teachers.onnx_teacher import open_onnx_teacher, read_onnx_teacher, save_onnx_teacher
from pipeline.training.job import TrainingJob, new_network
from pipeline.views.coupled import DECODED_CACHE_BYTES

_TIMED = 16  # images
_BACKWARD = 3  # times a forward pass that one with its gradients takes
_BASE_BYTES = 1 << 30  # of the libraries and a batch


def teacher_on_trial(params: Params, name: str, device: torch.device) -> Subject | None:
    """The teacher of a data set as the stage train_teacher would write it; None for vectors alone.

    Raises ValueError for a network or file that cannot be used.
    """
    dataset = params.datasets[name]
    size_px = dataset.teacher_px
    if isinstance(dataset.teacher, VectorsTeacher):
        return None
    if isinstance(dataset.teacher, OnnxTeacher):
        wanted = dataset.teacher.model_dump(exclude={"kind"})
        read = read_onnx_teacher(Path(params.weights[name]), size_px=size_px, **wanted)
        with tempfile.TemporaryDirectory(prefix="l2s-attach-") as folder:
            save_onnx_teacher(Path(folder, "teacher"), *read)
            onnx, card = open_onnx_teacher(Path(folder, "teacher"))
        way = Preprocessing(size_px, card.mean, card.std)
        return Subject(onnx, way, device, onnx.takes)
    network, made = new_network(TrainingJob(params, "teacher", name, params.seeds[0]), None)
    network = network.eval().requires_grad_(False).to(device)
    mean, std = (_colour(values) for values in (network.mean, network.std))
    way = Preprocessing(size_px, mean, std)
    return Subject(network, way, device, lambda px: not size_fault(made.backbone, px, made.pooling))


def _colour(values: torch.Tensor) -> Colour:
    red, green, blue = values.flatten().tolist()
    return red, green, blue


def sampled_pictures(reader: DatasetReader, seed: int) -> list[tuple[str, bytes]]:
    """Up to 200 images, drawn at random, by their names; unreadable ones are left out.

    Raises ValueError where none is readable.
    """
    order = np.random.default_rng(seed).permutation(len(reader.images))[:IMAGES]
    pictures = []
    for place in np.sort(order).tolist():
        name = reader.images[place].name
        try:
            content = reader.read(name)
            decode_image(content, name)
        except UnreadableImage:
            continue
        pictures.append((name, content))
    if not pictures:
        raise ValueError(f"no image of {len(order)} that were tried is readable")
    return pictures


@dataclass(frozen=True)
class Estimate:
    """What the study will take, about: seconds, and bytes of disk and of memory."""

    seconds: float
    disk_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        minutes = self.seconds / 60
        took = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
        took = took if minutes >= 1.5 else "a minute"
        disk, memory = (f"{size / 1e9:.1f} GB" for size in (self.disk_bytes, self.memory_bytes))
        return f"about {took} on this machine as it is now, {disk} of disk, {memory} of memory"


def estimate(
    params: Params,
    name: str,
    pictures: list[tuple[str, bytes]],
    images: int,
    stored: Findings,
    subject: Subject | None,
) -> Estimate:
    """What the study of a data set takes, by what a few images took.

    pictures: a sample of its `images`. Half of these train, and each epoch sees `images_per_epoch`
    of them at most.
    """
    dataset, sample = params.datasets[name], pictures[:_TIMED]
    start = time.monotonic()
    sides = [decode_image(content, one).size for one, content in sample]
    decoding_s = (time.monotonic() - start) / len(sample)
    teacher_s = _forward_s(subject.encode, dataset.teacher_px, subject.device) if subject else 0.0
    seconds = 4 * images * decoding_s + images * teacher_s
    train = images // 2
    for key, student in params.students.items():
        recipe, px = params.student_distillation(key), student.query_px
        small_s = teacher_s * (px / dataset.teacher_px) ** 2 if subject else _own_s(params, key)
        seen = min(recipe.images_per_epoch or train, train) * recipe.optimisation.epochs
        seconds += seen * (decoding_s + recipe.views * (teacher_s + _BACKWARD * small_s))
        seconds += (images - train) * small_s
        seconds += 2 * min(params.evaluation.adapter_images, train) * teacher_s
    content_bytes = sum(len(content) for _, content in sample) // len(sample)
    numbers = stored.dim or dataset.network.dim
    vector_bytes = max(stored.rows, images) * numbers * 4
    pixels_bytes = 3 * sum(width * height for width, height in sides) // len(sample)
    return Estimate(
        seconds,
        images * content_bytes + 3 * vector_bytes,
        _BASE_BYTES + min(DECODED_CACHE_BYTES, train * pixels_bytes) + vector_bytes,
    )


def _own_s(params: Params, key: str) -> float:
    """Seconds that the network of a student takes for an image."""
    job = TrainingJob(params, "student", key, params.seeds[0])
    network, _ = new_network(job, job.network.dim)
    with torch.inference_mode():
        return _forward_s(network.eval(), job.size_px, torch.device("cpu"))


def native_px(backbone: str) -> int:
    """The side of the images that a library's network was trained with; 224 where it says none.

    Raises UnknownBackboneError for a network that there is not.
    """
    check_backbone(backbone)
    library, _, model = backbone.partition("/")
    if library == "torchvision":
        return NATIVE_PX.get(model, 224)
    config = imported("timm").get_pretrained_cfg(model)
    return int(config.input_size[-1]) if config else 224


def _forward_s(
    network: Callable[[torch.Tensor], torch.Tensor], size_px: int, device: torch.device
) -> float:
    """Seconds an image, of two batches the faster: the first one warms up."""
    images = torch.rand(4, 3, size_px, size_px, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(2):
            start = time.monotonic()
            network(images).sum().item()
            times.append((time.monotonic() - start) / len(images))
    return min(times)
