"""The steps of the Dockerfile without a daemon: what it copies, and its `make` targets.

python -m tests.docker_steps FOLDER        # a new environment, of 8 GB, in FOLDER
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, list[str]]]:
    """Each instruction of the Dockerfile, and its words without options."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    split = [line.split(maxsplit=1) for line in lines]
    return [
        (name, [word for word in shlex.split(rest) if name == "RUN" or not word.startswith("--")])
        for name, rest in split
    ]


def copy(words: list[str], folder: Path) -> None:
    """As COPY does, relative to the repository and to the folder."""
    *sources, target = words
    for source in sources:
        place = folder / target / source if target == "./" else folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, place, ignore=ignored)
        else:
            shutil.copy2(ROOT / source, place)


def run_steps(folder: Path) -> None:
    """Copy and make, in order; what is installed by apt is expected to be here."""
    for name, words in instructions():
        if name == "COPY":
            copy(words, folder)
        elif name == "RUN" and words[0] == "make":
            command = [word.replace("python3", "python3.11") for word in words]
            subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    run_steps(Path(sys.argv[1]))
