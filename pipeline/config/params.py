"""params.yaml read once into frozen models that refuse what they do not know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from pipeline.config.faults import ConfigurationError, field_faults, well_formed
from pipeline.config.losses import least_images
from pipeline.config.merging import merged
from pipeline.config.origins import (
    mixture_faults,
    offset_faults,
    start_faults,
    teacher_faults,
    weights_faults,
)
from pipeline.config.recipes import (
    DistillationRecipe,
    Name,
    Network,
    Positive,
    TeacherRecipe,
    TrainedTeacher,
)
from pipeline.config.sources import (
    ImagesSource,
    Licences,
    Model,
    Source,
    emblems_faults,
    input_fault,
)
from pipeline.config.tuning import Tuning, tuning_faults
from pipeline.config.yaml_text import read_yaml
from pipeline.paths import TAKEN, DatasetPaths

__all__ = ["ConfigurationError", "Params", "load_params", "parse_params"]


class Dataset(Model):
    source: Source
    teacher_px: Positive
    validation_share: Annotated[float, Field(ge=0, lt=1)]
    recall_at: Annotated[tuple[Positive, ...], Field(min_length=1), Strict(False)]
    network: Network
    teacher: TeacherRecipe
    distillation: DistillationRecipe
    licences: Licences = Licences()


class Student(Model):
    """A row of cells. `network` and `distillation` hold what differs from the data set's;
    `baseline`: whether a network learns from labels at its size, too, where the teacher did.
    """

    dataset: str
    query_px: Positive
    baseline: bool = True
    network: Annotated[dict[str, Any], Field(default_factory=dict)]
    distillation: Annotated[dict[str, Any], Field(default_factory=dict)]


class Evaluation(Model):
    bootstrap_samples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    adapter_images: Positive


class Compute(Model):
    processes: Positive
    precision: Literal["float32", "bfloat16"]
    compile: bool


class Tracking(Model):
    keep_best: Annotated[int, Field(ge=0)]


Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # as NumPy and Optuna take them


class Params(Model):
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), Strict(False)]
    threads: Positive
    compute: Compute
    inputs: dict[Name, str]
    weights: dict[Name, str]
    vectors: dict[Name, str]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    students: Annotated[dict[Name, Student], Field(min_length=1)]
    tuning: Tuning
    evaluation: Evaluation
    tracking: Tracking

    def cells_of(self, dataset: str) -> list[str]:
        """The evaluations of a data set: its teacher's, and one a student."""
        students = [key for key, student in self.students.items() if student.dataset == dataset]
        return ["teacher", *students]

    def has_baseline(self, key: str) -> bool:
        """Whether student `key` is compared with a network that learns from labels at its size."""
        student = self.students[key]
        return student.baseline and self.datasets[student.dataset].teacher.kind == "trained"

    def teacher_seeds(self, dataset: str) -> tuple[int, ...]:
        """The seeds that have a teacher of their own: the first alone where none is trained."""
        is_trained = self.datasets[dataset].teacher.kind == "trained"
        return self.seeds if is_trained else self.seeds[:1]

    def paths(self, dataset: str, seed: int) -> DatasetPaths:
        """Where the files of a data set lie that a seed reads and writes."""
        further = None if seed == self.seeds[0] else seed
        has_teacher = seed in self.teacher_seeds(dataset)
        return DatasetPaths(dataset, further, further if has_teacher else None)

    def student_network(self, key: str) -> Network:
        """The network of student `key`: its data set's, with the student's own values."""
        student = self.students[key]
        inherited = self.datasets[student.dataset].network.model_dump()
        return Network.model_validate(merged(inherited, student.network))

    def weights_key(self, key: str) -> str:
        """At which key of `weights` the file of a data set's teacher or of a student stands."""
        inherits = key in self.students and key not in self.weights
        return self.students[key].dataset if inherits else key

    def starting(self, network: Network, key: str) -> Network:
        """The network of a data set's teacher or of a student, the path in place of `file`."""
        if network.weights != "file":
            return network
        return network.model_copy(update={"weights": self.weights[self.weights_key(key)]})

    def student_distillation(self, key: str) -> DistillationRecipe:
        """The distillation of student `key`: its data set's, with the student's own values."""
        student = self.students[key]
        recipe = _recipe_of(student, self.datasets[student.dataset])
        return DistillationRecipe.model_validate(recipe)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises ConfigurationError with every fault at once, each with the path of its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ConfigurationError(path, [f"cannot be read: {error}"]) from None
    return parse_params(text, path)


