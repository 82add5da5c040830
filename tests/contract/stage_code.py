"""The code that each stage of dvc.yaml runs, found by following imports.

`python -m tests.contract.stage_code` writes it into the `deps` of dvc.yaml; a contract test fails
when they differ.
"""

import ast
import re
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CODE = ("pipeline", "stages")
DATA_SUFFIXES = (".css", ".j2", ".js")  # what modules read that lies beside them


def module_file(module: str) -> Path | None:
    """The file of a module of this repository, relative to its root."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def imported_modules(file: Path) -> set[str]:
    """Modules of this repository that a file names in any import, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] in CODE and module_file(name)}


def named_files(file: Path) -> set[Path]:
    """Templates and the like beside a module that it names in a string, and those they include."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.suffix == ".py":
        constants = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        names = {str(constant.value) for constant in constants}
    else:
        names = set(re.findall(r"\{%-?\s*(?:include|import|extends)\s+[\"']([^\"']+)[\"']", text))
    found = {file.with_name(name) for name in names if name.endswith(DATA_SUFFIXES)}
    found = {path for path in found if (ROOT / path).is_file()}
    return found.union(*(named_files(path) for path in found))


def code_of(module: str) -> set[str]:
    """Every file of this repository that running `module` can import, packages included."""
    found: set[Path] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        file = module_file(name)
        if file is None or file in found:
            continue
        found |= {file} | named_files(file)
        queue += imported_modules(file)
        if "." in name:
            queue.append(name.rpartition(".")[0])
    return {file.as_posix() for file in found}


def stage_definitions(dvc: dict) -> dict[str, dict]:
    """The stages, those of a `foreach` by what they do for each entry."""
    return {name: entry.get("do", entry) for name, entry in dvc["stages"].items()}


def stage_module(definition: dict) -> str:
    match = re.search(r"python -m (stages\.\w+)", definition["cmd"])
    assert match, definition["cmd"]
    return match.group(1)


def main() -> None:
    yaml = YAML()
    yaml.width = 120
    path = ROOT / "dvc.yaml"
    dvc = yaml.load(path.read_text(encoding="utf-8"))
    for definition in stage_definitions(dvc).values():
        data = [dep for dep in definition["deps"] if not dep.startswith(CODE)]
        definition["deps"] = [*data, *sorted(code_of(stage_module(definition)))]
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(dvc, file)


if __name__ == "__main__":
    main()
