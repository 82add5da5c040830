"""Networks as ONNX, kept ready for searches: PyTorch takes two seconds to import, ONNX Runtime 0.1.

The evaluation of a study, and a search that finds none, leave the ONNX of a network here, checked.
"""

import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pipeline.files import known_md5, replacing
from pipeline.paths import WORK

HOME = WORK / "encoders"
MOST_KEPT = 32


def kept_onnx(network: Path) -> bytes | None:
    """The kept ONNX of a network as it is now; empty where it can have none, None where not made,
    and without ONNX Runtime, which an extra of the package brings.

    The name of its file tells what it was made of, and the MD5 of its content.
    """
    if find_spec("onnxruntime") is None:
        return None
    for file in HOME.glob(f"{_origin(network)}-*.onnx"):
        with suppress(FileNotFoundError):  # another process has just deleted it as the oldest
            content = file.read_bytes()
            if file.stem.endswith(_md5(content)):
                return content
    return None


def keep_onnx(network: Path, onnx: bytes) -> None:
    """Keep the ONNX of a network; the oldest go where there are more than `MOST_KEPT`."""
    with replacing(HOME / f"{_origin(network)}-{_md5(onnx)}.onnx") as temporary:
        temporary.write_bytes(onnx)
    files = sorted(HOME.glob("*.onnx"), key=lambda file: file.stat().st_mtime_ns)
    for old in files[:-MOST_KEPT]:
        old.unlink(missing_ok=True)


def _origin(network: Path) -> str:
    """What an ONNX depends on: the network, the code of this room, and the libraries."""
    code = [known_md5(file) for file in sorted(Path(__file__).parent.glob("*.py"))]
    libraries = [version(name) for name in ("torch", "torchvision", "timm", "onnxruntime")]
    return _md5(json.dumps([known_md5(network), code, libraries]).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
