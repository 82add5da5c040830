"""Values of params.yaml that a command line sets."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipeline.files import user_path


def read_setting(text: str) -> tuple[str, Any]:
    """The key and the value, read as YAML, of KEY=VALUE. Raises ValueError for another form."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(
            f"-S {text}: must be KEY=VALUE, the key with its path: students.NAME.query_px"
        )
    try:
        return key, YAML().load(value)
    except (YAMLError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise ValueError(f"-S {text}: its value is not YAML: {fault}") from None


def given_path(name: str, given: str, here: Path) -> str:
    """The path of a data set as params.yaml is to hold it; what lies in a store is fetched."""
    from pipeline.datasets.object_storage import is_address
    from pipeline.datasets.remote import fetch_address, folder_of

    if not is_address(given):
        return given_file("path", Path(given), here)
    folder = folder_of(name, given)
    fetch_address(given, folder)
    return str(folder.resolve())


def given_file(option: str, file: Path, here: Path) -> str:
    """The path as params.yaml is to hold it: absolute, so that it is the same in the folder of an
    experiment, or relative where git tracks what lies there.
    """
    given = Path(os.path.normpath(user_path(file, here)))
    if not given.exists():
        raise ValueError(f"--{option} {file}: there is no such file or folder")
    git = shutil.which("git")  # without it nothing is tracked
    command = [str(git), "ls-files", "--", str(given)]
    tracked = git and subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603
    return os.path.relpath(given) if tracked else str(given)