def parse_params(text: str, path: Path = Path("params.yaml")) -> Params:
    """The parameters that the text of params.yaml holds; `path` stands in the error messages.

    Raises ConfigurationError as `load_params` does.
    """
    raw = read_yaml(text, path)
    faults = []
    if "seed" in raw:
        one = raw.pop("seed")
        faults.append(f"seed = {one!r}: is `seeds` now, a list: write seeds: [{one}] in its place")
        raw.setdefault("seeds", [0])
    faults += [*field_faults(Params, raw), *_relation_faults(raw)]
    if faults:
        raise ConfigurationError(path, faults)
    return Params.model_validate(raw)


def _recipe_of(student: Student, dataset: Dataset) -> dict[str, Any]:
    """The distillation of a student's data set, with the student's own values, unchecked."""
    return merged(dataset.distillation.model_dump(), student.distillation)


def _relation_faults(raw: dict[str, Any]) -> list[str]:
    """Faults between entries that are well formed by themselves."""
    inputs, files, stored, known, rows = (
        raw[name] if isinstance(raw.get(name), dict) else {}
        for name in ("inputs", "weights", "vectors", "datasets", "students")
    )
    datasets, students = well_formed(known, Dataset), well_formed(rows, Student)
    seeds = raw.get("seeds")
    compute = well_formed({"compute": raw.get("compute")}, Compute)
    faults = [
        f"{section}.{name}: no such data set; known: {', '.join(known)}"
        for section, given in (("inputs", inputs), ("vectors", stored))
        for name in given
        if name not in known
    ]
    faults += [
        f"weights.{key}: no such data set or student; known: {', '.join([*known, *rows])}"
        for key in files
        if key not in known and key not in rows
    ]
    faults += [
        f"weights.{key}: this name is taken: call the student otherwise"
        for key in files
        if key in TAKEN
    ]
    faults += [
        f"datasets.{name}: this name is taken: data/{name} holds something else"
        for name in TAKEN
        if name in known
    ]
    if isinstance(seeds, list) and any(seeds.count(seed) > 1 for seed in seeds):
        faults.append(f"seeds = {seeds}: must differ from each other")
    for name, dataset in datasets.items():
        faults += weights_faults(f"datasets.{name}", dataset.network.model_dump(), name, files)
        faults += teacher_faults(name, dataset.teacher, dataset.network, files, stored)
        if fault := input_fault(name, dataset.source, given=name in inputs):
            faults.append(fault)
        faults += emblems_faults(name, dataset.source, dataset.validation_share)
        if isinstance(dataset.source, ImagesSource) and dataset.teacher.kind == "trained":
            faults.append(
                f"datasets.{name}.teacher.kind = 'trained': must be frozen, onnx or vectors, since "
                "images without classes have no labels to train with"
            )
        recipes = {"teacher": dataset.teacher, "distillation": dataset.distillation}
        for part, recipe in recipes.items():
            if isinstance(recipe, TrainedTeacher | DistillationRecipe):
                faults += _crop_faults(f"datasets.{name}.{part}", recipe)
        faults += _batch_faults(f"datasets.{name}.distillation", dataset.distillation)
        faults += mixture_faults(f"datasets.{name}", dataset.teacher, dataset.distillation)
    for key, student in students.items():
        faults += _student_faults(key, student, known, datasets)
        faults += weights_faults(f"students.{key}", student.network, key, files)
    for tuning in well_formed({"tuning": raw.get("tuning")}, Tuning).values():
        shares = {name: dataset.validation_share for name, dataset in datasets.items()}
        distillations = {
            key: _recipe_of(one, datasets[one.dataset])
            for key, one in students.items()
            if one.dataset in datasets
        }
        learned = well_formed(distillations, DistillationRecipe)
        losses = {key: one.loss.kind for key, one in learned.items()}
        faults += tuning_faults(tuning, shares, losses)
    if compute and compute["compute"].processes > 1:
        faults += _batch_norm_faults(compute["compute"].processes, datasets, students)
    return faults


