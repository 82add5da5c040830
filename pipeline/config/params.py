"""params.yaml read once into frozen models that refuse what they do not know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.config.faults import ConfigurationError, field_faults, well_formed
from pipeline.config.recipes import (
    Colour,
    Deviation,
    DistillationRecipe,
    Name,
    Network,
    Positive,
    Rate,
    TripletRecipe,
    Weight,
)
from pipeline.config.sources import Model, Source, input_fault

__all__ = ["ConfigurationError", "Params", "load_params", "parse_params"]


class Dataset(Model):
    source: Source
    teacher_px: Positive
    validation_share: Annotated[float, Field(ge=0, lt=1)]
    recall_at: Annotated[tuple[Positive, ...], Field(min_length=1)]
    network: Network
    teacher: TripletRecipe
    distillation: DistillationRecipe


class NetworkOverride(Model):
    backbone: str | None = None
    weights: str | None = None
    batch_norm: Literal["live", "frozen"] | None = None
    mean: Colour | None = None
    std: Deviation | None = None


class OptimisationOverride(Model):
    epochs: Positive | None = None
    learning_rate: Rate | None = None


class DistillationOverride(Model):
    lambda_ts: Weight | None = None
    lambda_ss: Weight | None = None
    optimisation: OptimisationOverride = OptimisationOverride()


class Student(Model):
    dataset: str
    query_px: Positive
    network: NetworkOverride = NetworkOverride()
    distillation: DistillationOverride = DistillationOverride()


class Evaluation(Model):
    bootstrap_samples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Compute(Model):
    processes: Positive
    precision: Literal["float32", "bfloat16"]
    compile: bool


class Tracking(Model):
    keep_best: Annotated[int, Field(ge=0)]


class ShelfEntry(Model):
    """A study that is not active: what `l2s select` moves to its places in params.yaml."""

    input: str | None = None
    dataset: Dataset
    students: Annotated[dict[Name, Student], Field(min_length=1)]


class Params(Model):
    seed: Annotated[int, Field(ge=0)]
    threads: Positive
    compute: Compute
    recipes: Annotated[dict[Name, Any], Field(default_factory=dict)]
    inputs: dict[Name, str]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    students: Annotated[dict[Name, Student], Field(min_length=1)]
    evaluation: Evaluation
    tracking: Tracking
    shelf: Annotated[dict[Name, ShelfEntry], Field(default_factory=dict)]

    def cells_of(self, dataset: str) -> list[str]:
        """The evaluations of a data set: its teacher's, and one a student."""
        students = [key for key, student in self.students.items() if student.dataset == dataset]
        return ["teacher", *students]

    def student_network(self, key: str) -> Network:
        """The network of student `key`: its data set's, with the student's own values laid over.

        Another backbone does not inherit the figures by which the input is normalised.
        """
        student = self.students[key]
        inherited = self.datasets[student.dataset].network
        if student.network.backbone not in (None, inherited.backbone):
            inherited = inherited.model_copy(update={"mean": None, "std": None})
        return inherited.model_copy(update=_given(student.network))

    def student_distillation(self, key: str) -> DistillationRecipe:
        """The distillation of student `key`: its data set's, with the student's own values."""
        student = self.students[key]
        recipe = self.datasets[student.dataset].distillation
        changes = _given(student.distillation)
        schedule = _given(student.distillation.optimisation)
        changes["optimisation"] = recipe.optimisation.model_copy(update=schedule)
        return recipe.model_copy(update=changes)


def _given(override: Model) -> dict[str, Any]:
    """The values that an override really sets."""
    return {
        name: value
        for name, value in override
        if value is not None and not isinstance(value, BaseModel)
    }


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises ConfigurationError with every fault at once, each with the path of its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(path, ["the file is missing"]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, [f"not UTF-8 text: {error.reason}"]) from None
    return parse_params(text, path)


