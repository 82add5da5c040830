"""What the named networks need of sizes and weights, checked before anything runs."""

from functools import lru_cache
from pathlib import Path

import torch

from pipeline.config.params import ConfigurationError, Params
from pipeline.config.recipes import Network
from pipeline.models.backbones import (
    Backbone,
    UnknownBackboneError,
    build_backbone,
    check_backbone,
)
from pipeline.models.feature_maps import LIBRARY_FAULTS, reason_of
from pipeline.models.local_weights import WeightsError
from pipeline.models.weights import LIBRARY_WEIGHTS, is_weights_file
from pipeline.paths import DatasetPaths


def check_networks(params: Params, path: Path = Path("params.yaml")) -> None:
    """Raise ConfigurationError with every fault of `network_faults`."""
    if faults := network_faults(params):
        raise ConfigurationError(path, faults)


def network_faults(params: Params) -> list[str]:
    """Every unknown backbone, every size that one cannot take, every file of weights not its own.

    A teacher takes the sizes of its students too: the naive rows feed it small images.
    """
    faults: dict[str, None] = {}
    for name, dataset in params.datasets.items():
        owner = f"datasets.{name}"
        wanted = {f"{owner}.teacher_px": dataset.teacher_px} | {
            f"students.{key}.query_px": student.query_px
            for key, student in params.students.items()
            if student.dataset == name and student.query_px < dataset.teacher_px
        }
        faults |= dict.fromkeys(_faults_of(owner, dataset.network, wanted))
    for key, student in params.students.items():
        owner = f"students.{key}"
        network = params.student_network(key)
        if network != params.datasets[student.dataset].network:
            wanted = {f"{owner}.query_px": student.query_px}
            faults |= dict.fromkeys(_faults_of(owner, network, wanted))
    return list(faults)


def check_downloads(params: Params, path: Path = Path("params.yaml")) -> None:
    """Fetch the library's weights of networks that are still to be trained, each once.

    So that a machine without a network is told so at once, and not by each training. Raises
    ConfigurationError that names the settings.
    """
    wanted: dict[str, list[str]] = {}
    for name, dataset in params.datasets.items():
        trained = {f"datasets.{name}": (dataset.network, DatasetPaths(name).teacher)} | {
            f"students.{key}": (params.student_network(key), DatasetPaths(name).student(key))
            for key, one in params.students.items()
            if one.dataset == name
        }
        for owner, (network, file) in trained.items():
            if network.weights == "pretrained" and not file.exists():
                wanted.setdefault(network.backbone, []).append(f"{owner}.network.weights")
    faults = []
    for backbone, keys in wanted.items():
        try:
            build_backbone(backbone, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:  # those of the libraries' downloads
            reason = reason_of(error)[:200]
            faults.append(
                f"{', '.join(keys)} = 'pretrained': the weights of {backbone} cannot be had "
                f"({reason}): name a .safetensors file of them, or random"
            )
    if faults:
        raise ConfigurationError(path, faults)


def size_fault(backbone: str, size_px: int) -> str | None:
    """Why `backbone` cannot take square images of `size_px`, or None: tried on meta tensors."""
    try:
        built = _built(backbone)
    except UnknownBackboneError as error:
        return str(error)
    if size_px % built.patch_px:
        return f"must be a multiple of {built.patch_px} for {backbone}"
    try:
        device = next(built.features.parameters()).device
        output = built.features(torch.empty(1, 3, size_px, size_px, device=device))
    except LIBRARY_FAULTS as error:
        return f"{backbone} cannot take it ({reason_of(error).lower()})"
    if 0 in output.shape:
        return f"{backbone} leaves no feature map of so small an image"
    return None


def _faults_of(owner: str, network: Network, wanted: dict[str, int]) -> list[str]:
    """Faults of a network at the sizes `wanted`, which are given by their keys."""
    weights_key = f"{owner}.network.weights = {network.weights!r}"
    faults = []
    is_file = is_weights_file(network.weights)
    if not is_file and network.weights not in LIBRARY_WEIGHTS:
        allowed = f"{', '.join(LIBRARY_WEIGHTS)} or the path of a .safetensors file"
        faults.append(f"{weights_key}: must be {allowed}")
    try:
        check_backbone(network.backbone)
        _built(network.backbone)
    except UnknownBackboneError as error:
        return [*faults, f"{owner}.network.backbone = {network.backbone!r}: {error}"]
    if is_file and (fault := _file_fault(network)):
        faults.append(f"{weights_key}: {fault}")
    return faults + [
        f"{key} = {size_px}: {fault}"
        for key, size_px in wanted.items()
        if (fault := size_fault(network.backbone, size_px))
    ]


def _file_fault(network: Network) -> str | None:
    """Why the file of weights does not fit, by its names and shapes alone."""
    try:
        _without_values(network.backbone, Path(network.weights))
    except WeightsError as error:
        return str(error).removeprefix(f"{network.weights}: ")
    return None


@lru_cache(maxsize=8)
def _built(backbone: str) -> Backbone:
    built = _without_values(backbone)
    built.features.eval()
    return built


def _without_values(backbone: str, weights_file: Path | None = None) -> Backbone:
    """The backbone on the meta device, or, where its library needs values to build it, with them.

    Raises UnknownBackboneError, with the library's own reason where it fails, or WeightsError.
    """
    try:
        with torch.device("meta"):
            return build_backbone(backbone, pretrained=False, weights_file=weights_file)
    except WeightsError:
        raise
    except LIBRARY_FAULTS:
        check_backbone(backbone)
    try:
        return build_backbone(backbone, pretrained=False, weights_file=weights_file)
    except (UnknownBackboneError, WeightsError):
        raise
    except LIBRARY_FAULTS as error:
        raise UnknownBackboneError(f"{backbone} cannot be built ({reason_of(error)})") from error
