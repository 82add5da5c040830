"""Where things lie in the working copy, and what dvc.lock says of them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def study_folder() -> Path:
    """The folder of the study: the current one, unless DVC runs an experiment elsewhere.

    `dvc exp run --temp` and `dvc queue start` run stages in a copy of what git tracks, below
    .dvc/tmp/exps of the study, and delete it afterwards; DVC_ROOT names the study's folder there.
    """
    root = Path(os.environ.get("DVC_ROOT", "/"))
    here = Path.cwd()
    if not here.is_relative_to(root / ".dvc" / "tmp" / "exps"):
        return Path()
    copy = next(folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir())
    return root / here.relative_to(copy)


STUDY = study_folder()  # where what no experiment may lose lies: the record, the downloads
WORK = Path(".work")
ARCHIVES = STUDY / "archives"  # each under its published name; no output of any stage
LOCK = Path("dvc.lock")
TAKEN = ("code", "weights")  # what lies in data/ beside the data sets
STUDY_PAGE = Path("report", "index.html")  # of all active data sets


@dataclass(frozen=True)
class DatasetPaths:
    """Where the stages of one data set write; dvc.yaml names the same paths.

    seed: of the students and baselines; None: the first one of the study, which search, export and
        the page use. teacher_seed: likewise of the teacher and its database.
    """

    dataset: str
    seed: int | None = None
    teacher_seed: int | None = None

    @property
    def source(self) -> Path:
        """What was downloaded or is rendered; beside it, in the same folder, `given`."""
        return Path("data", self.dataset, "source", "source.json")

    @property
    def given(self) -> Path:
        """What lies at the data set's entry of `inputs`."""
        return Path("data", self.dataset, "source", "input.json")

    def initial(self, row: str) -> Path:
        """What a network starts from: `random`, `pretrained`, or the digest of its file."""
        return Path("data", self.dataset, "initial", f"{row}.txt")

    @property
    def splits(self) -> Path:
        """The record of which class of the user's own images trains: no output of any stage."""
        return Path("splits", f"{self.dataset}.json")

    @property
    def pack(self) -> Path:
        return Path("data", self.dataset, "pack.arrow")

    @property
    def pack_summary(self) -> Path:
        return Path("data", self.dataset, "pack.json")

    @property
    def teacher(self) -> Path:
        return of_seed(Path("models", self.dataset, "teacher.safetensors"), self.teacher_seed)

    def student(self, key: str) -> Path:
        return of_seed(Path("models", self.dataset, "students", f"{key}.safetensors"), self.seed)

    def baseline(self, key: str) -> Path:
        return of_seed(Path("models", self.dataset, "baselines", f"{key}.safetensors"), self.seed)

    @property
    def database(self) -> Path:
        return of_seed(Path("embeddings", self.dataset, "database.npy"), self.teacher_seed)

    @property
    def index(self) -> Path:
        return Path("embeddings", self.dataset, "database.faiss")

    @property
    def results(self) -> Path:
        return Path("results", self.dataset)

    def tuning(self, key: str) -> Path:
        """What trials found best for a student and its baseline; beside it the table of trials."""
        return self.results / "tuning" / f"{key}.json"

    def cell(self, key: str) -> Path:
        return self.results / "cells" / f"{key}.json"

    def calibration(self, key: str) -> Path:
        """How the scores of a student become its teacher's; null where no image validates."""
        return self.results / "calibration" / f"{key}.json"

    def per_query(self, key: str) -> Path:
        return self.results / "cells" / f"{key}.parquet"

    @property
    def page(self) -> Path:
        return Path("report", self.dataset, "index.html")

    @property
    def metrics(self) -> Path:
        return Path("report", self.dataset, "metrics.json")

    def report_part(self, key: str) -> Path:
        """What the report shows of one evaluation."""
        return Path("report", "parts", self.dataset, f"{key}.json")