def parse_params(text: str, path: Path = Path("params.yaml")) -> Params:
    """The parameters that the text of params.yaml holds; `path` stands in the error messages.

    Raises ConfigurationError as `load_params` does.
    """
    try:
        raw = YAML(typ="safe").load(text)
    except (MarkedYAMLError, ReaderError) as error:
        raise ConfigurationError(path, [f"not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(raw, dict):
        raise ConfigurationError(path, ["must hold keys and values at its top level"])
    raw = _tuples(raw)
    faults = [*field_faults(Params, raw), *_relation_faults(raw)]
    if faults:
        raise ConfigurationError(path, faults)
    return Params.model_validate(raw)


def _tuples(value: Any) -> Any:
    """Lists as tuples: the models are frozen, and strict about it."""
    if isinstance(value, Mapping):
        return {key: _tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def _relation_faults(raw: dict[str, Any]) -> list[str]:
    """Faults between entries that are well formed by themselves, on the shelf too."""
    datasets = well_formed(raw.get("datasets"), Dataset)
    inputs = raw["inputs"] if isinstance(raw.get("inputs"), dict) else {}
    known = raw["datasets"] if isinstance(raw.get("datasets"), dict) else {}
    faults = [
        f"inputs.{name}: no such data set; known: {', '.join(known)}"
        for name in inputs
        if name not in known
    ]
    for name, dataset in datasets.items():
        if fault := input_fault(name, dataset.source, given=name in inputs):
            faults.append(fault)
        faults += _crop_faults(f"datasets.{name}", dataset)
    students = well_formed(raw.get("students"), Student)
    faults += [
        f
        for key, one in students.items()
        for f in _student_faults("students", key, one, known, datasets)
    ]
    faults += _team_faults(raw.get("compute"), datasets, students)
    taken = set(students)
    for name, entry in well_formed(raw.get("shelf"), ShelfEntry).items():
        place = f"shelf.{name}"
        if name in known:
            faults.append(f"{place}: this data set is active too; it can be in one place only")
        faults += _crop_faults(f"{place}.dataset", entry.dataset)
        if entry.input is not None and (
            fault := input_fault(name, entry.dataset.source, given=True)
        ):
            faults.append(f"{place}.input{fault.removeprefix(f'inputs.{name}')}")
        for key, one in entry.students.items():
            if key in taken:
                faults.append(f"{place}.students.{key}: another student has this name")
            taken.add(key)
            faults += _student_faults(
                f"{place}.students", key, one, {name: None}, {name: entry.dataset}
            )
    return faults


def _team_faults(
    compute: Any, datasets: Mapping[str, Dataset], students: Mapping[str, Student]
) -> list[str]:
    """Live batch norm in a team: each process would normalise by its part of the batch."""
    team = well_formed({"compute": compute}, Compute).get("compute")
    if team is None or team.processes == 1:
        return []
    places: dict[str, str | None] = {}
    places |= {f"datasets.{name}": one.network.batch_norm for name, one in datasets.items()}
    places |= {f"students.{key}": one.network.batch_norm for key, one in students.items()}
    return [
        f"{place}.network.batch_norm = 'live': must be frozen where compute.processes = "
        f"{team.processes}, as each process would normalise by its part of a batch"
        for place, batch_norm in places.items()
        if batch_norm == "live"
    ]


def _crop_faults(place: str, dataset: Dataset) -> list[str]:
    faults = []
    for recipe in ("teacher", "distillation"):
        low, high = getattr(dataset, recipe).augmentation.crop_scale
        if not 0 < low <= high:
            key = f"{place}.{recipe}.augmentation.crop_scale"
            faults.append(f"{key} = [{low}, {high}]: must be 0 < smallest <= largest <= 1")
    return faults


def _student_faults(
    place: str,
    key: str,
    student: Student,
    known: Mapping[str, Any],
    datasets: Mapping[str, Dataset],
) -> list[str]:
    """Faults of a student towards its data set, which is one of the names `known`."""
    own = f"{place}.{key}"
    if student.dataset not in known:
        allowed = ", ".join(known)
        return [f"{own}.dataset = {student.dataset!r}: no such data set; known: {allowed}"]
    faults = []
    if key == "teacher" or key in known:
        faults.append(f"{own}: this name is taken by a teacher or a data set")
    dataset = datasets.get(student.dataset)
    if dataset is None:
        return faults
    if student.query_px > dataset.teacher_px:
        faults.append(
            f"{own}.query_px = {student.query_px}: must be at most "
            f"datasets.{student.dataset}.teacher_px = {dataset.teacher_px}"
        )
    other = student.network.backbone not in (None, dataset.network.backbone)
    file = dataset.network.weights.endswith(".safetensors")
    if other and file and student.network.weights is None:
        faults.append(
            f"{own}.network.weights: is missing: the file of weights of the data set's "
            f"{dataset.network.backbone} does not fit {student.network.backbone}"
        )
    return faults
