"""Imports go down only, and the numerical code runs on a bare machine."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.dvc_yaml import ROOT

SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
BARE = ("mlflow", "prefect", "dvc", "faiss")


def imported(path: Path) -> set[str]:
    """First parts of the names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def importers(*modules: str) -> set[str]:
    assert len(SOURCES) > 40
    return {path.relative_to(ROOT).as_posix() for path in SOURCES if imported(path) & set(modules)}


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_tracking_imports_mlflow() -> None:
    found = importers("mlflow")
    assert found
    assert all(Path(path).match("pipeline/tracking/*.py") for path in found)


def test_only_flows_import_prefect_and_dvc() -> None:
    assert all(path.startswith("pipeline/flows/") for path in importers("prefect", "dvc"))


def test_only_indexes_and_the_search_for_duplicates_import_faiss() -> None:
    indexes = {
        f"pipeline/search/{name}.py" for name in ("structures", "faiss_index", "vector_index")
    }
    assert importers("faiss") == indexes | {"pipeline/datasets/duplicates.py"}


@pytest.mark.parametrize("package", ["training", "evaluation"])
def test_numerical_code_needs_none_of_the_orchestration(package: str) -> None:
    modules = [
        f"pipeline.{package}.{path.stem}"
        for path in sorted((ROOT / "pipeline" / package).glob("*.py"))
        if path.stem != "__init__"
    ]
    assert len(modules) >= 5
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({BARE!r}))\n"
        f"import {', '.join(modules)}\n"
        f"assert all(sys.modules[name] is None for name in {BARE!r})\n"
        "print('imported')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n"


def test_the_library_and_the_command_start_without_what_windows_lacks() -> None:
    program = """
import signal, sys
import faiss, pandas, psutil, pyarrow.dataset, torch, torchvision, typer.testing, timm, onnxruntime
absent = ("resource", "fcntl", "pwd", "grp", "termios", "pty")
sys.modules.update(dict.fromkeys(absent))
del signal.SIGKILL, signal.SIGHUP
import pipeline, pipeline.cli.__main__
for name in pipeline.__all__:
    getattr(pipeline, name)
print(len([one for one in sys.modules if one.startswith("pipeline.")]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
