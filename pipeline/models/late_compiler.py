"""timm and torchvision without torch's compiler, which takes two seconds to import."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch.compiler
from torch._compile import _disable_dynamo

_ASKED = "torch._dynamo.utils"


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Imports of timm and torchvision in the block leave torch's compiler until it is used.

    timm marks functions that `torch.compile` must pass over, and torchvision's RoI operators ask
    whether it works here. Both load all of the compiler when they are imported. In the block the
    marks are torch's own late ones, and the question is asked when an operator runs.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    late: Any = ModuleType(_ASKED)
    late.is_compile_supported = _is_compile_supported
    sys.modules[_ASKED] = late
    compiler: Any = torch.compiler
    disable, compiler.disable = compiler.disable, _disable_dynamo
    try:
        yield
    finally:
        compiler.disable = disable
        if sys.modules.get(_ASKED) is late:
            del sys.modules[_ASKED]


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
