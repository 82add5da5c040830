"""Networks on disk: weights as safetensors, with what is needed to build them again."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from pipeline.config import LIBRARY_WEIGHTS
from pipeline.files import replacing
from pipeline.models import WeightsError
from pipeline.models.backbones import Colour, Pooling, build_backbone
from pipeline.models.embedder import Embedder
from pipeline.models.packaged_weights import packaged_file

MAX_SIZE_PX = 1024  # twice what the paper uses; the work of a picture grows with its square
HEADS_BYTES = 512 << 20  # of a library's network whose head, up to 410 MB of VGG, is cut off


class NotFiniteError(ValueError):
    """The weights of a network hold NaN or infinite numbers."""


@dataclass(frozen=True)
class NetworkCard:
    """How to build a saved network again, and at which side of the image it was trained.

    `mean` and `std` normalise its input; None: those of the backbone. Without a `projection` its
    `dim` is the backbone's number of channels.
    """

    backbone: str
    dim: int
    size_px: int
    mean: Colour | None = None
    std: Colour | None = None
    pooling: Pooling = "gem"
    projection: bool = True


def starting_file(backbone: str, weights: str) -> Path | None:
    """The file that a network starts from, or None. Raises WeightsError for a missing package."""
    if weights == "package":
        return packaged_file(backbone)
    return Path(weights) if weights.endswith(".safetensors") else None


def weights_fault(weights: str) -> str | None:
    """What `weights` must be, or None where it is that."""
    if weights in LIBRARY_WEIGHTS or weights.endswith(".safetensors"):
        return None
    return f"must be {', '.join(LIBRARY_WEIGHTS)} or the path of a .safetensors file"


def build_embedder(
    backbone: str,
    dim: int | None,
    *,
    weights: str,
    seed: int,
    mean: Colour | None = None,
    std: Colour | None = None,
    pooling: Pooling = "gem",
) -> Embedder:
    """A new embedder; what `weights` does not bring is drawn from `seed`.

    dim: None for no projection. weights: "random", "pretrained" (the library's, downloaded once),
    "package" (the same out of a package) or the path of a .safetensors file. mean, std: of the
    input, in place of the backbone's own. The global random state is left as it was. Raises
    ValueError for a backbone or a file that cannot be used.
    """
    if fault := weights_fault(weights):
        raise ValueError(f"weights = {weights!r}: {fault}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        file = starting_file(backbone, weights)
        built = build_backbone(
            backbone, pretrained=weights == "pretrained", weights_file=file, pooling=pooling
        )
        network = Embedder(replace(built, mean=mean or built.mean, std=std or built.std), dim)
    return network.to(memory_format=torch.channels_last)


def save_network(path: Path, network: Embedder, card: NetworkCard) -> None:
    """Write weights and card into one safetensors file; equal weights give equal bytes."""
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"card": json.dumps(asdict(card), sort_keys=True)})


def read_card(path: Path) -> NetworkCard:
    """The card of a saved network, without its weights.

    Raises ValueError for a file that is no network of this program, or a card that no training of
    ours writes: it decides what is built, and how much is computed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = _parse_card(file.metadata()["card"])
            weight = file.get_slice("projection.weight") if card.projection else None
        if weight and card.dim != (dim := weight.get_shape()[0]):
            raise ValueError(f"size mismatch: dim is {card.dim}, the projection gives {dim}")
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise _refusal(path, error) from error
    return card


def _parse_card(text: str) -> NetworkCard:
    """The card that a file holds as JSON. Raises TypeError or ValueError for what is none."""
    fields: Any = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError(f"its card is {text[:40]}")
    if kind := fields.get("kind"):
        raise ValueError(f"it is a teacher of kind {kind!r}")
    colours = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    card = NetworkCard(**(fields | colours))
    numbers = [*(card.mean or (0, 0, 0)), *(card.std or (0, 0, 0))]
    if not (
        isinstance(card.backbone, str)
        and type(card.dim) is type(card.size_px) is int
        and 1 <= card.size_px <= MAX_SIZE_PX
        and card.pooling in get_args(Pooling)
        and type(card.projection) is bool
        and len(numbers) == 6
        and all(0 <= number <= 1 for number in numbers)
    ):
        raise ValueError(f"its card says {text}: size_px is 1 to {MAX_SIZE_PX}, colours 0 to 1")
    return card


def _refusal(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path}: is not a network of this program ({reason})")


def load_network(path: Path, device: torch.device) -> tuple[Embedder, NetworkCard]:
    """Build a saved network, ready for inference on `device`.

    Raises ValueError as `read_card` does, for a network that its file cannot hold, and for weights
    that are not finite, or those of another network.
    """
    card = read_card(path)
    with _NoMoreThan(path.stat().st_size + HEADS_BYTES):
        network = build_embedder(
            card.backbone,
            card.dim if card.projection else None,
            weights="random",
            seed=0,
            mean=card.mean,
            std=card.std,
            pooling=card.pooling,
        )
    if not card.projection and card.dim != network.channels:
        fault = f"dim is {card.dim}, {card.backbone} gives {network.channels}"
        raise _refusal(path, WeightsError(fault))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, weights in state.items():
        if weights.is_floating_point() and not weights.isfinite().all():
            raise NotFiniteError(
                f"{path}: {name} holds numbers that are not finite: train it again"
            )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _refusal(path, error) from error
    return network.to(device).eval().requires_grad_(False), card


class _NoMoreThan(TorchFunctionMode):
    """Within it no more than so many bytes of weights are made."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._left_bytes = limit_bytes

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        # What every layer's weights start as, before they are filled.
        self._left_bytes -= made.nbytes if function is torch.empty else 0
        if self._left_bytes < 0:
            raise WeightsError("a file of this size cannot hold the network of its card")
        return made
