"""What the networks of a study need of sizes and weights, checked before anything runs.

PyTorch and the libraries of networks are imported where there is something to build: not for a
study whose networks were accepted before.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from pipeline.config.params import ConfigurationError, Params
from pipeline.config.recipes import FrozenTeacher, Network, TrainedTeacher
from pipeline.files import file_md5, write_text
from pipeline.models import WeightsError
from pipeline.models.packaged_weights import packaged_file
from pipeline.paths import WORK, DatasetPaths


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

    checked = [(owner, network, sizes) for owner, network, _, sizes in _trained(params) if sizes]
    return list(dict.fromkeys(fault for one in checked for fault in faults_of(*one)))


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
            f"({reason_of(error)[:200]}): name a file of them at `weights`, or random"
        )
    return None


def _trained(params: Params) -> Iterator[tuple[str, Network, Path, dict[str, int]]]:
    """Of each network that is built: its key, settings, file, and the sizes to check by their
    keys; none for a student whose network is the teacher's, which is checked at its size.
    """
    for name, dataset in params.datasets.items():
        paths = DatasetPaths(name)
        students = {key: one for key, one in params.students.items() if one.dataset == name}
        sizes = {f"students.{key}.query_px": one.query_px for key, one in students.items()}
        teacher = {f"datasets.{name}.teacher_px": dataset.teacher_px}
        taught = params.starting(dataset.network, name)
        if is_network := isinstance(dataset.teacher, TrainedTeacher | FrozenTeacher):
            yield f"datasets.{name}", taught, paths.teacher, teacher | sizes
        for key in students:
            network = params.starting(params.student_network(key), key)
            place = f"students.{key}.query_px"
            own = {} if is_network and network == taught else {place: sizes[place]}
            yield f"students.{key}", network, paths.student(key), own


def _mark(params: Params) -> str:
    """What an answer depends on: settings, files of weights, libraries, this folder."""
    trained = list(_trained(params))
    networks = [(owner, network.model_dump(), sizes) for owner, network, _, sizes in trained]
    weights = {Path(network.weights) for _, network, _, _ in trained}
    for backbone in {one.backbone for _, one, _, _ in trained if one.weights == "package"}:
        with suppress(WeightsError):  # what is missing, or has none, is told by the check
            weights.add(packaged_file(backbone))
    files = sorted({*weights, *Path(__file__).parent.glob("*.py")})
    hashes = [file_md5(file) for file in files if file.is_file()]
    versions = [version(library) for library in ("torch", "torchvision", "timm")]
    return json.dumps([networks, hashes, versions])
