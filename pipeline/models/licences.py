"""Under which licences images and weights stand: what a study says of them on cards and in exports.

A licence that nobody states is said to be unknown: none is guessed.
"""

from pipeline.config.params import Params
from pipeline.config.recipes import Network, OnnxTeacher, VectorsTeacher

UNKNOWN = "unknown"
_NONE = "none: the training began with random weights"
_PACKAGED = "Apache-2.0"  # of all packages in pipeline.models.packaged_weights


def data_licence(params: Params, name: str, found: str | None) -> str:
    """That of the images of a data set: as params.yaml says, else as its source was `found`."""
    return params.datasets[name].licences.data or found or UNKNOWN


def weights_licences(params: Params, name: str, key: str) -> dict[str, str]:
    """Those of the weights that a `teacher`, and the network `key` ("teacher" or a student), is or
    began with.

    The teacher's is what params.yaml says (`datasets.NAME.licences.weights`), else its library's.
    """
    dataset = params.datasets[name]
    is_given = isinstance(dataset.teacher, OnnxTeacher | VectorsTeacher)
    library = UNKNOWN if is_given else _library_licence(dataset.network)
    teacher = dataset.licences.weights or library
    if key == "teacher":
        return {"teacher": teacher, "network": teacher}
    network = params.student_network(key)
    same = {network.weights, dataset.network.weights} == {"file"} and key not in params.weights
    inherits = network.weights == "teacher" or (same and not is_given)
    return {"teacher": teacher, "network": teacher if inherits else _library_licence(network)}


def _library_licence(network: Network) -> str:
    """What the library, or the package, says of the weights that a network starts from.

    torchvision says nothing of its weights, and a file nothing of itself.
    """
    library, _, model = network.backbone.partition("/")
    if network.weights == "random":
        return _NONE
    if network.weights == "package":
        return _PACKAGED
    if network.weights != "pretrained" or library != "timm":
        return UNKNOWN
    from pipeline.models.late_compiler import imported  # heavy

    config = imported("timm").get_pretrained_cfg(model)
    return str(getattr(config, "license", None) or UNKNOWN)
