"""Processes that start and end quickly: Python searches seldom for garbage, and not at the end.

Imports make a million objects that stay. To look through them time and again takes a tenth of a
start, and to take them apart at the end more than a second where PyTorch and MLflow are loaded.
"""

import atexit
import gc
import runpy
import sys

USUAL = 700  # new objects between two searches: Python's own value
SELDOM = 100_000


def collect_seldom() -> None:
    """For a process at its start. What lives at its end is left to the operating system."""
    gc.set_threshold(SELDOM)
    atexit.register(_keep_what_lives)


def collect_as_usual() -> None:
    """After `collect_seldom`, but for what has been imported: cycles may hold large tensors now."""
    if gc.get_threshold()[0] == SELDOM:
        gc.freeze()
        gc.set_threshold(USUAL)


def quick_command(module: str) -> list[str]:
    """The start of a command that runs another program's module so."""
    return [sys.executable, "-m", "pipeline.quick_start", module]


def _keep_what_lives() -> None:
    if "triton" in sys.modules:  # it complains of everything that is not taken apart
        gc.unfreeze()
    else:
        gc.freeze()


if __name__ == "__main__":
    collect_seldom()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
