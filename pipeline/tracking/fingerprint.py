"""What a result depends on, as one hash: parameters, input files, and code."""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CODE = ("pipeline", "stages")


def fingerprint(parameters: Any, inputs: Iterable[Path]) -> str:
    """A hash of what a result depends on: parameters, input files, and the code that is loaded.

    The code is that of the modules of this repository that are imported at the moment of the call.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in sorted([*inputs, *_loaded_code()]):
        digest.update(str(path).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]


def _loaded_code() -> list[Path]:
    root = Path.cwd()
    files = [
        Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in (*CODE, "__main__")
        and (file := getattr(module, "__file__", None))  # a Python prompt has none
    ]
    return sorted({file.relative_to(root) for file in files if file.is_relative_to(root)})
