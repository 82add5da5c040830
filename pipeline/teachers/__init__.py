"""What a teacher can be: trained here, frozen, an ONNX file, stored vectors; one file each."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


def teacher_card(path: Path) -> dict[str, Any]:
    """What the file of a teacher says of itself; `kind` is "network" where it names none.

    Raises ValueError for a file that is no teacher.
    """
    try:
        with safe_open(path, framework="np") as file:
            card = json.loads(file.metadata()["card"])
        return {"kind": "network", **card}
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no teacher of this program ({reason})") from error
