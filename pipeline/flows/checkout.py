"""Where a worker's runs take place: the first step of every deployment in prefect.yaml."""

import os
from pathlib import Path

NAME = "L2S_CHECKOUT"


def enter_checkout() -> dict[str, str]:
    """Go to the checkout that L2S_CHECKOUT names on the machine that runs.

    Prefect's own step for this would take the name of the folder from the machine that deploys.
    Raises ValueError where it names none.
    """
    named = os.environ.get(NAME, "")
    folder = Path(named).expanduser()
    if not named or not (folder / "dvc.yaml").is_file():
        raise ValueError(
            f"{NAME} = {named!r}: must name a checkout on the worker's machine: "
            f"cd CHECKOUT && {NAME}=$PWD prefect worker start --pool l2s --limit 1"
        )
    os.chdir(folder)
    return {"directory": str(Path.cwd())}
