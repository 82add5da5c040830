"""Digests of the code that a stage's results depend on: the one answer to whether an edit matters.

Used twice: the stage `code` writes them for DVC, and the fingerprint of a run in MLflow holds them.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the packages, in a checkout or as installed
PACKAGES = ("pipeline", "stages")
# What only starts and observes the work, readies it for searches, or names what programs use:
# neither counted nor followed.
OBSERVERS = (
    "stages",
    "pipeline",
    "pipeline.models.torch_encoder",
    "pipeline.progress",
    "pipeline.tracking.*",
)
# The models of params.yaml, whose values are parameters of the stages: followed, not counted.
_READING = ("faults", "losses", "origins", "params", "recipes", "sources", "tuning", "yaml_text")
MODELS = tuple(f"pipeline.config.{name}" for name in _READING)


def code_digests(module: str) -> dict[str, str]:
    """SHA-256 of each file that running `module` can use, by its path below the packages' folder.

    module: a dotted name, such as "stages.distill". Its imports are followed, those inside
    functions too. Of Python the syntax tree counts, without docstrings and comments; of other files
    that a module names, which lie beside it, the bytes.
    """
    return {file.relative_to(ROOT).as_posix(): _digest(file) for file in _files(module)}


def _files(module: str) -> list[Path]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or name in found or any(fnmatch(name, one) for one in OBSERVERS):
            continue
        found[name] = file
        waiting += [*_imports(file), *([name.rpartition(".")[0]] if "." in name else [])]
    counted = [file for name, file in found.items() if name not in MODELS]
    return sorted({*counted, *chain.from_iterable(map(_named_files, counted))})


def _file_of(module: str) -> Path | None:
    """The file of a module of this project; None for another's, and for what is no module."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((place for place in places if place.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def _imports(file: Path) -> Iterator[str]:
    """Every dotted name that a file imports: modules, and what may be one within a package."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _named_files(file: Path) -> set[Path]:
    """Templates and the like that a file names in a string, and those they include: they lie
    beside it, or at the root of the library.
    """
    if file.suffix == ".py":
        nodes = (node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant))
        names = {value for value in nodes if isinstance(value, str)}
    else:
        text = file.read_text(encoding="utf-8")
        names = set(re.findall(r"\{%-?\s*(?:include|import|extends)\s+[\"']([^\"']+)[\"']", text))
    named = {name for name in names if re.fullmatch(r"[\w.-]+\.[a-z0-9]+", name)}
    places = (folder / name for folder in (file.parent, ROOT / "pipeline") for name in named)
    found = {place for place in places if place.is_file()}
    return found.union(*(_named_files(path) for path in found if path.suffix != ".py"))


@cache
def _digest(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix == ".py":
        content = ast.dump(_Plain().visit(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()


class _Plain(ast.NodeTransformer):
    """Takes the docstrings out of a tree, and every other statement that is only a string."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if is_text else node
