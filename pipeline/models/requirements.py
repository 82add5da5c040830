"""What the networks of a study need of sizes and weights, checked before anything runs.

PyTorch and the libraries of networks are imported where there is something to build: not for a
study whose networks were accepted before.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pipeline.config.params import ConfigurationError, Params
from pipeline.config.recipes import Network
from pipeline.files import file_md5, write_text
from pipeline.paths import WORK, DatasetPaths

LIBRARIES = ("torch", "torchvision", "timm")


def check_networks(
    params: Params, path: Path = Path("params.yaml"), others: Sequence[str] = ()
) -> None:
    """Raise ConfigurationError with every fault of `network_faults`, after the `others`.

    Networks that were accepted are noted in the work folder, and not built again.
    """
    note, mark = WORK / "accepted_networks", _mark(params)
    accepted = note.exists() and note.read_text(encoding="utf-8") == mark
    if faults := [*others, *([] if accepted else network_faults(params))]:
        raise ConfigurationError(path, faults)
    if not accepted:
        write_text(note, mark)


def network_faults(params: Params) -> list[str]:
    """Every unknown backbone, every size that one cannot take, every file of weights not its own.

    A teacher takes the sizes of its students too: the naive rows feed it small images.
    """
    from pipeline.models.checks import faults_of

    faults: dict[str, None] = {}
    for owner, network, _, sizes in _trained(params):
        faults |= dict.fromkeys(faults_of(owner, network, sizes) if sizes else ())
    return list(faults)


def check_downloads(params: Params, path: Path = Path("params.yaml")) -> None:
    """Fetch the library's weights of networks that are still to be trained, each once.

    So that a machine without a network is told so at once, and not by each training. Raises
    ConfigurationError that names the settings.
    """
    wanted: dict[str, list[str]] = {}
    for owner, network, file, _ in _trained(params):
        if network.weights == "pretrained" and not file.exists():
            wanted.setdefault(network.backbone, []).append(f"{owner}.network.weights")
    if faults := [text for name, keys in wanted.items() if (text := _download(name, keys))]:
        raise ConfigurationError(path, faults)


def _download(backbone: str, keys: list[str]) -> str | None:
    """Why the library's weights cannot be had, or None when they are here."""
    from pipeline.models.backbones import build_backbone, reason_of

    try:
        build_backbone(backbone, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # those of the libraries' downloads
        return (
            f"{', '.join(keys)} = 'pretrained': the weights of {backbone} cannot be had "
            f"({reason_of(error)[:200]}): name a .safetensors file of them, or random"
        )
    return None


def _trained(params: Params) -> Iterator[tuple[str, Network, Path, dict[str, int]]]:
    """Of each network that is trained: its key, settings, file, and the sizes to check by their
    keys; none for a student whose network is the teacher's, which is checked at its size.
    """
    for name, dataset in params.datasets.items():
        paths = DatasetPaths(name)
        sizes = {
            f"students.{key}.query_px": student.query_px
            for key, student in params.students.items()
            if student.dataset == name
        }
        smaller = {key: px for key, px in sizes.items() if px < dataset.teacher_px}
        all_sizes = {f"datasets.{name}.teacher_px": dataset.teacher_px} | smaller
        yield f"datasets.{name}", dataset.network, paths.teacher, all_sizes
        for key, student in params.students.items():
            if student.dataset == name:
                network, own = params.student_network(key), f"students.{key}.query_px"
                unchecked = {} if network == dataset.network else {own: student.query_px}
                yield f"students.{key}", network, paths.student(key), unchecked


def _mark(params: Params) -> str:
    """A hash of what an answer depends on: settings, files of weights, libraries, this folder."""
    trained = list(_trained(params))
    networks = [(owner, network.model_dump(), sizes) for owner, network, _, sizes in trained]
    weights = {Path(network.weights) for _, network, _, _ in trained}
    files = sorted({*weights, *Path(__file__).parent.glob("*.py")})
    hashes = [file_md5(file) for file in files if file.is_file()]
    versions = [version(library) for library in LIBRARIES]
    text = json.dumps([networks, hashes, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
