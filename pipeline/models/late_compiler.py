"""timm and torchvision without torch's compiler, which takes more than a second to import."""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch.compiler
from torch._compile import _disable_dynamo

_ASKED = "torch._dynamo.utils"


def imported(name: str) -> Any:
    """The module `name` of timm or torchvision, imported without torch's compiler.

    timm marks functions that `torch.compile` must pass over, and torchvision's RoI operators ask
    whether it works here. Both load all of the compiler when they are imported. Here the marks are
    torch's own late ones, and the question is asked when an operator runs.
    """
    if "torch._dynamo" in sys.modules:
        return importlib.import_module(name)
    late: Any = ModuleType(_ASKED)
    late.is_compile_supported = _is_compile_supported
    sys.modules[_ASKED] = late
    compiler: Any = torch.compiler
    disable, compiler.disable = compiler.disable, _disable_dynamo
    try:
        return importlib.import_module(name)
    finally:
        compiler.disable = disable
        del sys.modules[_ASKED]


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
