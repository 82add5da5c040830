"""A teacher that is an ONNX file: kept whole in one file of this program, run by ONNX Runtime."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.files import replacing
from pipeline.models.backbones import Colour
from pipeline.models.onnx_refusals import onnx_refusals
from pipeline.models.weights import MAX_SIZE_PX
from pipeline.teachers.onnx_file import onnx_cost, onnx_file, read_onnx

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_CONTENT = "onnx"


@dataclass(frozen=True)
class OnnxCard:
    """What an ONNX teacher takes: ((pixel - mean) / std) * white of pixels between 0 and 1.

    `fixed_px` and `fixed_batch`: the only size and the only number of images that it takes, None
    where it takes any. `output`: the name of the vectors among what it gives.
    """

    backbone: str
    dim: int
    size_px: int
    layout: Literal["channels_first", "channels_last"]
    channels: Literal["rgb", "bgr"]
    white: int
    mean: Colour
    std: Colour
    output: str
    fixed_px: int | None
    fixed_batch: int | None
    kind: str = "onnx"


class OnnxNetwork:
    """An open ONNX file: images between 0 and 1 to unit vectors, on the CPU."""

    def __init__(self, content: bytes, card: OnnxCard, session: Any) -> None:
        self.card = card
        self._content = content
        self._session = session
        given = session.get_inputs()[0]
        self._input, self._type = given.name, _TYPES[given.type]
        self._mean, self._std = (torch.tensor(c).view(3, 1, 1) for c in (card.mean, card.std))

    def __call__(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch dim"]:
        values = (images.cpu() - self._mean) / self._std * self.card.white
        if self.card.channels == "bgr":
            values = values.flip(1)
        if self.card.layout == "channels_last":
            values = values.permute(0, 2, 3, 1)
        if self._type == np.uint8:
            values = values.round().clamp(0, 255)
        array = np.ascontiguousarray(values.numpy().astype(self._type))
        batches = np.split(array, len(array)) if self.card.fixed_batch == 1 else [array]
        parts = [self._session.run([self.card.output], {self._input: one})[0] for one in batches]
        return normalize(torch.from_numpy(np.concatenate(parts)).float()).to(images.device)

    def takes(self, size_px: int) -> bool:
        """Whether it embeds images of `size_px`, tried where its input does not say: a graph may
        declare any size and hold position embeddings of one.
        """
        if self.card.fixed_px is not None:
            return self.card.fixed_px == size_px
        try:
            return self(torch.zeros(1, 3, size_px, size_px)).shape == (1, self.card.dim)
        except onnx_refusals():
            return False

    def cost(self, size_px: int) -> dict[str, float | None]:
        """What one image of `size_px` costs, as `onnx_cost` counts it."""
        return onnx_cost(self._content, size_px)


def read_onnx_teacher(
    given: Path,
    *,
    size_px: int,
    layout: Literal["channels_first", "channels_last"],
    channels: Literal["rgb", "bgr"],
    white: int,
    mean: Colour,
    std: Colour,
    output: str | None,
) -> tuple[bytes, OnnxCard]:
    """An ONNX file, or the one of a folder, whole, and its card, after it has embedded an image of
    `size_px`; the other arguments are those of params.yaml.

    Raises ValueError as `read_onnx`, and for a file that ONNX Runtime does not run, that takes
    other images, or that gives no vectors.
    """
    what = str(onnx_file(given))
    content = read_onnx(given)
    session = _opened(content, what)
    shape = _checked_input(session, what, size_px, layout)
    names = [one.name for one in session.get_outputs()]
    if output is None and len(names) == 1:
        output = names[0]
    if output is None or output not in names:
        listed = ", ".join(names)
        raise ValueError(
            f"{what}: which output gives the vectors? teacher.output must be: {listed}"
        )
    sides = shape[2:] if layout == "channels_first" else shape[1:3]
    card = OnnxCard(
        backbone=f"onnx/{Path(what).stem}",
        dim=0,
        size_px=size_px,
        layout=layout,
        channels=channels,
        white=white,
        mean=mean,
        std=std,
        output=output,
        fixed_px=size_px if any(isinstance(side, int) for side in sides) else None,
        fixed_batch=1 if shape[0] == 1 else None,
    )
    return content, replace(card, dim=_dim_of(OnnxNetwork(content, card, session), what))


def _dim_of(network: OnnxNetwork, what: str) -> int:
    """The length of the vectors of two images. Raises ValueError where these are none."""
    px = network.card.size_px
    try:
        vectors = network(torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(0)))
    except onnx_refusals() as error:
        raise ValueError(f"{what}: does not embed an image of {px} px: {_reason(error)}") from error
    if vectors.ndim != 2 or len(vectors) != 2:
        raise ValueError(
            f"{what}: output {network.card.output} is {list(vectors.shape)} of two images: must be "
            "[image, number]"
        )
    if not vectors.isfinite().all():
        raise ValueError(f"{what}: gives numbers that are not finite")
    return vectors.shape[1]


def _checked_input(session: Any, what: str, size_px: int, layout: str) -> list[int | str | None]:
    """The shape of the only input. Raises ValueError for one that is no batch of such images."""
    if size_px > MAX_SIZE_PX:
        raise ValueError(f"{what}: teacher_px = {size_px} must be at most {MAX_SIZE_PX}")
    inputs = session.get_inputs()
    listed = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
        raise ValueError(
            f"{what}: takes {listed}: must be one batch of images, of float32, float16 or uint8"
        )
    shape: list[int | str | None] = inputs[0].shape
    channel, *sides = (
        (shape[1], *shape[2:]) if layout == "channels_first" else (shape[3], *shape[1:3])
    )
    if isinstance(channel, int) and channel != 3:
        raise ValueError(
            f"{what}: takes {listed}, not 3 channels as teacher.layout = {layout!r} says"
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ValueError(f"{what}: takes {shape[0]} images at a time: must be one, or any number")
    if any(isinstance(side, int) and side != size_px for side in sides):
        raise ValueError(
            f"{what}: takes images of {sides[0]} x {sides[1]} pixels: teacher_px = {size_px} must "
            "be its size"
        )
    return shape


def save_onnx_teacher(path: Path, content: bytes, card: OnnxCard) -> None:
    """Write an ONNX file and its card into one safetensors file."""
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    metadata = {"card": json.dumps(asdict(card), sort_keys=True)}
    with replacing(path) as temporary:
        save_file({_CONTENT: values}, temporary, metadata=metadata)


def open_onnx_teacher(path: Path) -> tuple[OnnxNetwork, OnnxCard]:
    """What `save_onnx_teacher` wrote, ready to run. Raises ValueError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads(file.metadata()["card"])
            content = file.get_tensor(_CONTENT).numpy().tobytes()
        colours = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        card = OnnxCard(**(fields | colours))
        if not 1 <= card.size_px <= MAX_SIZE_PX:
            raise ValueError(f"size_px is {card.size_px}, not 1 to {MAX_SIZE_PX}")
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is no ONNX teacher of this program ({error})") from error
    return OnnxNetwork(content, card, _opened(content, str(path))), card


def _opened(content: bytes, what: str) -> Any:
    """A session of as many threads as PyTorch's. Raises ValueError for what cannot be run."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{what}: needs {error.name}, which is not installed: pip install "
            "'large-to-small[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is refused is told in our words
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except onnx_refusals() as error:
        raise ValueError(f"{what}: ONNX Runtime refuses it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
