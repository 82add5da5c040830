"""Networks on disk: weights as safetensors, with what is needed to build them again."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.config.recipes import LIBRARY_WEIGHTS
from pipeline.files import replacing
from pipeline.models.backbones import Colour, build_backbone
from pipeline.models.embedder import Embedder


@dataclass(frozen=True)
class NetworkCard:
    """How to build a saved network again, and at which side of the image it was trained.

    `mean` and `std` normalise its input; None: those of the backbone.
    """

    backbone: str
    dim: int
    size_px: int
    mean: Colour | None = None
    std: Colour | None = None


def weights_files(weights: str) -> tuple[Path, ...]:
    """The file that a network starts from, or none: an input that its training depends on."""
    return (Path(weights),) if weights.endswith(".safetensors") else ()


def weights_fault(weights: str) -> str | None:
    """What `weights` must be, or None where it is that."""
    if weights in LIBRARY_WEIGHTS or weights_files(weights):
        return None
    return f"must be {', '.join(LIBRARY_WEIGHTS)} or the path of a .safetensors file"


def build_embedder(
    backbone: str,
    dim: int,
    *,
    weights: str,
    seed: int,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Embedder:
    """A new embedder; what `weights` does not bring is drawn from `seed`.

    weights: "random", "pretrained" (the library's, downloaded once) or the path of a .safetensors
    file. mean, std: of the input, in place of the backbone's own. The global random state is left
    as it was. Raises ValueError for a backbone or a file that cannot be used.
    """
    if fault := weights_fault(weights):
        raise ValueError(f"weights = {weights!r}: {fault}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        file = next(iter(weights_files(weights)), None)
        built = build_backbone(backbone, pretrained=weights == "pretrained", weights_file=file)
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
    """The card of a saved network, without its weights."""
    with safe_open(path, framework="pt") as file:
        fields: dict[str, Any] = json.loads(file.metadata()["card"])
    colours = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return NetworkCard(**(fields | colours))


def load_network(path: Path, device: torch.device) -> tuple[Embedder, NetworkCard]:
    """Build a saved network, ready for inference on `device`."""
    card = read_card(path)
    network = build_embedder(
        card.backbone, card.dim, weights="random", seed=0, mean=card.mean, std=card.std
    )
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return network.to(device).eval().requires_grad_(False), card
