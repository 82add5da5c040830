"""The stages of dvc.yaml, one thin script each, and how a stage runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pipeline.processes import memory_fault, prepare_process
from pipeline.quick_start import collect_as_usual, collect_seldom

FAULTS = (ValueError, ArithmeticError, OSError)  # which a user can cause


def _quiet_stop(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say of a Ctrl-C, also one that comes while libraries are imported, that it is no fault."""
    if kind is KeyboardInterrupt and not os.environ.get("L2S_DEBUG"):
        sys.stderr.write("stopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # so it is while Python looks for the module of `python -m stages.NAME`
    collect_seldom()
    sys.excepthook = _quiet_stop


def run_stage(stage: Callable[[str], None]) -> None:
    """Run a stage for the key on the command line; a fault that a user can cause is one message.

    Exit code 2, no traceback unless L2S_DEBUG is set: ValueError, ArithmeticError, OSError, too
    little memory, and a key that params.yaml does not have.
    """
    if len(sys.argv) != 2:
        sys.stderr.write(f"usage: python -m stages.{Path(sys.argv[0]).stem} KEY\n")
        sys.exit(2)
    key = sys.argv[1]
    prepare_process()
    collect_as_usual()
    try:
        stage(key)
    except (*FAULTS, KeyError, ImportError, RuntimeError, MemoryError) as error:
        words = memory_fault(error)
        if isinstance(error, KeyError) and error.args == (key,):
            words = f"params.yaml has no {key!r}"
        elif isinstance(error, FAULTS):
            words = words or str(error)
        if words is None or os.environ.get("L2S_DEBUG"):
            raise
        sys.stderr.write(f"error: {words}\n")
        sys.exit(2)
