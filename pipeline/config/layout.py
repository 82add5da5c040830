"""A folder for studies outside a checkout of the project: what `dvc repro` and `l2s` need there."""

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from pipeline.config.studies import select_studies
from pipeline.files import write_text

PACKAGE = Path(str(files("pipeline"))).resolve()
GRAPH = "dvc.yaml"
FILES = (".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots/tradeoff.json")
CODE = "    - pipeline\n    - stages\n"  # in dvc.yaml, what the stage `code` depends on
VERSION = "version.txt"
DEFAULT = "emblems"  # the study of a new folder


def lay_out(folder: Path, study: str | None = None) -> list[str]:
    """Make the folder one of studies, with `study` (or `DEFAULT`) active; what was written.

    The code is that of the installed package, so the stage that digests it depends on the package's
    version file. What a folder holds already stays, but for dvc.yaml, which is the package's. The
    folder becomes a git repository; where git is not installed, DVC is told to do without.

    Raises ValueError for an unknown study, for one that is named where params.yaml has its own, and
    in a checkout, which is such a folder already.
    """
    if (folder / "pipeline" / "code_digests.py").exists():
        raise ValueError(f"{folder}: is a checkout of the project, which needs no `l2s init`")
    if study and (folder / "params.yaml").exists():
        raise ValueError(
            f"--study {study}: {folder} has a params.yaml already, which stays: `l2s select "
            f"{study}` there makes it active"
        )
    layout = PACKAGE / "layout"  # of a wheel; beside a checkout's packages they stand themselves
    source = layout if layout.is_dir() else PACKAGE.parent
    written = [name for name in FILES if not (folder / name).exists()]
    if not (folder / "params.yaml").exists():
        select_studies(folder / "params.yaml", [study or DEFAULT])
        written.append("params.yaml")
    texts = {name: (source / name).read_text(encoding="utf-8") for name in (GRAPH, *FILES)}
    assert CODE in texts[GRAPH]
    texts[GRAPH] = texts[GRAPH].replace(CODE, f'    - "{PACKAGE / VERSION}"\n')
    if not _has_git(folder):
        texts[".dvc/config"] = texts[".dvc/config"].replace("[core]", "[core]\n    no_scm = true")
    for name in texts.keys() & {GRAPH, *written}:
        write_text(folder / name, texts[name])
    return [GRAPH, *written]


def require_own_layout() -> None:
    """Raise ValueError where dvc.yaml was laid out by another installation of the package: DVC
    would look at the code of that one, and not see that this one's differs.
    """
    found = re.search(rf'^    - "?(/.+/{VERSION})"?$', Path(GRAPH).read_text("utf-8"), re.MULTILINE)
    if found and Path(found[1]) != PACKAGE / VERSION:
        raise ValueError(
            f"{GRAPH} belongs to another installation, {Path(found[1]).parent}: `l2s init .` in "
            f"{Path.cwd()} gives it to this one, {PACKAGE}; what that changes is run again"
        )


def _has_git(folder: Path) -> bool:
    """Whether the folder lies in a git repository, or has become one."""
    if any((place / ".git").exists() for place in (folder.resolve(), *folder.resolve().parents)):
        return True
    git = shutil.which("git")
    command = [str(git), "init", "--quiet", str(folder)]
    return git is not None and subprocess.run(command).returncode == 0  # noqa: S603
