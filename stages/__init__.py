"""The stages of dvc.yaml, one thin script each, and how a stage runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.processes import prepare_process
from pipeline.quick_start import collect_as_usual, collect_seldom

if sys.argv[0] == "-m":  # so it is while Python looks for the module of `python -m stages.NAME`
    collect_seldom()


def run_stage(stage: Callable[[str], None]) -> None:
    """Run a stage for the key on the command line; a fault that a user can cause is one message.

    Exit code 2, no traceback unless L2S_DEBUG is set: ValueError, ArithmeticError, OSError, and a
    key that params.yaml does not have.
    """
    if len(sys.argv) != 2:
        sys.stderr.write(f"usage: python -m stages.{Path(sys.argv[0]).stem} KEY\n")
        sys.exit(2)
    key = sys.argv[1]
    prepare_process()
    collect_as_usual()
    try:
        stage(key)
    except (ValueError, ArithmeticError, OSError, KeyError) as error:
        if os.environ.get("L2S_DEBUG") or (isinstance(error, KeyError) and error.args != (key,)):
            raise
        unknown = isinstance(error, KeyError)
        sys.stderr.write(f"error: {f'params.yaml has no {key!r}' if unknown else error}\n")
        sys.exit(2)
