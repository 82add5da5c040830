"""Networks are built without torch's compiler, and compile as they do with it."""

import subprocess
import sys

PROGRAM = """
import sys
import torch
from pipeline.models.backbones import build_backbone
for name in ("timm/test_resnet", "torchvision/mobilenet_v2"):
    build_backbone(name, pretrained=False)
assert "torch._dynamo" not in sys.modules
before = torch.compiler.disable
from torchvision.ops import roi_align
boxes = [torch.tensor([[0.0, 0.0, 3.0, 3.0]])]
assert roi_align(torch.full((1, 1, 4, 4), 7.0), boxes, 1).item() == 7.0
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported.__module__ == "torch._dynamo.utils"
assert torch.compiler.disable is before and before.__module__ == "torch.compiler"
features = build_backbone("timm/test_resnet", pretrained=False).features.eval()
network = torch.compile(features, backend="eager")
print(tuple(network(torch.zeros(1, 3, 32, 32)).shape))
"""


def test_the_compiler_comes_when_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1, 96, 1, 1)\n"