def code_file(stage: str) -> Path:
    """Digests of the code that a stage's results depend on, as the stage `code` wrote them."""
    return Path("data", "code", f"{stage}.txt")


def weights_digest(key: str) -> Path:
    """The digest of the file at `weights.KEY` of params.yaml."""
    return Path("data", "weights", f"{key}.txt")


def vectors_digest(dataset: str) -> Path:
    """The digest of the folder at `vectors.DATASET` of params.yaml."""
    return Path("data", "weights", "vectors", f"{dataset}.txt")


def archives_folder() -> Path | None:
    """The user's folder of published archives, if L2S_ARCHIVES names one."""
    named = os.environ.get("L2S_ARCHIVES")
    return Path(named) if named else None


def history_path(network: Path) -> Path:
    """The table of epochs beside a trained network."""
    return network.with_suffix(".csv")


def further_seeds(output: Path) -> Path:
    """The folder beside an output of the first seed that holds those of all others."""
    return output.with_suffix(".seeds")


def of_seed(output: Path, seed: int | None) -> Path:
    """Where a seed's own version of an output lies; None: the first seed's, the output itself."""
    return output if seed is None else further_seeds(output) / f"{seed}{output.suffix}"


def locked_outputs() -> dict[str, dict[str, str]]:
    """For each stage in dvc.lock the hash of each of its outputs; empty without the file."""
    return _locked_files("outs")


def locked_dependencies() -> dict[str, dict[str, str]]:
    """For each stage in dvc.lock the hash of each file it was run with; empty without the file."""
    return _locked_files("deps")


def tradeoff_tables() -> list[Path]:
    """results/DATASET/tradeoff.md of the data sets that dvc.lock knows: what another study left
    lies beside them.
    """
    known = {Path(out).parts[:2] for outs in locked_outputs().values() for out in outs}
    return [one for one in sorted(Path("results").glob("*/tradeoff.md")) if one.parts[:2] in known]


def _locked_files(kind: str) -> dict[str, dict[str, str]]:
    """Raises ValueError for a dvc.lock that is damaged, or is just being written by DVC, which does
    not write it in one piece.
    """
    try:
        return {
            name: {file["path"]: str(file.get("md5", "")) for file in entry.get(kind, [])}
            for name, entry in _locked_stages().items()
        }
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{LOCK}: was written half: run `l2s study`") from None


def teacher_origin(dataset: str) -> dict[str, str]:
    """Which pack the teacher learned from, and whether it is the one the students learned from."""
    paths = DatasetPaths(dataset)
    locked = locked_outputs()
    now = locked.get(f"prepare@{dataset}", {}).get(str(paths.pack), "")
    then = locked_dependencies().get(f"train_teacher@{dataset}", {}).get(str(paths.pack), "")
    return {
        "pack_md5": now,
        "teacher_md5": locked.get(f"train_teacher@{dataset}", {}).get(str(paths.teacher), ""),
        "teacher_pack_md5": then,
        "teacher_of_this_pack": "yes" if now == then else "no",
    }


def _locked_stages() -> dict[str, Any]:
    """The entries of dvc.lock; none without the file."""
    if not LOCK.exists():
        return {}
    return parse_lock(LOCK.read_text(encoding="utf-8")).get("stages") or {}


class LockConflictError(ValueError):
    """dvc.lock holds the marks that git leaves where two sides of a merge differ."""


def parse_lock(text: str) -> dict[str, Any]:
    """The content of a dvc.lock; empty where it holds no entries.

    Raises LockConflictError, and any other ValueError where it is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in text.splitlines()):
        raise LockConflictError(
            f"{LOCK}: holds conflict markers of a git merge: choose a side, such as by "
            f"`git checkout --ours {LOCK}`; then `l2s study` makes what it lacks"
        )
    try:
        data = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(f"{LOCK}: no YAML: {error}") from error
    return data if isinstance(data, dict) else {}
