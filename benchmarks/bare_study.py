"""A study by its stages alone, on a machine that has none of DVC, MLflow, Prefect and FAISS.

The stages run in the order of the graph, those of one step side by side on one device; nothing is
recorded, and no index is written. A stage whose output is there is done: run it again to go on.
Needs torch, torchvision, timm, numpy, pandas, pyarrow, safetensors, pillow, jaxtyping, tqdm,
filelock, psutil, pydantic and ruamel.yaml; for trials optuna. Photographs come as
data/NAME/pack.arrow, which the stage `prepare` made elsewhere, with the files beside it; emblems
are rendered.
Run in the folder of a params.yaml: python -m benchmarks.bare_study [--jobs 4] [--minutes 10]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.paths import DatasetPaths, code_file, weights_digest
from stages import run_stage

Step = list[tuple[str, str, Path]]  # stage, key, what it leaves


def steps_of(params: Params) -> list[Step]:
    """The stages of a study, those that may run side by side in one step."""
    paths = {name: DatasetPaths(name) for name in params.datasets}
    students = [(key, paths[one.dataset]) for key, one in params.students.items()]
    return [
        [("code", "study", code_file("report"))],
        [("hash_weights", key, weights_digest(key)) for key in params.weights],
        [("inputs", name, paths[name].source) for name in paths],
        [("hash_inputs", name, paths[name].given) for name in params.inputs],
        [("prepare", name, paths[name].pack) for name in paths],
        [("train_teacher", name, paths[name].teacher) for name in paths],
        [("embed_database", name, paths[name].database) for name in paths]
        + [("tune", key, of.tuning(key)) for key, of in students],
        [("distill", key, of.student(key)) for key, of in students]
        + [("train_baseline", key, of.baseline(key)) for key, of in students],
        [("evaluate", name, paths[name].cell("teacher")) for name in paths]
        + [("evaluate", key, of.cell(key)) for key, of in students],
    ]


def run_study(jobs: int, minutes: float) -> list[dict[str, Any]]:
    """Run what is not done, and tell the seconds and the exit code of each stage."""
    ends_s = time.monotonic() + 60 * minutes
    spent = []

    def run(stage: str, key: str, output: Path) -> dict[str, Any]:
        left_s = ends_s - time.monotonic()
        started_s = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.bare_study", "--stage", stage, key]
        try:
            code = subprocess.run(command, check=False, timeout=max(left_s, 0.1)).returncode
        except subprocess.TimeoutExpired:
            code = 124
        seconds = round(time.monotonic() - started_s, 1)
        return {"stage": stage, "key": key, "seconds": seconds, "exit": code}

    with ThreadPoolExecutor(jobs) as pool:
        for step in steps_of(load_params()):
            open_now = [one for one in step if not one[2].exists()]
            done = list(pool.map(lambda one: run(*one), open_now))
            spent += done
            if any(one["exit"] for one in done):
                break
    return spent


@contextmanager
def unrecorded_run(**_: Any) -> Iterator[SimpleNamespace]:
    """In place of the run in MLflow: takes what is recorded, and keeps nothing."""

    def ignore(*_: Any, **__: Any) -> None:
        return None

    recorded = ("log_epoch", "log_results", "log_training", "set_tags")
    yield SimpleNamespace(**dict.fromkeys(recorded, ignore))


def nothing(*_: Any) -> None:
    """In place of what needs a library that this machine does not have."""


REPLACED: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "stages.code": {"_vega": nothing},
    "pipeline.training.trainings": {"tracked_run": unrecorded_run},
    "pipeline.training.tuning": {"tracked_run": unrecorded_run},
    "pipeline.training.untrained": {"tracked_run": unrecorded_run},
    "stages.embed_database": {"write_exact_index": nothing},
    "pipeline.evaluation.recording": {"tracked_run": unrecorded_run},
    "pipeline.evaluation.evaluating": {"prepare_onnx": nothing},
    "stages.evaluate": {"require_store": nothing},
}


def run_bare(stage: str, key: str) -> None:
    """One stage in this process, without what records and indexes."""
    for library in ("faiss", "imagehash"):
        if find_spec(library) is None:
            sys.modules[library] = ModuleType(library)
    module = import_module(f"stages.{stage}")
    for place, functions in REPLACED.items():
        if place in sys.modules:
            for name, function in functions.items():
                assert hasattr(sys.modules[place], name), f"{place} has no {name} any more"
                setattr(sys.modules[place], name, function)
    sys.argv = [stage, key]
    run_stage(getattr(module, stage))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4, help="stages at a time")
    parser.add_argument("--minutes", type=float, default=600, help="after which none is left")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "KEY"), help="this one alone, here")
    given = parser.parse_args()
    if given.stage:
        run_bare(*given.stage)
        return
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    spent = run_study(given.jobs, given.minutes)
    Path("spent.json").write_text(json.dumps(spent, indent=1))
    sys.exit(max((one["exit"] for one in spent), default=0))


if __name__ == "__main__":
    main()