def _batch_norm_faults(
    processes: int, datasets: Mapping[str, Dataset], students: Mapping[str, Student]
) -> list[str]:
    """Live batch norm in several processes: each would normalise by its part of the batch."""
    places: dict[str, Any] = {f"datasets.{key}": one.network for key, one in datasets.items()}
    places |= {f"students.{key}": one.network for key, one in students.items()}
    return [
        f"{place}.network.batch_norm = 'live': must be frozen where compute.processes = "
        f"{processes}, as each process would normalise by its part of a batch"
        for place, network in places.items()
        if dict(network).get("batch_norm") == "live"
    ]


def _crop_faults(place: str, recipe: TrainedTeacher | DistillationRecipe) -> list[str]:
    low, high = recipe.augmentation.crop_scale
    if 0 < low <= high:
        return []
    key = f"{place}.augmentation.crop_scale"
    return [f"{key} = [{low}, {high}]: must be 0 < smallest <= largest <= 1"]


def _batch_faults(place: str, recipe: DistillationRecipe) -> list[str]:
    """A loss that compares images needs enough of them in a batch, and in an epoch."""
    least, loss = least_images(recipe.loss), recipe.loss.kind
    given = {
        "images_per_batch": recipe.images_per_batch,
        "images_per_epoch": recipe.images_per_epoch,
    }
    return [
        f"{place}.{key} = {images}: must be at least {least} for {place}.loss, {loss}, which "
        "compares the images of a batch"
        for key, images in given.items()
        if images is not None and images < least
    ]


def _student_faults(
    key: str, student: Student, known: Mapping[str, Any], datasets: Mapping[str, Dataset]
) -> list[str]:
    """Faults of a student towards its data set, which is one of the names `known`."""
    own = f"students.{key}"
    if student.dataset not in known:
        allowed = ", ".join(known)
        return [f"{own}.dataset = {student.dataset!r}: no such data set; known: {allowed}"]
    faults = []
    if key in ("teacher", "database") or key in known:
        faults.append(f"{own}: this name is taken by a teacher, a database or a data set")
    dataset = datasets.get(student.dataset)
    if dataset is None:
        return faults
    if student.query_px > dataset.teacher_px:
        faults.append(
            f"{own}.query_px = {student.query_px}: must be at most "
            f"datasets.{student.dataset}.teacher_px = {dataset.teacher_px}"
        )
    network = merged(dataset.network.model_dump(), student.network)
    recipe = _recipe_of(student, dataset)
    wrong = field_faults(Network, network)
    faults += [f"{own}.network.{fault}" for fault in wrong]
    is_bound = dataset.teacher.kind == "trained"  # others have the length of their own vectors
    if not wrong and is_bound and network["dim"] != dataset.network.dim:
        faults.append(
            f"{own}.network.dim = {network['dim']}: a student's embeddings are as long as its "
            f"teacher's, datasets.{student.dataset}.network.dim = {dataset.network.dim}"
        )
    if not wrong:
        faults += start_faults(
            own, Network.model_validate(network), student.dataset, dataset.teacher, dataset.network
        )
    wrong = field_faults(DistillationRecipe, recipe)
    faults += [f"{own}.distillation.{fault}" for fault in wrong]
    if wrong:
        return faults
    checked = DistillationRecipe.model_validate(recipe)
    faults += offset_faults(own, dataset.teacher, network["weights"], checked)
    if student.distillation:
        faults += _crop_faults(f"{own}.distillation", checked)
        faults += _batch_faults(f"{own}.distillation", checked)
        faults += mixture_faults(own, dataset.teacher, checked)
    return faults
