"""What every command of `l2s` shares: errors in words, and the way into the workspace."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.files import user_path
from pipeline.processes import memory_fault
from pipeline.quick_start import collect_seldom

if TYPE_CHECKING:
    import torch

    from pipeline.config.params import Params
    from pipeline.flows.stage_runs import Outcome

OneStudy = Annotated[
    str | None, typer.Option("--dataset", help="Of this study only, which may be inactive.")
]
# In dvc.lock; the first stage that ran was always among them.
FIRST_VERSION = re.compile(r"^  (check|download@.+|survey@.+):$", re.MULTILINE)
# Which extra of the package brings a library.
EXTRAS = {
    **dict.fromkeys(("dvc", "mlflow", "prefect", "sqlalchemy", "vl_convert"), "study"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("lancedb", "qdrant_client"), "vectors"),
    "s3fs": "storage",
    "ray": "ray",
}


@dataclass(frozen=True)
class Workspace:
    """The study that a command works on: the current folder. `here` is where it was given."""

    here: Path

    @cached_property
    def params(self) -> "Params":
        """Raises ValueError for what is wrong in params.yaml."""
        from pipeline.config.params import load_params

        return load_params()

    @cached_property
    def all_params(self) -> "Params":
        """Those of inactive studies, too, whose networks are there. Raises as `params` does."""
        from pipeline.config.studies import with_inactive

        return with_inactive(self.params)

    def params_for(self, dataset: str | None, network: str | None = None) -> "Params":
        """The parameters of the active studies, unless a name is none of theirs: then all."""
        known = {None, "teacher", *self.params.datasets, *self.params.students}
        return self.params if {dataset, network} <= known else self.all_params

    def chosen(self, dataset: str | None) -> "tuple[Params, list[str]]":
        """The parameters, and the data sets that are meant: the one named, or all active ones.

        Raises ValueError for one that there is not.
        """
        params = self.params_for(dataset)
        if dataset is not None and dataset not in params.datasets:
            known = ", ".join(params.datasets)
            raise ValueError(f"--dataset {dataset}: no such data set; known: {known}")
        return params, [dataset] if dataset else list(params.datasets)

    @cached_property
    def device(self) -> "torch.device":
        """Raises ValueError for a device that is not there."""
        from pipeline.devices import resolve_device

        return resolve_device(self.params.threads)

    def require_rest(self, what: str) -> None:
        """Raise ValueError where a study or retraining runs here: `what` must wait for its end."""
        from pipeline.flows.run_state import at_work

        if who := at_work():
            raise ValueError(f"{who}: {what} when it has ended")

    def path(self, given: Path) -> Path:
        """A path of the user's, which refers to the folder where the command was given."""
        return user_path(given, self.here)


@contextmanager
def workspace(*, is_needed: bool = True) -> Iterator[Workspace]:
    """The body of a command: in the folder of the study, with errors in words.

    is_needed: else the command stays in the current folder, where there is no study.
    """
    with errors_in_words():
        stays = not is_needed and find_workspace() is None
        yield Workspace(Path.cwd() if stays else enter_workspace())


@contextmanager
def errors_in_words() -> Iterator[None]:
    """An error that a user can cause, a missing extra too, is one message and exit code 2."""
    collect_seldom()
    try:
        yield
    except BrokenPipeError:
        raise  # `| head` has seen enough
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        words = _in_words(error)
        if words is None or os.environ.get("L2S_DEBUG"):
            raise
        typer.echo(f"error: {words}", err=True)
        if "run `l2s study`" in str(error) and (reason := _why_missing()):
            typer.echo(reason, err=True)
        raise typer.Exit(2) from None


def _in_words(error: Exception) -> str | None:
    """What a user can do about an error; None for a fault of ours."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        return extra and f"{error.name} is not installed: pip install 'large-to-small[{extra}]'"
    return memory_fault(error) or (str(error) if isinstance(error, ValueError | OSError) else None)


def _why_missing() -> str | None:
    """Why something may be missing for a while: stages that run have taken their results away."""
    from pipeline.flows.run_state import at_work

    text = "may be making it anew: try again when it has ended; `l2s status` shows how far it is"
    return (who := at_work()) and f"{who} and {text}"


def end_flow(
    what: str, stop_number: int | None, outcomes: "Mapping[str, Outcome]", *, is_success: bool
) -> None:
    """Leave with the exit code of what has run stages, unless all went well."""
    from pipeline.flows.stage_runs import exit_code_of

    if stop_number is not None:
        raise typer.Exit(128 + stop_number)
    if not is_success:
        typer.echo(f"error: the {what} did not finish: see above", err=True)
        raise typer.Exit(exit_code_of(outcomes.values()) or 1)


def find_workspace() -> Path | None:
    """The folder of the study, this one or the nearest above that holds its files; None without."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists():
            return folder
    return None


def enter_workspace() -> Path:
    """Go to the folder of the study (`find_workspace`).

    Returns the folder where the command was given, which relative paths of the user refer to.
    """
    here = Path.cwd()
    if (folder := find_workspace()) is None:
        raise ValueError(
            f"no params.yaml and dvc.yaml in {here} or above it: `l2s init FOLDER` lays them out"
        )
    from pipeline.config.layout import require_own_layout

    os.chdir(folder)
    require_own_layout()
    _refuse_first_version()
    return here


def _refuse_first_version() -> None:
    """Its stages had other names, and what it left in .work has another form."""
    lock, state = Path("dvc.lock"), Path(".work", "study.json")
    if (lock.exists() and FIRST_VERSION.search(lock.read_text(encoding="utf-8"))) or (
        state.exists() and '"process_start"' not in state.read_text(encoding="utf-8")
    ):
        raise ValueError(
            f"{Path.cwd()} holds results of the first version of large-to-small, which this one "
            "cannot use: work in a fresh clone, or delete dvc.lock and .work here; `l2s study` "
            "then makes everything anew"
        )


def printable(text: str) -> str:
    """The text with what could steer a terminal, or cannot be encoded, made visible."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
